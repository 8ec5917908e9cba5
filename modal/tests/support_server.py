"""A ComfyUI by hand, for what a real one rarely does."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from comfyd_modal.client import Client
from comfyd_modal.listener import Listener
from comfyd_modal.progress import Progress
from comfyd_modal.prompt import Prompt

ID = "6d0b7c0c-0b5e-4f0e-9c53-3a1f4d2f5c11"


class Server:
    """Tests say what is in its queue and history, and what it sends."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.waiting: list[str] = []
        self.history: dict[str, Any] = {}
        self.posts = 0
        self.interrupts: list[str] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.connected = 0
        self.post: Callable[[], Awaitable[web.Response]] = self.take
        self.dead = False
        self.url = ""

    async def take(self) -> web.Response:
        """Queues the prompt, as ComfyUI does."""
        self.running.append(ID)
        return web.json_response({"prompt_id": ID, "node_errors": {}})

    def end(self, status: str = "success") -> None:
        """The prompt ends."""
        self.running.remove(ID)
        self.history[ID] = {"outputs": {}, "status": {"status_str": status, "messages": []}}

    async def say(self, kind: str, **data: Any) -> None:
        """Sends a text message about the prompt."""
        await self.sockets[-1].send_str(json.dumps({"type": kind, "data": {"prompt_id": ID} | data}))

    # What Prompt asks of the process.
    process = None

    def alive(self) -> bool:
        return not self.dead

    def tail(self) -> str:
        return "the log"

    async def _post(self, request: web.Request) -> web.Response:
        self.posts += 1
        answer = await self.post()
        if self.dead and request.transport is not None:
            request.transport.abort()
        return answer

    async def _queue(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            for name in (await request.json())["delete"]:
                if name in self.waiting:
                    self.waiting.remove(name)
            return web.Response()
        rows = {"queue_running": self.running, "queue_pending": self.waiting}
        return web.json_response({k: [[0, name, {}, {}, []] for name in v] for k, v in rows.items()})

    async def _history(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        return web.json_response({name: self.history[name]} if name in self.history else {})

    async def _interrupt(self, request: web.Request) -> web.Response:
        self.interrupts.append((await request.json())["prompt_id"])
        return web.Response()

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        assert request.query["clientId"] == ID
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.sockets.append(ws)
        self.connected += 1
        async for message in ws:
            assert json.loads(message.data)["data"] == {"supports_preview_metadata": True}
            await ws.send_str('{"type": "feature_flags", "data": {}}')
        return ws

    @asynccontextmanager
    async def up(self) -> AsyncIterator["Server"]:
        """Serves while it is entered."""
        app = web.Application()
        app.router.add_post("/prompt", self._post)
        app.router.add_route("*", "/queue", self._queue)
        app.router.add_get("/history/{id}", self._history)
        app.router.add_post("/interrupt", self._interrupt)
        app.router.add_get("/ws", self._ws)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


@asynccontextmanager
async def following(
    server: Server, sockets: tuple[str, ...] = (), stall: float = 60.0, progress: Progress | None = None
) -> AsyncIterator[tuple[Prompt, Listener]]:
    """A prompt of that server, and its listener."""
    async with aiohttp.ClientSession() as session:
        client = Client(session, server.url, 60.0)
        async with Listener(session, server.url, ID, sockets, progress) as listener:
            yield Prompt(server, client, listener, ID, stall), listener  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for it, 60 s at most: the machine may be busy."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)
