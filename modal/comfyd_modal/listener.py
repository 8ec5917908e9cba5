"""The WebSocket of one prompt."""

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import aiohttp

from .client import loads
from .progress import Progress

# Binary messages begin with one of these (protocol.py, BinaryEventTypes).
IMAGE = 1  # then the format: 1 JPEG, 2 PNG; then the image
IMAGE_WITH_METADATA = 4  # then the length of a JSON object, that object, and the image

# With this, images say which node they come from.
HELLO = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})

OPENING = 10.0  # seconds for the socket to open and say its first word
AGAIN = 0.25  # seconds before it is opened once more


@dataclass(frozen=True)
class Frame:
    """An image that exists only on the socket."""

    node: str
    ext: str  # ".png" or ".jpg"
    data: bytes


class Listener:
    """Listens to what ComfyUI says about one prompt, whose ID is the client's ID too.

    ComfyUI keeps one socket for each client ID, and when an old one closes after the new one has opened, it forgets the
    new one for ever: so a socket is closed before the next one opens.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        prompt_id: str,
        sockets: Collection[str],
        progress: Progress | None,
    ):
        self.frames: list[Frame] = []
        self.errors: list[dict[str, Any]] = []  # data of execution_error messages
        self.gap = False  # the socket broke, and what was said then is lost
        self.over = False  # ComfyUI has said that the history is written
        self.linked = False
        self.sign = time.monotonic()  # when the prompt last showed that it lives
        self.news = asyncio.Event()  # the end may have come, or the socket has gone
        self._session = session
        self._address = f"{url}/ws?clientId={prompt_id}"
        self._prompt_id = prompt_id
        self._sockets = frozenset(sockets)
        self._progress = progress
        self._executing = ""
        self._opened = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Listener":
        self._task = asyncio.create_task(self._run(), name="listener")
        # Without a socket at the start, the frames of a short prompt would be missed.
        try:
            async with asyncio.timeout(OPENING):
                await self._opened.wait()
        except TimeoutError:
            self.gap = True
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=2)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                await self._session_once()
            self.gap = self.gap or self._opened.is_set()
            self.linked = False
            self.news.set()
            await asyncio.sleep(AGAIN)

    async def _session_once(self) -> None:
        # No limit for a message: progress_state repeats every node, and frames are whole images.
        async with self._session.ws_connect(
            self._address, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=1)
        ) as ws:
            await ws.send_str(HELLO)
            async for message in ws:
                self.linked = True
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._text(message.data)
                elif message.type == aiohttp.WSMsgType.BINARY:
                    self._binary(message.data)

    def _text(self, raw: str) -> None:
        try:
            message = loads(raw)
            kind, data = message["type"], message["data"]
        except (ValueError, KeyError, TypeError):
            return
        if kind in ("status", "feature_flags"):
            if kind == "feature_flags":  # it has heard HELLO
                self._opened.set()
            return
        if not isinstance(data, dict) or data.get("prompt_id", self._prompt_id) != self._prompt_id:
            return  # another's: progress of prompts without a client ID goes to everybody
        if "prompt_id" not in data and kind != "executing":
            return  # a custom node's own message
        self.sign = time.monotonic()
        if kind == "executing":
            self._executing = data.get("node") or ""
            # The last message of a prompt; it comes when the history is written, which execution_success does not wait
            # for.
            self.over = self.over or data.get("node") is None
        elif kind == "execution_error":
            self.errors.append(data)
        if self._progress is not None:
            self._progress.running = True
            self._progress.event(kind, data)
        if self.over or kind in ("execution_success", "execution_error", "execution_interrupted"):
            self.news.set()

    def _binary(self, raw: bytes) -> None:
        if len(raw) < 8:
            return
        event, second = struct.unpack_from(">II", raw)
        named = event == IMAGE_WITH_METADATA
        if event == IMAGE:
            node, mime, image = self._executing, "image/png" if second == 2 else "image/jpeg", raw[8:]
        elif named and second <= len(raw) - 8:
            try:
                meta = loads(raw[8 : 8 + second])
            except ValueError:
                return
            if meta.get("prompt_id") != self._prompt_id:
                return
            node, mime, image = str(meta.get("node_id", "")), str(meta.get("image_type", "")), raw[8 + second :]
        else:
            return
        self.sign = time.monotonic()
        if node in self._sockets and image:
            self.frames.append(Frame(node, ".jpg" if "jpeg" in mime else ".png", image))
        elif self._progress is not None and named:  # one that names no prompt may be another's
            self._progress.preview(node, mime, image)
