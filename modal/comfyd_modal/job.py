"""One prompt from its inputs to its results, and what it leaves behind: nothing."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import aiohttp

from . import collect
from .client import Client
from .comfyui import ComfyUI
from .errors import BackendLost, Stalled
from .files import Sweeper, write_inputs
from .listener import Listener
from .options import Options
from .payload import Blobs
from .progress import Progress
from .prompt import Prompt, Refused, names_model
from .volume import OutOfDate

log = logging.getLogger("comfyd")

ANSWER = 10.0  # seconds for ComfyUI to answer a question
HEALTH = 2.0  # seconds for a ComfyUI whose prompt has ended to say that its queue is empty

T = TypeVar("T")


class Job:
    """Runs one prompt in a ComfyUI that is up.

    `give_up` ends the container: for a ComfyUI that does not stop its prompt, and for one that cannot see new models.
    `reload` shows it models that came after the container's start; volume.OutOfDate when it cannot.
    """

    def __init__(
        self,
        comfy: ComfyUI,
        sweeper: Sweeper,
        options: Options,
        give_up: Callable[[], Awaitable[None]],
        reload: Callable[[], Awaitable[None]],
    ):
        self._comfy = comfy
        self._sweeper = sweeper
        self._options = options
        self._give_up = give_up
        self._reload = reload

    async def run(
        self, graph: dict[str, Any], inputs: list[list], progress: Progress | None
    ) -> tuple[dict[str, Any], Blobs]:
        """What the manifest says of the prompt, and the bytes behind it. UserError for inputs; BackendLost, Stalled.

        When it returns or raises, also because it was cancelled, nothing of the prompt runs on, its files are gone, and
        ComfyUI is fit for another prompt, or ended, or on its way up again.
        """
        options = self._options
        try:
            write_inputs(self._comfy.path("input"), inputs)
            async with aiohttp.ClientSession() as session:
                client = Client(session, self._comfy.url, min(ANSWER, options.stall_timeout))
                async with Listener(session, self._comfy.url, options.prompt_id, options.sockets, progress) as listener:
                    prompt = Prompt(self._comfy, client, listener, options.prompt_id, options.stall_timeout)
                    broken = ""
                    try:
                        return await self._results(prompt, client, listener, graph)
                    except (BackendLost, Stalled) as e:
                        broken = str(e).splitlines()[0]
                        raise
                    except BaseException:  # cancelled, or a fault of ours: either way it must not run on
                        await undisturbed(self._take_back(prompt))
                        raise
                    finally:
                        await undisturbed(self._settle(client, broken))
        finally:
            self._sweeper.sweep()

    async def _results(
        self, prompt: Prompt, client: Client, listener: Listener, graph: dict[str, Any]
    ) -> tuple[dict[str, Any], Blobs]:
        blobs = Blobs()
        prompt_id, png = self._options.prompt_id, self._options.extra_pnginfo
        # client_id must be there: without one, a prompt that is wholly cached has no outputs (seen on 0.3.75).
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": prompt_id}
        body["extra_data"] = {} if png is None else {"extra_pnginfo": png}
        try:
            entry = await self._run(prompt, body)
        except Refused as e:
            return {"end": "refused", "status": e.answer.status, "answer": e.answer.body}, blobs
        history = {"outputs": entry.get("outputs") or {}, "status": entry.get("status") or {}}
        started, ended = collect.times(history)
        if collect.broken_gpu(history):
            self._comfy.defect = "a node ended with a CUDA error, after which no other works"
        return {
            "end": "history",
            "started_ms": started,
            "ended_ms": ended,
            "history": history,
            "errors": listener.errors,
            "files": await collect.files(client, history["outputs"], blobs),
            "frames": collect.frames(listener.frames, blobs),
            "frames_gap": listener.gap,
        }, blobs

    async def _run(self, prompt: Prompt, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await prompt.run(body)
        except Refused as e:
            if not names_model(e.answer.body):
                raise
        # The backend's catalogue may know a model that is newer than this container.
        try:
            await self._reload()
        except OutOfDate as e:
            await undisturbed(self._give_up())
            raise BackendLost(
                "the workflow names a model that this container cannot see; it ends, and another one will", str(e)
            ) from e
        return await prompt.run(body)

    async def _take_back(self, prompt: Prompt) -> None:
        if await prompt.stop():
            return
        log.warning("ComfyUI does not stop its prompt; the container ends")
        await asyncio.to_thread(self._comfy.kill)
        await self._give_up()

    async def _settle(self, client: Client, broken: str) -> None:
        """Leaves nothing of the prompt in ComfyUI; where that cannot be, starts it anew for the next one."""
        if not broken:
            if not self._comfy.alive():
                return  # the next prompt starts it, should there be one in this container
            broken = await self._unwell(client) or self._comfy.unfit()
        if broken:
            log.warning("ComfyUI is started anew: %s", broken)
            await asyncio.to_thread(self._comfy.kill)
            self._comfy.spawn()

    async def _unwell(self, client: Client) -> str:
        try:
            async with asyncio.timeout(HEALTH):
                await client.forget(self._options.prompt_id)
                running, waiting = await client.queue()
        except (aiohttp.ClientError, TimeoutError) as e:
            return f"it does not answer: {e!r}"
        return "a prompt that has ended is in its queue still" if running or waiting else ""


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Waits for the end of work that must be done also when this task is cancelled, and cancelled again."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()
