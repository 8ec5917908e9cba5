"""A Runner with a real ComfyUI, and what to look at it with."""

import asyncio
import json
import uuid
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from support_graphs import Book, Channel, solid

from comfyd_modal.comfyui import ComfyUI
from comfyd_modal.payload import read, unpack
from comfyd_modal.place import Place
from comfyd_modal.runner import Runner
from comfyd_modal.volume import Shelf

PNG = b"\x89PNG\r\n\x1a\n"


class Stock(Shelf):
    """A Volume that does as a test says: `show` brings it up to date, or raises OutOfDate; `names` are its models."""

    def __init__(self) -> None:
        self.show: Callable[[], None] = lambda: None
        self.names: set[str] | None = None  # None where it cannot be asked
        self.reloads = 0

    async def reload(self) -> None:
        self.reloads += 1
        self.show()

    async def has(self, names: Iterable[str]) -> bool:
        return self.names is None or self.names.issuperset(names)


class Bench:
    """A Runner, and what to look at it with."""

    def __init__(self, work: Path, folder: Path, python: str):
        self.place = Place(folder, python, work, ("--cpu",), models=work / "models")
        self.ended = 0
        self.stock = Stock()
        self.book = Book()
        self.runner = Runner(
            self.place,
            book=self.book,
            channel=Channel(),
            gpu_snapshot=False,
            end_container=self._end,
            shelf=self.stock,
        )

    async def _end(self) -> None:
        self.ended += 1

    @property
    def comfy(self) -> ComfyUI:
        """The Runner's ComfyUI."""
        return self.runner._comfy

    def use(self, channel: Channel) -> Channel:
        """Puts another queue into the Runner."""
        self.runner._channel = channel
        return channel

    def start(self, graph: dict | str, inputs: list | None = None, **options: Any) -> Coroutine[Any, Any, bytes]:
        """One call of run."""
        options.setdefault("prompt_id", str(uuid.uuid4()))
        options.setdefault("progress", False)
        text = graph if isinstance(graph, str) else json.dumps(graph)
        return self.runner.run(text, "job-1", json.dumps(options), inputs)

    def run(self, graph: dict | str, inputs: list | None = None, **options: Any) -> tuple[dict, bytes]:
        """One call of run to its end: the manifest and the payload."""
        payload = asyncio.run(self.start(graph, inputs, **options))
        return unpack(payload)[0], payload

    def ask(self, path: str) -> Any:
        """What ComfyUI answers to GET path."""
        return json.loads(self.comfy.get(path, 60))

    def left(self) -> list[str]:
        """Files in the folders of the job."""
        folders = (self.place.work / name for name in ("input", "output", "temp"))
        return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]

    def assert_clean(self) -> None:
        """Asserts that nothing of a prompt is left, and that the next one runs."""
        if self.comfy.alive():
            self.comfy.wait_ready()
            assert self.ask("/history") == {}
            assert self.ask("/queue") == {"queue_running": [], "queue_pending": []}
        assert self.left() == []
        manifest, payload = self.run(solid())
        assert manifest["history"]["status"]["status_str"] == "success"
        assert read(payload, manifest["files"][0]).startswith(PNG)

    async def running(self) -> None:
        """Waits until ComfyUI runs a prompt, 120 s at most."""
        async with asyncio.timeout(120):
            while not (await asyncio.to_thread(self.ask, "/queue"))["queue_running"]:
                await asyncio.sleep(0.05)
