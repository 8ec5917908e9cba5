"""ComfyUI as a process: how it starts, fails to, and ends."""

import dataclasses
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support_bench import Bench
from support_toy import toy

from comfyd_modal import comfyui, process
from comfyd_modal.comfyui import About, ComfyUI, device
from comfyd_modal.errors import LOG_MARK, StartFailed
from comfyd_modal.place import Place, from_env

pytest_plugins = ["support_runner"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ComfyUI]]:
    """Makes a ComfyUI out of the toy; all are ended after the test."""
    made: list[ComfyUI] = []

    def make(hook: str = "", **more: object) -> ComfyUI:
        made.append(ComfyUI(toy(tmp_path / "toy", hook, **more)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for comfy in made:
        comfy.close()


def up(comfy: ComfyUI) -> dict:
    """Starts it and returns what it answers."""
    comfy.spawn()
    comfy.wait_ready()
    return json.loads(comfy.get("/", 60))


def gone(pid: int) -> bool:
    """Whether a process is no more, or only a zombie, within 60 s."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_start(start: Callable[..., ComfyUI], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "secret")
    monkeypatch.setenv("HUGGINGFACE_ACCESS_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    comfy = start(args=("--cpu",))
    answer = up(comfy)
    assert comfy.about == About("0.0.1", "NVIDIA L40S")
    args = answer["system"]["argv"][1:]
    assert args[-1] == "--cpu" and args[args.index("--listen") + 1] == "127.0.0.1"
    config = Path(args[args.index("--extra-model-paths-config") + 1])
    assert str(comfy.place.models) in config.read_text()
    assert "secret" not in answer["env"].values() and "PYTHONPATH" not in answer["env"]
    assert answer["env"]["PATH"] == os.environ["PATH"]
    assert answer["stdin"] == ""
    assert "torch" not in answer["modules"], "nothing is imported ahead without preload"
    assert os.getpgid(comfy.process.pid) == comfy.process.pid, "a group of its own"
    comfy.close()
    assert gone(comfy.process.pid)


def test_modules_are_imported_ahead(start: Callable[..., ComfyUI], monkeypatch: pytest.MonkeyPatch) -> None:
    hook = """
import torch
print("allocator", torch.allocator, os.environ.get("PYTORCH_CUDA_ALLOC_CONF"), torch._C._cuda_getDeviceCount())
"""
    comfy = start(hook, torch_package="x = 1")
    comfy.preload()
    monkeypatch.setenv("GIVEN_AFTER_THE_SNAPSHOT", "1")
    waiting = comfy._launcher.pid
    answer = up(comfy)
    assert comfy.process.pid == waiting
    assert {"torch", "torchvision"} <= set(answer["modules"])
    assert answer["env"]["GIVEN_AFTER_THE_SNAPSHOT"] == "1"
    assert (
        "allocator backend:toy None 1" in comfy.tail()
    ), "chosen by cuda_malloc.py before torch; torch as it was afterwards"
    assert "cuda_malloc" not in answer["modules"], "main.py imports it anew"


def test_a_module_that_asks_for_cuda_is_found_out(
    start: Callable[..., ComfyUI], caplog: pytest.LogCaptureFixture
) -> None:
    comfy = start(torch_package="there = torch._C._cuda_getDeviceCount() > 0")
    with caplog.at_level("INFO", "comfyd"):
        comfy.preload()
    assert "torchvision asks for CUDA" in caplog.text and "exited with status 3" in caplog.text
    assert "torchvision" not in up(comfy)["modules"], "a plain start"


def test_a_launcher_that_has_died_is_passed_over(start: Callable[..., ComfyUI]) -> None:
    comfy = start()
    comfy.preload()
    os.kill(comfy._launcher.pid, signal.SIGKILL)
    assert "torch" not in up(comfy)["modules"]


def test_a_launcher_that_does_not_answer_is_passed_over(
    start: Callable[..., ComfyUI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfyui, "STARTING_LIMIT", 0.5)
    comfy = start()
    comfy.preload()
    waiting = comfy._launcher.pid
    os.kill(waiting, signal.SIGSTOP)
    assert "torch" not in up(comfy)["modules"]
    assert gone(waiting)


def test_a_start_that_fails_tells_the_end_of_the_log(start: Callable[..., ComfyUI]) -> None:
    comfy = start('print("\\n".join(f"line {n}" for n in range(99)))\nraise SystemExit("no such option")')
    comfy.spawn()
    with pytest.raises(StartFailed, match="exited with status 1") as e:
        comfy.wait_ready()
    log = str(e.value).partition(LOG_MARK)[2].splitlines()
    assert log[-2:] == ["line 98", "no such option"] and len(log) == process.TAIL_LINES


def test_a_start_that_takes_too_long_is_ended(start: Callable[..., ComfyUI]) -> None:
    comfy = start('print("thinking", flush=True)\ntime.sleep(60)')
    comfy.place = dataclasses.replace(comfy.place, startup_timeout=5)  # in which it can say something
    comfy.spawn()
    with pytest.raises(StartFailed, match="did not answer within 5 s.*STARTUP_TIMEOUT[^$]*thinking"):
        comfy.wait_ready()
    assert gone(comfy.process.pid)


def test_another_program_on_the_port_is_not_taken_for_ours(
    start: Callable[..., ComfyUI], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            body = b'{"system": {"comfyui_version": "9", "argv": ["main.py"]}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            monkeypatch.setattr(comfyui, "free_port", lambda: other.server_port)
            comfy = start()
            comfy.spawn()
            with pytest.raises(StartFailed, match="Address already in use"):
                comfy.wait_ready()
        finally:
            other.shutdown()
            thread.join()


def test_one_that_the_kernel_kills_is_told_of_its_memory(start: Callable[..., ComfyUI]) -> None:
    comfy = start()
    up(comfy)
    os.kill(comfy.process.pid, signal.SIGKILL)
    assert gone(comfy.process.pid) and not comfy.alive()
    assert "memory" in comfy.process.end()


def test_it_ends_with_its_runner_and_with_all_its_children(tmp_path: Path) -> None:
    hook = 'import subprocess\nprint("child", subprocess.Popen(["sleep", "60"]).pid, flush=True)'
    place = toy(tmp_path / "toy", hook)
    script = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from support_toy import toy
from comfyd_modal.comfyui import ComfyUI
from comfyd_modal.place import Place
from pathlib import Path
comfy = ComfyUI(Place(Path({str(place.folder)!r}), sys.executable, Path({str(place.work)!r})))
comfy.spawn()
comfy.wait_ready()
print(comfy.process.pid, comfy.tail().rpartition("child ")[2].split()[0], flush=True)
if sys.argv[1] == "close":
    comfy.close()
os.kill(os.getpid(), 9)
"""
    for how in ("close", "die"):
        out = subprocess.run([sys.executable, "-c", script, how], capture_output=True, timeout=120, check=False)
        pid, child = map(int, out.stdout.split())
        assert gone(pid), how
        if how == "close":
            assert gone(child)
        else:
            os.kill(child, signal.SIGKILL)


def test_it_starts_from_the_main_thread_only(start: Callable[..., ComfyUI]) -> None:
    errors: list[str] = []

    def run() -> None:
        try:
            comfy.spawn()
        except RuntimeError as e:
            errors.append(str(e))

    comfy = start()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(errors) == 1 and "main thread" in errors[0]


def test_the_log_is_bounded_and_carries_the_job(
    start: Callable[..., ComfyUI], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_LIMIT", 6_000)
    comfy = start('for n in range(1000):\n    print("line", n)\nprint("10%\\r20%\\r100%", flush=True)')
    comfy.label("job_id=7 ")
    with caplog.at_level("INFO", "comfyd.comfyui"):
        up(comfy)
        until = time.monotonic() + 60
        while "100%" not in caplog.text and time.monotonic() < until:
            time.sleep(0.02)
    assert "job_id=7 line 999" in caplog.text and "job_id=7 100%" in caplog.messages
    files = sorted(comfy.place.work.glob("comfyui.log*"))
    assert [f.name for f in files] == ["comfyui.log", "comfyui.log.1"]
    assert sum(f.stat().st_size for f in files) <= 12_000


def test_an_execution_thread_that_dies_is_noticed(start: Callable[..., ComfyUI]) -> None:
    hook = """
import threading
def prompt_worker():
    raise KeyError("zzz")
threading.Thread(target=prompt_worker).start()
"""
    comfy = start(hook)
    up(comfy)
    until = time.monotonic() + 60
    while not comfy.unfit() and time.monotonic() < until:
        time.sleep(0.02)
    assert comfy.unfit() == "its execution thread has died"


@pytest.mark.parametrize(
    ("name", "kind", "want"),
    [
        ("cuda:0 NVIDIA L40S : cudaMallocAsync", "cuda", "NVIDIA L40S"),
        ("cuda:0 NVIDIA A100-SXM4-40GB", "cuda", "NVIDIA A100-SXM4-40GB"),
        ("cpu", "cpu", "cpu"),
    ],
)
def test_the_devices_name(name: str, kind: str, want: str) -> None:
    assert device({"devices": [{"name": name, "type": kind}]}) == want
    assert device({}) == ""


def test_the_place_comes_from_the_environment() -> None:
    env = {"COMFYD_COMFYUI_DIR": "/c", "COMFYD_COMFYUI_PYTHON": "/p", "COMFYD_COMFYUI_ARGS": "--cpu --x 'a b'"}
    want = Place(Path("/c"), "/p", Path("/tmp/comfyd"), ("--cpu", "--x", "a b"), Path("/models"), 390)
    assert from_env(env) == want
    env |= {"COMFYD_WORK_DIR": "/w", "COMFYD_MODELS_DIR": "/m", "COMFYD_MODAL_STARTUP_TIMEOUT": "100"}
    assert from_env(env) == dataclasses.replace(want, work=Path("/w"), models=Path("/m"), startup_timeout=65)


def test_the_real_one_has_its_modules_imported_ahead(bench: Bench) -> None:
    log = (bench.place.work / "comfyui.log").read_text()
    assert "comfyd-launcher: preloaded" in log and "asks for CUDA" not in log
    assert bench.comfy.about.gpu == "cpu" and bench.comfy.about.version
