"""What the class `ComfyUI` of the Modal app does, without Modal's decorators.

`run` is a coroutine and the hooks are not. Modal cancels an input by SIGUSR1: in a sync method that raises
InputCancellation at whatever instruction the main thread is, also in the midst of a clean-up; in an async one it
cancels the task (modal 1.6.4, _container_entrypoint.py and user_code_event_loop.py), which arrives at an await and can
be put off while ComfyUI is interrupted. Plain hooks, because `.local()` calls hooks without awaiting them (cls.py).
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import modal
import modal.experimental

from . import ledger, models, settings, volume
from .comfyui import ComfyUI
from .errors import InfraError, StartFailed, UserError
from .files import Sweeper
from .job import Job, undisturbed
from .options import Options, read_options, read_workflow
from .payload import Blobs, Container, pack
from .place import Place, from_env
from .progress import Progress, open_channel, to_queue

log = logging.getLogger("comfyd")

ENDING = 6.0  # seconds for Modal to take note that the container ends
STARTS = 3  # containers that may end in the midst of one call; Modal itself would go on for ever


class Runner:
    """One container's ComfyUI and the prompts in it, one at a time.

    What is not given is the app's own, from the environment: `book` is the ledger (a modal.Dict), `channel` the queue
    of progress (a modal.Queue); `end_container` asks Modal for no more inputs; `shelf` is the models' Volume.
    """

    def __init__(
        self,
        place: Place | None = None,
        *,
        book: Any = None,
        channel: Any = None,
        gpu_snapshot: bool | None = None,
        end_container: Callable[[], Awaitable[None]] = modal.experimental.stop_fetching_inputs.aio,
        shelf: volume.Shelf | None = None,
    ):
        self._comfy = ComfyUI(place or from_env())
        self._book = book or ledger.open_book()
        self._channel = channel or open_channel()
        self._gpu_snapshot = settings.from_env().gpu_snapshot if gpu_snapshot is None else gpu_snapshot
        self._end = end_container
        self._shelf = shelf or volume.Shelf()
        self._sweeper: Sweeper | None = None
        self._start_failed: StartFailed | None = None
        self._began = (time.monotonic(), task_id())
        self._cold_start_ms = 0

    def prepare(self) -> None:
        """The hook before Modal's memory snapshot (snap=True): no GPU then, unless GPU snapshots are on.

        With them ComfyUI starts here, else modules are only imported. A failure is start's to meet again.
        """
        self._began = (time.monotonic(), task_id())
        if not self._gpu_snapshot:
            self._comfy.preload()
            return
        try:
            self._comfy.spawn()
            self._comfy.wait_ready()
        except StartFailed as e:
            log.error("ComfyUI could not be started before the snapshot: %s", e)

    def start(self) -> None:
        """The hook after the snapshot (snap=False): returns when ComfyUI is up, or has failed to start.

        The failure is raised by the next run or warm. A hook that raises would have Modal start containers for the same
        input again and again (modal.com/docs/guide/retries), each with a GPU; from run it reaches the caller.
        """
        try:
            self._start()
        except StartFailed as e:
            log.error("%s", e)
            self._start_failed = e

    def _start(self) -> None:
        moment, where = self._began
        if where != task_id():  # restored: what was done elsewhere has cost this container nothing
            moment = time.monotonic()
        for name in models.missing(self._comfy.place.models):
            log.warning("model file missing: %s", name)
        if not (self._comfy.alive() and self._comfy.answers()):
            self._comfy.spawn()
        self._comfy.wait_ready()
        self._cold_start_ms = int((time.monotonic() - moment) * 1000)
        log.info(
            "ComfyUI %s is up on %s after %d ms", self._comfy.about.version, self._comfy.about.gpu, self._cold_start_ms
        )

    def stop(self) -> None:
        """The hook at the container's end: no process is left."""
        self._comfy.close()

    async def warm(self) -> str:
        """JSON of the container, as in the manifest, once ComfyUI is up; StartFailed, with which the container ends."""
        await self._up()
        return json.dumps(asdict(self._container()))

    async def run(
        self, workflow_json: str, job_id: str, options_json: str = "{}", inputs: list[list] | None = None
    ) -> bytes:
        """Runs a graph in ComfyUI's API format once and returns the payload (payload.py).

        A graph that ran before in this container needs output nodes unlike those of then (Go's backend gives each an
        input of its own): ComfyUI would list files from its cache, which have been removed. Raises InfraError; what is
        wrong with the arguments or the workflow is in the payload.
        """
        try:
            options = read_options(options_json, job_id)
            label = f"job_id={job_id} prompt_id={options.prompt_id} "
            graph = read_workflow(workflow_json)
        except UserError as e:
            log.info("job_id=%s %s: %s", job_id, e.code, e.message)
            return self._answer(self._container(), {"end": "failed", "code": e.code, "message": e.message})
        call_id = modal.current_function_call_id()
        starts = 1
        if call_id is not None:
            claim = await ledger.claim(self._book, options.prompt_id, call_id, task_id())
            if not claim.mine:
                end = {"end": "duplicate", "call_id": claim.holder} if claim.holder else {"end": "barred"}
                log.info("%s%s", label, " ".join(end.values()))
                return self._answer(self._container(), end)
            starts = claim.starts
            if starts > STARTS:
                log.warning("%sgiven up: %d containers have ended in the midst of it", label, STARTS)
                return self._answer(self._container(), {**crashed(), "starts": STARTS})
        self._comfy.label(label)
        try:
            return await self._job(graph, options, inputs or [], label, starts)
        except InfraError as e:
            e.tell_starts(starts)
            raise
        finally:
            self._comfy.label("")

    async def _job(self, graph: dict[str, Any], options: Options, inputs: list[list], label: str, starts: int) -> bytes:
        began = time.monotonic()
        container = self._container()
        self._cold_start_ms = 0
        outcome = "failed"
        try:
            async with contextlib.AsyncExitStack() as stack:
                progress = None
                if options.progress:
                    send = to_queue(self._channel, options.prompt_id)
                    progress = await stack.enter_async_context(Progress(send, container, label, options.previews))
                await self._up()
                container.gpu, container.version = self._comfy.about.gpu, self._comfy.about.version
                job = Job(self._comfy, self._sweep(), options, self._end_container, self._shelf)
                manifest, blobs = await job.run(graph, inputs, progress)
                outcome = manifest["end"]
                return self._answer(container, {**manifest, "starts": starts}, blobs)
        except UserError as e:
            outcome = f"{e.code}: {e.message}"
            return self._answer(container, {"end": "failed", "code": e.code, "message": e.message, "starts": starts})
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Exception as e:
            outcome = f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
            raise
        finally:
            log.info("%sended after %.1f s: %s", label, time.monotonic() - began, outcome)

    async def _up(self) -> None:
        failed, self._start_failed = self._start_failed, None
        try:
            if failed is not None:
                raise failed
            if not self._comfy.alive() or self._comfy.unfit():
                self._comfy.spawn()
            await self._comfy.until_ready()
        except StartFailed:
            await undisturbed(self._end_container())
            raise

    def _sweep(self) -> Sweeper:
        if self._sweeper is None:  # ComfyUI and its packs have made their own files by now
            self._sweeper = Sweeper(*map(self._comfy.path, ("input", "output", "temp")))
        return self._sweeper

    async def _end_container(self) -> None:
        try:
            async with asyncio.timeout(ENDING):
                await self._end()
        except Exception as e:
            log.warning("the container cannot be ended: %r", e)

    def _container(self) -> Container:
        return Container(task_id(), self._comfy.about.gpu, self._comfy.about.version, self._cold_start_ms)

    def _answer(self, container: Container, end: dict[str, Any], blobs: Blobs | None = None) -> bytes:
        manifest = {
            "end": end["end"],
            "container": asdict(container),
            "started_ms": 0,
            "ended_ms": 0,
            "starts": 1,
            **end,
        }
        return pack(manifest, blobs.parts if blobs is not None else ())


def crashed() -> dict[str, Any]:
    """The end of a prompt that no container has survived."""
    return {
        "end": "failed",
        "code": "backend_lost",
        "message": f"{STARTS} containers at Modal ended while they ran the prompt; most often their memory "
        "(COMFYD_MODAL_MEMORY) is too small for it, or a node of it ends its process",
    }


def task_id() -> str:
    """Modal's ID of this container; after a restored snapshot it is the new one's."""
    return os.environ.get("MODAL_TASK_ID", "local")
