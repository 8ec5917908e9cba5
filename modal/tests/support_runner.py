"""Fixtures: one Runner with a real ComfyUI for the whole session, because starting one takes ten seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support_bench import Bench
from support_graphs import Channel

from comfyd_modal import job


@pytest.fixture(scope="session")
def shared_bench(tmp_path_factory: pytest.TempPathFactory, comfyui_dir: Path, comfyui_python: str) -> Iterator[Bench]:
    """The one that `bench` hands out."""
    bench = Bench(tmp_path_factory.mktemp("work"), comfyui_dir, comfyui_python)
    bench.runner.prepare()
    bench.runner.start()
    yield bench
    bench.runner.stop()


@pytest.fixture
def bench(shared_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The shared Runner, which has been started; tests may leave its ComfyUI dead or starting."""
    monkeypatch.setattr(job, "HEALTH", 60.0)  # one that is only slow is not replaced: tests look for its process
    shared_bench.use(Channel())
    shared_bench.ended = 0
    stock = shared_bench.stock
    stock.show, stock.names, stock.reloads = (lambda: None), None, 0
    return shared_bench
