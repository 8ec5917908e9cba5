"""Following one prompt of a ComfyUI that behaves as a real one rarely does."""

import asyncio
import struct
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from support_server import ID, Server, following, until

from comfyd_modal import listener, prompt
from comfyd_modal.errors import BackendLost, Stalled
from comfyd_modal.listener import Frame
from comfyd_modal.prompt import Refused

BODY = {"prompt": {}, "prompt_id": ID, "client_id": ID}


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A Server; the long waits are short."""
    for name, seconds in (
        ("POST", 60.0),
        ("QUIET", 0.2),
        ("ABSENT", 0.05),
        ("STOP", 20.0),
        ("MOST", 0.2),
        ("BLIND", 0.1),
    ):
        monkeypatch.setattr(prompt, name, seconds)
    async with Server().up() as server:
        yield server


async def test_the_end_is_seen_at_once_by_socket(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST", "MOST"):  # between two looks at the history
        monkeypatch.setattr(prompt, name, 60.0)
    async with following(server) as (p, _):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: server.posts == 1)
        await asyncio.sleep(0.5)  # it waits for the first look by now
        server.end()
        began = time.monotonic()
        await server.say("executing", node=None)
        assert (await task)["status"]["status_str"] == "success"
        assert time.monotonic() - began < 10


async def test_the_end_is_seen_without_a_socket_too(server: Server) -> None:
    async with following(server) as (p, heard):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: server.posts == 1)
        await server.sockets[-1].close()
        server.end()
        assert (await task)["outputs"] == {}
        assert heard.gap, "frames may be missing"


async def test_a_socket_that_breaks_is_opened_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "AGAIN", 0.02)
    async with following(server, ("9",)) as (p, heard):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: server.posts == 1)
        await server.sockets[-1].close()
        await until(lambda: server.connected == 2)
        await server.say("executing", node="9")
        await server.sockets[-1].send_bytes(struct.pack(">II", 1, 2) + b"png")
        await until(lambda: bool(heard.frames))
        server.end()
        await server.say("executing", node=None)
        await task
        assert heard.gap and heard.frames == [Frame("9", ".png", b"png")]


async def test_a_prompt_that_is_forgotten_is_lost(server: Server) -> None:
    async with following(server) as (p, _):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: server.posts == 1)
        server.running.clear()
        with pytest.raises(BackendLost, match="forgotten[^$]*the log"):
            await task
        assert server.posts == 1, "it is never posted twice"


async def test_a_prompt_without_a_sign_of_life_is_stalled(server: Server) -> None:
    async with following(server, stall=0.5) as (p, _):
        with pytest.raises(Stalled, match=r"no sign of life for \d+ s"):
            await p.run(BODY)


async def test_progress_is_a_sign_of_life(server: Server) -> None:
    async with following(server, stall=4) as (p, _):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: server.posts == 1)
        for n in range(12):  # for longer than that in all
            await server.say("progress", node="1", value=n, max=12)
            await asyncio.sleep(0.4)
        server.end()
        assert await task


async def test_a_post_without_an_answer_that_arrived_all_the_same(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt, "POST", 0.5)

    async def post() -> web.Response:
        await server.take()
        await asyncio.sleep(60)
        raise AssertionError

    server.post = post
    async with following(server) as (p, _):
        task = asyncio.create_task(p.run(BODY))
        await asyncio.sleep(0.8)
        server.end()
        assert await task
        assert server.posts == 1


async def test_a_post_without_an_answer_that_did_not_arrive(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "POST", 0.5)

    async def post() -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    server.post = post
    async with following(server) as (p, _):
        with pytest.raises(BackendLost, match="does not have it"):
            await p.run(BODY)


async def test_a_comfyui_that_ends_during_the_post(server: Server) -> None:
    async def post() -> web.Response:
        server.dead = True
        return web.Response()

    server.post = post
    async with following(server) as (p, _):
        with pytest.raises(BackendLost, match="ended while it ran"):
            await p.run(BODY)


async def test_a_prompt_that_is_refused_with_500_does_not_run_on(server: Server) -> None:
    async def post() -> web.Response:
        server.waiting.append(ID)  # it is queued before the answer is made
        return web.Response(status=500, text="500: Internal  Server\nError")

    server.post = post
    async with following(server) as (p, _):
        with pytest.raises(Refused) as e:
            await p.run(BODY)
        assert e.value.answer.body["error"]["message"] == "500: Internal Server Error"
        assert server.waiting == []


async def test_a_prompt_that_waits_is_taken_out_of_the_queue(server: Server) -> None:
    async def post() -> web.Response:
        server.running.append("another")
        server.waiting.append(ID)
        return web.json_response({"prompt_id": ID, "node_errors": {}})

    server.post = post
    async with following(server) as (p, _):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: server.posts == 1)
        await asyncio.sleep(0.05)
        task.cancel()
        assert await p.stop()
        assert server.waiting == [] and server.running == ["another"] and server.interrupts == []


async def test_a_prompt_that_is_being_handed_over_is_awaited_and_taken_back(server: Server) -> None:
    async def post() -> web.Response:
        await asyncio.sleep(0.3)  # ComfyUI validates; nothing is in its queue yet
        server.waiting.append(ID)
        return web.json_response({"prompt_id": ID, "node_errors": {}})

    server.post = post
    async with following(server) as (p, _):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: server.posts == 1)
        task.cancel()
        assert await p.stop()
        await asyncio.sleep(0.4)
        assert server.waiting == [], "it is not queued afterwards"


async def test_a_prompt_that_runs_is_interrupted_by_its_id(server: Server) -> None:
    async with following(server) as (p, _):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: bool(server.running))
        task.cancel()
        stopping = asyncio.create_task(p.stop())
        await until(lambda: ID in server.interrupts)
        await asyncio.sleep(0.2)
        assert not stopping.done(), "a node runs on until it looks up"
        server.end("error")
        assert await stopping


async def test_a_prompt_that_does_not_stop_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "STOP", 1.0)
    async with following(server) as (p, _):
        task = asyncio.create_task(p.run(BODY))
        await until(lambda: bool(server.running))
        task.cancel()
        began = time.monotonic()
        assert not await p.stop()
        assert 0.9 < time.monotonic() - began < 30
