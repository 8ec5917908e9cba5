"""The progress channel: what it carries, and that its loss harms nobody."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable

import pytest
from support_graphs import Channel

from comfyd_modal import progress
from comfyd_modal.payload import Container
from comfyd_modal.progress import Progress, to_queue

WHO = Container("ta-1", "NVIDIA L40S", "0.15.1", 1234)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits a twentieth of the real ones."""
    for name in ("APART", "ALIVE", "PATIENCE"):
        monkeypatch.setattr(progress, name, getattr(progress, name) / 20)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for it, 60 s at most: the machine may be busy."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def collect(body: Callable[[Progress, list[dict]], Awaitable[None]], previews: bool = True) -> list[dict]:
    """The items of a progress that `body` uses."""
    items: list[dict] = []

    async def send(item: str) -> None:
        items.append(json.loads(item))

    async def main() -> None:
        async with Progress(send, WHO, previews=previews) as p:
            await body(p, items)

    asyncio.run(main())
    return items


def test_the_first_item_comes_at_once_and_says_who_runs() -> None:
    async def body(p: Progress, items: list[dict]) -> None:
        await until(lambda: len(items) == 1)

    (first,) = collect(body)
    assert first.pop("container") == {"id": "ta-1", "gpu": "NVIDIA L40S", "version": "0.15.1", "cold_start_ms": 1234}
    assert abs(first.pop("t") - time.time() * 1000) < 60_000
    assert first == {"seq": 0, "running": False, "events": []}


def test_news_is_gathered_into_few_items() -> None:
    async def body(p: Progress, items: list[dict]) -> None:
        await until(lambda: len(items) == 1)
        p.running = True
        p.event("execution_start", {"prompt_id": "x"})
        for value in range(100):
            p.event("progress", {"node": "3", "value": value, "max": 100})
            p.event("progress_state", {"nodes": {"3": {"value": value}}})
        p.event("progress", {"node": "4", "value": 1, "max": float("nan")})
        p.event("executing", {"node": "3"})
        p.event("executing", {"node": "4"})
        p.event("executed", {"node": "4", "output": {"images": ["large"]}})
        p.preview("3", "image/jpeg", b"old")
        p.preview("4", "image/jpeg", b"new")
        p.preview("4", "image/jpeg", b"x" * (progress.MOST_PREVIEW + 1))
        await until(lambda: len(items) == 2)

    item = collect(body)[1]
    assert item["running"] and item["seq"] == 1 and "container" not in item
    assert item["preview"] == {"node": "4", "type": "image/jpeg", "data": "bmV3"}
    assert [(e["type"], e["data"]) for e in item["events"]] == [
        ("execution_start", {"prompt_id": "x"}),
        ("progress", {"node": "3", "value": 99, "max": 100}),
        ("progress_state", {"nodes": {"3": {"value": 99}}}),
        ("progress", {"node": "4", "value": 1, "max": None}),
        ("executing", {"node": "3"}),
        ("executing", {"node": "4"}),
        ("executed", {"node": "4"}),
    ]


def test_previews_that_nobody_wants_are_not_sent() -> None:
    async def body(p: Progress, items: list[dict]) -> None:
        await until(lambda: len(items) == 1)
        p.preview("3", "image/jpeg", b"picture")
        p.event("executing", {"node": "4"})
        await until(lambda: len(items) == 2)

    assert "preview" not in collect(body, previews=False)[1]


def test_items_keep_their_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "ALIVE", 600)  # it is news that makes them
    took: list[float] = []

    async def body(p: Progress, items: list[dict]) -> None:
        began = time.monotonic()
        async with asyncio.timeout(60):
            while len(items) < 12:
                p.event("executing", {"node": "1"})
                await asyncio.sleep(0.001)
        took.append(time.monotonic() - began)

    collect(body)
    assert took[0] > 10 * progress.APART


def test_silence_is_broken() -> None:
    async def body(p: Progress, items: list[dict]) -> None:
        await until(lambda: len(items) >= 3)

    assert collect(body)[2]["events"] == []


def test_an_item_stays_below_modals_limit() -> None:
    async def body(p: Progress, items: list[dict]) -> None:
        await until(lambda: len(items) == 1)
        for n in range(20):
            p.event("custom", {"prompt_id": "x", "n": n, "text": "y" * 100_000})
        p.preview("3", "image/png", b"z" * progress.MOST_PREVIEW)
        await until(lambda: len(items) == 2)

    item = collect(body)[1]
    assert len(json.dumps(item)) < 1 << 20
    assert [e["data"]["n"] for e in item["events"]] == [14, 15, 16, 17, 18, 19], "the newest"


@pytest.mark.parametrize("hang", [True, False])
def test_a_queue_that_hangs_or_raises_is_told_once_and_tried_again(
    hang: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    async def pause() -> None:
        tries.append(1)
        if len(tries) <= 3:
            if hang:
                await asyncio.sleep(60)
            raise ConnectionError("no way")

    channel = Channel(pause)

    async def main() -> None:
        async with Progress(to_queue(channel, "prompt-1"), WHO, "job_id=7 ") as p:
            await until(lambda: len(tries) >= 3)
            p.event("executing", {"node": "1"})
            await until(lambda: bool(channel.items))

    with caplog.at_level(logging.WARNING, "comfyd"):
        asyncio.run(main())
    assert [r.message for r in caplog.records if "progress is not told" in r.message] == [caplog.records[0].message]
    assert caplog.records[0].message.startswith("job_id=7 ")
    assert channel.items["prompt-1"][0]["seq"] == 3


def test_the_end_does_not_wait_for_a_queue_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 60)

    async def send(item: str) -> None:
        await asyncio.sleep(60)

    async def main() -> float:
        async with Progress(send, WHO) as p:
            await asyncio.sleep(0.02)
            began = time.monotonic()
        assert p._task is not None and p._task.done(), "it is not left behind either"
        return time.monotonic() - began

    assert asyncio.run(main()) < 10
