"""Calls of run that are cancelled, and ComfyUIs that die, hang or are poisoned."""

import asyncio
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support_bench import Bench
from support_graphs import Channel, slow, solid

from comfyd_modal import prompt
from comfyd_modal.errors import LOG_MARK, BackendLost, Stalled, StartFailed
from comfyd_modal.runner import Runner

pytest_plugins = ["support_runner"]


def cancel_when(bench: Bench, graph: dict, ready: Callable[[], Any], again: int = 0) -> float:
    """Runs a graph, cancels the call as Modal does when `ready` returns, and tells how long the end took."""

    async def main() -> float:
        task = asyncio.create_task(bench.start(graph))
        await ready()
        began = time.monotonic()
        task.cancel("Input was cancelled by user")
        for _ in range(again):
            await asyncio.sleep(0.01)
            task.cancel("Input was cancelled by user")
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    return asyncio.run(main())


@pytest.mark.parametrize("again", [0, 3])
def test_a_call_that_is_cancelled_while_its_prompt_runs(bench: Bench, again: int) -> None:
    process = bench.comfy.process
    assert cancel_when(bench, slow(), bench.running, again) < 20, "it would run for half a minute"
    assert bench.ended == 0 and bench.comfy.process is process, "ComfyUI stays"
    bench.assert_clean()


def test_a_comfyui_that_does_not_stop_ends_with_its_container(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "STOP", 1.0)
    pid = bench.comfy.process.pid

    async def stuck() -> None:
        await bench.running()
        os.kill(pid, signal.SIGSTOP)

    assert 1.0 <= cancel_when(bench, slow(), stuck) < 20
    assert bench.ended == 1 and not bench.comfy.alive()
    assert bench.left() == []
    bench.assert_clean()


def test_a_process_that_outlives_its_kill_gets_no_other_beside_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a driver holds it: it may still have the GPU, and the container ends anyway."""
    monkeypatch.setattr(prompt, "STOP", 0.5)
    process = bench.comfy.process
    kill = bench.comfy.kill

    async def stuck() -> None:
        await bench.running()
        os.kill(process.pid, signal.SIGSTOP)

    monkeypatch.setattr(bench.comfy, "kill", lambda: None)
    cancel_when(bench, slow(), stuck)
    assert bench.ended == 1 and bench.comfy.process is process
    assert bench.comfy.unfit(), "should the container live on, it is replaced"
    kill()
    monkeypatch.undo()
    bench.assert_clean()


def test_a_file_that_cannot_be_removed_does_not_cost_the_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as m:
        m.setattr(Path, "unlink", refuse)
        manifest, _ = bench.run(solid(), [["x.png", b"x"]])
    assert manifest["end"] == "history"
    assert "cannot be removed: [Errno 5]" in caplog.text
    bench.runner._sweep().sweep()
    bench.assert_clean()


def test_a_comfyui_that_dies(bench: Bench) -> None:
    async def main() -> None:
        task = asyncio.create_task(bench.start(slow(), [["a/b.png", b"x"]]))
        await bench.running()
        os.kill(bench.comfy.process.pid, signal.SIGKILL)
        await task

    with pytest.raises(BackendLost, match="SIGKILL.*memory") as e:
        asyncio.run(main())
    assert "got prompt" in str(e.value).partition(LOG_MARK)[2]
    assert bench.comfy.alive(), "started again for the next prompt"
    bench.assert_clean()


def test_a_comfyui_that_shows_no_life(bench: Bench) -> None:
    async def main() -> float:
        task = asyncio.create_task(bench.start(slow(), stall_timeout=5))
        await bench.running()
        os.kill(bench.comfy.process.pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(Stalled, match="no sign of life"):
            await task
        return time.monotonic() - began

    assert asyncio.run(main()) < 60
    bench.assert_clean()


def test_a_graph_that_kills_the_execution_thread(bench: Bench) -> None:
    graph = solid()
    graph["2"]["inputs"]["undeclared"] = ["99", 0]
    began = time.monotonic()
    with pytest.raises(BackendLost, match="execution thread") as e:
        bench.run(graph)
    assert "Traceback" in str(e.value) and time.monotonic() - began < 20
    bench.assert_clean()


def test_a_comfyui_that_was_poisoned_unseen_is_replaced(bench: Bench) -> None:
    process = bench.comfy.process
    process._worker_died = True  # as when it dies of what it does between two prompts
    bench.assert_clean()
    assert bench.comfy.process is not process


def test_a_start_that_fails_is_told_by_warm_and_run_and_ends_the_container(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[int] = []

    async def end() -> None:
        ends.append(1)

    place = dataclasses.replace(bench.place, work=tmp_path / "work", args=("--no-such-option",))
    runner = Runner(place, book=bench.book, channel=Channel(), gpu_snapshot=True, end_container=end)
    try:
        runner.prepare()
        runner.start()
        assert "model file missing: unet/flux1-dev.safetensors" in caplog.text
        with pytest.raises(StartFailed, match="no-such-option"):
            asyncio.run(runner.warm())
        assert ends == [1], "it would wait for work, with a GPU that costs"
        with pytest.raises(StartFailed, match="exited with status 2"):
            asyncio.run(runner.run(json.dumps(solid()), "job-1", '{"progress": false}'))
        assert ends == [1, 1]
    finally:
        runner.stop()
