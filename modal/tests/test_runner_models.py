"""Prompts that name a model which a running container does not see, in a real ComfyUI."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support_bench import Bench
from support_graphs import node, tag

from comfyd_modal.errors import StartFailed
from comfyd_modal.prompt import unknown_models
from comfyd_modal.volume import OutOfDate, Shelf

pytest_plugins = ["support_runner"]

NAME = "late.safetensors"


def with_model(name: str = NAME) -> dict:
    """A graph that ComfyUI takes once there is a file of that name; it then fails, because that is no model."""
    return {
        "1": node("CheckpointLoaderSimple", ckpt_name=name),
        "2": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "3": node("VAEDecode", samples=["2", 0], vae=["1", 2]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="model", **tag()),
    }


@pytest.fixture
def late(bench: Bench) -> Any:
    """The file of the model, which is not there yet; it is gone again after the test, for ComfyUI too."""
    path = bench.place.models / "checkpoints" / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink(missing_ok=True)
    os.utime(path.parent)


def open_files() -> None:
    raise OutOfDate("there are open files preventing the operation")


def failed_at_model(manifest: dict) -> bool:
    return manifest["end"] == "history" and [e["node_type"] for e in manifest["errors"]] == ["CheckpointLoaderSimple"]


def unless_alive(bench: Bench, process: Any, then: Callable[[], Any]) -> Callable[[], None]:
    """What Modal does: it refuses while that ComfyUI, which has files open, is alive."""

    def show() -> None:
        if process.alive():
            open_files()
        then()

    return show


def test_a_reload_is_enough_where_nothing_is_open(bench: Bench, late: Path) -> None:
    process = bench.comfy.process
    bench.stock.show = lambda: late.write_bytes(b"no model")
    assert failed_at_model(bench.run(with_model())[0])
    assert bench.comfy.process is process and bench.ended == 0 and bench.stock.reloads == 1
    bench.assert_clean()


def test_a_name_that_the_volume_does_not_have_costs_nothing(bench: Bench, late: Path) -> None:
    process = bench.comfy.process
    bench.stock.show, bench.stock.names = open_files, {NAME}
    manifest, _ = bench.run(with_model("latte.safetensors"))
    assert manifest["end"] == "refused" and "latte.safetensors" in str(manifest["answer"])
    assert bench.comfy.process is process and bench.ended == bench.stock.reloads == 0


def test_open_files_are_closed_by_a_new_process(bench: Bench, late: Path) -> None:
    process = bench.comfy.process
    bench.stock.names = {NAME}
    bench.stock.show = unless_alive(bench, process, lambda: late.write_bytes(b"no model"))
    manifest, _ = bench.run(with_model())
    assert failed_at_model(manifest), manifest
    assert not process.alive() and bench.comfy.alive() and bench.ended == 0
    assert manifest["frames_gap"] is False, "the new process is listened to from its prompt's start"
    bench.assert_clean()


@pytest.mark.parametrize("refused_for_good", [True, False])
def test_what_stays_out_of_sight_is_refused_after_one_new_process(
    bench: Bench, late: Path, refused_for_good: bool
) -> None:
    spawned = []
    spawn = bench.comfy.spawn
    bench.stock.show = open_files if refused_for_good else lambda: None
    bench.comfy.spawn = lambda: (spawned.append(1), spawn())  # type: ignore[method-assign,assignment]
    try:
        manifest, _ = bench.run(with_model())
    finally:
        del bench.comfy.spawn
    assert manifest["end"] == "refused" and NAME in str(manifest["answer"])
    assert spawned == [1] and bench.ended == 0
    bench.assert_clean()


def test_a_list_that_comfyui_has_kept_is_read_anew(bench: Bench, late: Path) -> None:
    bench.stock.names = set()
    assert bench.run(with_model())[0]["end"] == "refused", "now it has a list of the folder"
    bench.stock.names = {NAME}
    times = late.parent.stat()
    process = bench.comfy.process

    def unseen() -> None:
        late.write_bytes(b"no model")
        os.utime(late.parent, ns=(times.st_atime_ns, times.st_mtime_ns))

    bench.stock.show = unseen
    assert failed_at_model(bench.run(with_model())[0])
    assert bench.comfy.process is not process and bench.ended == 0


def test_a_part_that_was_taken_does_not_stand_for_the_whole(bench: Bench, late: Path) -> None:
    """ComfyUI takes the outputs without the model and is stopped; what counts is the second try, of all."""
    graph = with_model() | {"5": node("EmptyImage", width=8, height=8, batch_size=1, color=1)}
    graph["6"] = node("PreviewImage", images=["5", 0], **tag())
    bench.stock.show = lambda: late.write_bytes(b"no model")
    manifest, _ = bench.run(graph)
    assert failed_at_model(manifest), manifest
    bench.assert_clean()


def test_a_call_that_is_cancelled_during_the_restart_runs_nothing(bench: Bench, late: Path) -> None:
    bench.stock.show = unless_alive(bench, bench.comfy.process, lambda: late.write_bytes(b"no model"))
    kill = bench.comfy.kill

    async def main() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(bench.start(with_model()))

        def cancelled() -> None:
            loop.call_soon_threadsafe(task.cancel)
            kill()

        bench.comfy.kill = cancelled  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        asyncio.run(main())
    finally:
        del bench.comfy.kill
    assert not late.exists() and bench.ended == 0
    bench.assert_clean()


def test_a_comfyui_that_does_not_come_up_again_ends_its_container(
    bench: Bench, late: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stock.show = open_files
    monkeypatch.setattr(bench.comfy, "_arguments", lambda: ["--no-such-option"])
    with pytest.raises(StartFailed, match="exited with status 2"):
        bench.run(with_model())
    assert bench.ended == 1
    monkeypatch.undo()
    bench.assert_clean()


def refusal(*errors: tuple[str, Any]) -> dict:
    rows = [{"type": kind, "extra_info": {"received_value": value}} for kind, value in errors]
    return {"node_errors": {"7": {"errors": rows}}}


def test_a_refusal_that_is_about_models_only() -> None:
    both = refusal(("value_not_in_list", "a.safetensors"), ("value_not_in_list", "sub/b.GGUF"))
    assert unknown_models(both) == {"a.safetensors", "sub/b.GGUF"}
    assert unknown_models(refusal(("value_not_in_list", "euler"))) == set()
    assert unknown_models(refusal(("value_not_in_list", "a.pth"), ("value_smaller_than_min", 0))) == set()
    assert unknown_models(refusal(("invalid_input_type", "x.pth"))) == set()
    assert unknown_models({"error": {}}) == unknown_models({"node_errors": []}) == unknown_models(None) == set()


class Entry:
    """One of Modal's FileEntry."""

    def __init__(self, path: str):
        self.path = path


