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
from .errors import BackendLost, Stalled, StartFailed
from .files import Sweeper, write_inputs
from .listener import Listener
from .options import Options
from .payload import Blobs
from .progress import Progress
from .prompt import Prompt, Refused, unknown_models
from .volume import OutOfDate, Shelf

log = logging.getLogger("comfyd")

ANSWER = 10.0  # seconds for ComfyUI to answer a question
HEALTH = 2.0  # seconds for a ComfyUI whose prompt has ended to say that its queue is empty

T = TypeVar("T")


class Job:
    """Runs one prompt in a ComfyUI that is up.

    `give_up` ends the container: for a ComfyUI that does not stop its prompt, or does not come up again. `shelf` is the
    models' Volume: the backend's catalogue may know a model that is newer than this container.
    """

    def __init__(
        self,
        comfy: ComfyUI,
        sweeper: Sweeper,
        options: Options,
        give_up: Callable[[], Awaitable[None]],
        shelf: Shelf,
    ):
        self._comfy = comfy
        self._sweeper = sweeper
        self._options = options
        self._end_container = give_up
        self._given_up = False
        self._shelf = shelf

    async def run(
        self, graph: dict[str, Any], inputs: list[list], progress: Progress | None
    ) -> tuple[dict[str, Any], Blobs]:
        """What the manifest says of the prompt, and the bytes behind it. UserError for inputs; InfraError.

        When it returns or raises, also because it was cancelled, nothing of the prompt runs on, its files are gone, and
        ComfyUI is fit for another prompt, or ended, or on its way up again.
        """
        try:
            write_inputs(self._comfy.path("input"), inputs)
            manifest, blobs = await self._try(graph, progress)
            names = _unknown(manifest)
            if not names or not await self._shelf.has(names):
                return manifest, blobs
            new_process = await self._show_models()
            manifest, blobs = await self._try(graph, progress)
            if _unknown(manifest) and not new_process:
                # ComfyUI keeps its lists of files while the times of their folders stay (folder_paths.py, 0.3.75).
                await self._restart(reload=False)
                manifest, blobs = await self._try(graph, progress)
            return manifest, blobs
        finally:
            self._sweeper.sweep()

    async def _show_models(self) -> bool:
        """Lets ComfyUI see models that came after this container; whether it is a new process that will see them."""
        try:
            await self._shelf.reload()
            return False
        except OutOfDate as e:
            log.info("ComfyUI is started anew, for models that it cannot see while it has files open: %s", e)
            await self._restart(reload=True)
            return True

    async def _restart(self, reload: bool) -> None:
        """A new ComfyUI process; with reload, the Volume is brought up to date while no process has files open."""
        await undisturbed(asyncio.to_thread(self._comfy.kill))
        _end_if_cancelled()
        if reload:
            try:
                await self._shelf.reload()
            except OutOfDate as e:
                log.warning("the Volume is seen as it was when this container started: %s", e)
        self._comfy.spawn()

    async def _try(self, graph: dict[str, Any], progress: Progress | None) -> tuple[dict[str, Any], Blobs]:
        """The prompt, handed to the ComfyUI of now once, by connections of its own."""
        options = self._options
        _end_if_cancelled()
        try:
            await self._comfy.until_ready()
        except StartFailed:
            await undisturbed(self._give_up())
            raise
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

    async def _results(
        self, prompt: Prompt, client: Client, listener: Listener, graph: dict[str, Any]
    ) -> tuple[dict[str, Any], Blobs]:
        blobs = Blobs()
        prompt_id, png = self._options.prompt_id, self._options.extra_pnginfo
        # client_id must be there: without one, a prompt that is wholly cached has no outputs (seen on 0.3.75).
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": prompt_id}
        body["extra_data"] = {} if png is None else {"extra_pnginfo": png}
        try:
            entry = await prompt.run(body)
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

    async def _take_back(self, prompt: Prompt) -> None:
        if await prompt.stop():
            return
        log.warning("ComfyUI does not stop its prompt; the container ends")
        self._comfy.defect = "it does not stop its prompt"
        await asyncio.to_thread(self._comfy.kill)
        await self._give_up()

    async def _give_up(self) -> None:
        self._given_up = True
        await self._end_container()

    async def _settle(self, client: Client, broken: str) -> None:
        """Leaves nothing of the prompt in ComfyUI; where that cannot be, starts it anew for the next one."""
        if self._given_up:
            return  # a process that SIGKILL did not end may still hold the GPU
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


def _unknown(manifest: dict[str, Any]) -> set[str]:
    return unknown_models(manifest["answer"]) if manifest["end"] == "refused" else set()


def _end_if_cancelled() -> None:
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError("cancelled while something was done that had to be")


async def undisturbed(work: Coroutine[Any, Any, T]) -> T:
    """Waits for the end of work that must be done also when this task is cancelled, and cancelled again.

    That does not raise CancelledError; whoever goes on with more than cleaning up asks _end_if_cancelled.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    return task.result()
