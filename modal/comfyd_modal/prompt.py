"""One prompt in ComfyUI: handed over once, followed to its end, or taken back."""

import asyncio
import contextlib
import time
from typing import Any

import aiohttp

from .client import Answer, Client
from .comfyui import ComfyUI
from .errors import BackendLost, Stalled
from .listener import Listener
from .models import WEIGHTS

POST = 60.0  # seconds for POST /prompt: ComfyUI validates first
FIRST = 0.05  # seconds before the first look at the history, doubling up to ...
MOST = 2.0  # ... this, or where there is no socket
BLIND = 0.5  # ... this
QUIET = 5.0  # seconds without a word before the queue is looked at
ABSENT = 0.5  # seconds between the two looks that make a prompt lost
STOP = 15.0  # seconds for a prompt that is taken back; the contract's limit


class Refused(Exception):
    """ComfyUI does not take the prompt, or takes only a part of its outputs and so none."""

    def __init__(self, answer: Answer):
        super().__init__(f"status {answer.status}")
        self.answer = answer


def unknown_models(answer: Any) -> set[str]:
    """The names of model files that ComfyUI does not have (execution.py: value_not_in_list), if a refusal is for nothing
    else: what has other faults would be refused with the models, too."""
    names: set[str] = set()
    nodes = answer.get("node_errors") if isinstance(answer, dict) else None
    for node in nodes.values() if isinstance(nodes, dict) else ():
        for error in node.get("errors") or ():
            value = (error.get("extra_info") or {}).get("received_value")
            if error.get("type") != "value_not_in_list" or not isinstance(value, str):
                return set()
            if not value.lower().endswith(WEIGHTS):
                return set()
            names.add(value)
    return names


class Prompt:
    """A prompt of one ComfyUI. Errors of `run`: Refused, BackendLost, Stalled.

    A cancelled `run` leaves the prompt where it is: `stop` takes it back.
    """

    def __init__(self, comfy: ComfyUI, client: Client, listener: Listener, prompt_id: str, stall_timeout: float):
        self._comfy = comfy
        self._client = client
        self._listener = listener
        self._id = prompt_id
        self._stall = stall_timeout
        self._post: asyncio.Task[Answer] | None = None
        self._absent = False

    async def run(self, body: dict[str, Any]) -> dict[str, Any]:
        """Posts `body` and returns the prompt's history entry."""
        # In a task of its own: a post that is cut off may still be queued after a look for it, so stop waits for its
        # end.
        self._post = asyncio.create_task(self._client.post_prompt(body, POST), name="post")
        try:
            answer = await asyncio.shield(self._post)
        except (aiohttp.ClientError, TimeoutError) as e:
            answer = None
            if not self._comfy.alive():
                raise self._died() from None
            if not await self._known():
                raise BackendLost(
                    f"ComfyUI did not answer when the prompt was handed over, and does not have it: {e!r}",
                    self._comfy.tail(),
                )
        if answer is not None and not answer.whole:
            # With 200 a part of it is queued, and with 500 it may be, where the answer could not be made afterwards.
            if answer.status != 400 and not await self.stop():
                raise Stalled("ComfyUI took a part of the prompt, and that could not be stopped", self._comfy.tail())
            raise Refused(answer)
        self._listener.sign = time.monotonic()
        return await self._follow()

    async def stop(self) -> bool:
        """Takes the prompt out of the queue or interrupts it; True once nothing of it runs, False after STOP s."""
        if self._post is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP):
                await asyncio.gather(asyncio.shield(self._post), return_exceptions=True)
                await self._take_back()
                return True
        return False

    async def _take_back(self) -> None:
        absent = False
        interrupted = 0.0
        while self._comfy.alive():
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._client.dequeue(self._id)
                if await self._client.history(self._id) is not None:
                    return
                running, waiting = await self._client.queue()
                if self._id in running:
                    # Only when it runs: old versions pay no heed to prompt_id. Once more when a node has missed it.
                    if time.monotonic() - interrupted > 2:
                        interrupted = time.monotonic()
                        await self._client.interrupt(self._id)
                elif self._id not in waiting:
                    if absent:
                        return
                    absent = True
            await asyncio.sleep(0.1)

    async def _follow(self) -> dict[str, Any]:
        wait = FIRST
        while True:
            self._listener.news.clear()
            # The end may have been told before it was cleared.
            if not self._listener.over:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._listener.news.wait()
                        wait = FIRST
            entry = await self._look()
            if entry is not None:
                return entry
            self._check()
            if self._listener.over:
                await asyncio.sleep(FIRST)
            wait = ABSENT if self._absent else min(2 * wait, MOST if self._listener.linked else BLIND)

    async def _look(self) -> dict[str, Any] | None:
        """The history entry; BackendLost when ComfyUI has ended or has the prompt no more."""
        try:
            entry = await self._client.history(self._id)
            if entry is None and not await self._still_there():
                entry = await self._client.history(self._id)  # it may have ended between the two looks
                if entry is None and self._absent:
                    raise BackendLost("ComfyUI has forgotten the prompt", self._comfy.tail())
                self._absent = entry is None
            return entry
        except (aiohttp.ClientError, TimeoutError):
            if not self._comfy.alive():
                raise self._died() from None
            return None  # busy, perhaps; the limit for signs of life decides

    async def _still_there(self) -> bool:
        if time.monotonic() - self._listener.sign < QUIET and not self._absent and not self._listener.gap:
            return True
        running, waiting = await self._client.queue()
        if self._id not in running and self._id not in waiting:
            return False
        self._absent = False
        return True

    async def _known(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            running, waiting = await self._client.queue()
            return self._id in running or self._id in waiting or await self._client.history(self._id) is not None
        return False

    def _check(self) -> None:
        process = self._comfy.process
        if not self._comfy.alive():
            raise self._died()
        if process is not None and process.worker_died():
            raise BackendLost("ComfyUI's execution thread died while it ran the prompt", self._comfy.tail())
        quiet = time.monotonic() - self._listener.sign
        if quiet > self._stall:
            raise Stalled(f"the prompt showed no sign of life for {quiet:.0f} s", self._comfy.tail())

    def _died(self) -> BackendLost:
        process = self._comfy.process
        end = process.end() if process is not None else ""
        return BackendLost(f"ComfyUI {end or 'ended'} while it ran the prompt", self._comfy.tail())