class Listed:
    """A modal.Volume, as far as it lists; None for one that cannot be asked."""

    def __init__(self, paths: list[str] | None):
        self.iterdir = self
        self._paths = paths

    async def aio(self, path: str, *, recursive: bool) -> Any:
        """Modal's own name for the method in an event loop."""
        assert (path, recursive) == ("/", True)
        if self._paths is None:
            raise ConnectionError("no way")
        for p in self._paths:
            yield Entry(p)


@pytest.mark.parametrize(
    ("paths", "has"),
    [
        (["vae/x.pth", "loras/sub/late.safetensors"], True),
        (["/loras/sub/late.safetensors"], True),
        (["loras/late.safetensors"], False),
        ([".comfyd/loras/sub/late.safetensors"], False),
        (["loras/sub/late.safetensors.partial"], False),
        ([], False),
        (None, True),
    ],
)
def test_the_volume_is_asked_and_not_the_mount(
    monkeypatch: pytest.MonkeyPatch, paths: list[str] | None, has: bool
) -> None:
    monkeypatch.setattr("comfyd_modal.volume.modal.is_local", lambda: False)
    monkeypatch.setattr("comfyd_modal.volume._volume", lambda: Listed(paths))
    assert asyncio.run(Shelf().has({"sub/late.safetensors"})) is has
