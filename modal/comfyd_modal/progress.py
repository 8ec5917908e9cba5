"""News of a prompt, told through a modal.Queue while it runs. Its loss never fails or slows the prompt."""

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import modal

from . import settings
from .payload import Container, finite

log = logging.getLogger("comfyd")

APART = 1.0  # seconds at least between two items
ALIVE = 5.0  # seconds at most between two items
PATIENCE = 5.0  # seconds for one item to be taken
MOST_EVENTS = 600 << 10  # bytes of events in one item; Modal takes items of 1 MiB
MOST_PREVIEW = 256 << 10  # bytes of an image before base64

Send = Callable[[str], Awaitable[None]]


class Progress:
    """Collects ComfyUI's messages about one prompt and sends them on. It starts with `async with` and ends with it."""

    def __init__(self, send: Send, container: Container, label: str = "", previews: bool = False):
        self.running = False
        self._previews = previews
        self._send = send
        self._container: Container | None = container
        self._label = label
        self._events: dict[tuple, dict[str, Any]] = {}
        self._preview: dict[str, str] | None = None
        self._news = asyncio.Event()
        self._seq = 0
        self._told = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Progress":
        self._task = asyncio.create_task(self._run(), name="progress")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=1)

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Takes a text message. Of `progress` the newest of each node is kept, of `progress_state` the newest."""
        self._seq += 1
        key: tuple = (self._seq,)
        if kind == "progress":
            key = (kind, data.get("node"))
        elif kind == "progress_state":
            key = (kind,)
        elif kind == "executed":
            data = {k: v for k, v in data.items() if k != "output"}
        self._events.pop(key, None)  # so that it stands last
        self._events[key] = {"type": kind, "data": data}
        self._news.set()

    def preview(self, node: str, mime: str, data: bytes) -> None:
        """Takes an image that shows how far a node is, where previews are wanted; the newest one counts."""
        if self._previews and len(data) <= MOST_PREVIEW:
            self._preview = {"node": node, "type": mime, "data": base64.b64encode(data).decode()}
            self._news.set()

    def _item(self, seq: int) -> str:
        events, self._events = list(self._events.values()), {}
        preview, self._preview = self._preview, None
        texts = [json.dumps(finite(e), separators=(",", ":")) for e in events]
        size = sum(map(len, texts))
        while size > MOST_EVENTS:  # the oldest are the least worth
            size -= len(texts.pop(0))
        head: dict[str, Any] = {"t": int(time.time() * 1000), "seq": seq, "running": self.running}
        if self._container is not None:
            head["container"], self._container = asdict(self._container), None
        if preview is not None:
            head["preview"] = preview
        return f'{json.dumps(head, separators=(",", ":"))[:-1]},"events":[{",".join(texts)}]}}'

    async def _run(self) -> None:
        seq = 0
        while True:
            self._news.clear()
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._send(self._item(seq))
            except Exception as e:
                if not self._told:
                    self._told = True
                    log.warning("%sprogress is not told: %r", self._label, e)
            seq += 1
            await asyncio.sleep(max(0.0, APART - (time.monotonic() - began)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ALIVE - APART):
                    await self._news.wait()


def open_channel() -> modal.Queue:
    """The app's channel; it is made when it is first used."""
    return modal.Queue.from_name(f"{settings.from_env().app}-progress", create_if_missing=True)


def to_queue(queue: Any, prompt_id: str) -> Send:
    """Sends items to the partition of a prompt in a modal.Queue; it is cleared an hour after the last."""

    async def send(item: str) -> None:
        await queue.put.aio(item, timeout=PATIENCE, partition=prompt_id, partition_ttl=3600)

    return send
