"""The ComfyUI of this container: started, watched and ended as a process of its own."""

import asyncio
import http.client
import json
import logging
import os
import shutil
import socket
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from . import launcher
from .errors import StartFailed
from .place import Place
from .process import Process

log = logging.getLogger("comfyd")

SHARE_FOR_IMPORTS = 1 / 3  # of the time that a start may take, for imports ahead of it
STARTING_LIMIT = 10.0  # seconds for a waiting launcher to take its order
POLL = 0.1  # seconds between two looks while ComfyUI starts

# Not for custom nodes, which are anybody's code; and Modal's own PYTHONPATH names Modal's packages, which are not those
# of ComfyUI's interpreter.
PRIVATE = ("MODAL_", "COMFYD_", "HUGGINGFACE_", "HF_TOKEN", "PYTHONPATH", "PYTHONHOME")


# A proxy that the environment names is not asked for what is on this machine.
LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class About:
    """What a ComfyUI says of itself."""

    version: str = ""
    gpu: str = ""  # "NVIDIA L40S", "cpu"


class ComfyUI:
    """One ComfyUI, which may be started again after it has ended.

    A start is `spawn` and then `wait_ready` or `until_ready`. `preload` before it does the slow imports ahead; a
    launcher that has died since (or that a restored snapshot lacks) is passed over for a plain start.
    """

    def __init__(self, place: Place):
        self.place = place
        self.about = About()
        self.process: Process | None = None
        self.port = 0
        self.defect = ""  # why it must not run another prompt
        self._ready = False
        self._deadline = 0.0
        self._args: list[str] = []
        self._env: dict[str, str] = {}
        self._label = ""
        self._launcher: Process | None = None

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def path(self, folder: str) -> Path:
        """The folder that ComfyUI knows as "input", "output" or "temp"."""
        return self.place.work / folder

    def label(self, text: str) -> None:
        """Puts `text` before each line of ComfyUI's in the container's log from now on."""
        self._label = text
        if self.process is not None:
            self.process.label = text

    def alive(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.process is not None and self.process.alive()

    def unfit(self) -> str:
        """Why it must not run another prompt, "" where nothing is known against it."""
        if self.process is not None and self.process.worker_died():
            return "its execution thread has died"
        return self.defect

    def tail(self) -> str:
        """The end of its log."""
        return self.process.tail() if self.process is not None else ""

    def preload(self) -> None:
        """Starts a launcher and waits until it has imported what it can. A failure only costs time, and is logged."""
        self._prepare_folders()
        began = time.monotonic()
        process = self._launch("--preload", *self.place.args)
        limit = SHARE_FOR_IMPORTS * self.place.startup_timeout
        if process.wait_for(launcher.PRELOADED, limit):
            log.info("modules imported ahead of ComfyUI in %.1f s", time.monotonic() - began)
            self._launcher = process
            return
        end = process.end(within=1) or f"took more than {limit:.0f} s"
        process.kill()
        log.warning("the launcher %s; ComfyUI starts without modules imported ahead", end)

    def spawn(self) -> None:
        """Starts the process and returns at once. Call it from the main thread."""
        self.kill()
        self._prepare_folders()
        self.defect = ""
        self._ready = False
        self._deadline = time.monotonic() + self.place.startup_timeout
        self.port = free_port()
        self._args = self._arguments()
        order = json.dumps({"args": self._args, "env": self._environment()}).encode() + b"\n"
        self.process = self._from_launcher(order)
        if self.process is None:
            self.process = self._launch()
            self._order(self.process, order)
        self.process.label = self._label

    def ready(self) -> bool:
        """Whether our ComfyUI answers. Raises StartFailed when it has ended or its time is over."""
        if self._ready:
            return True
        process = self.process
        if process is None:
            raise StartFailed("ComfyUI has not been started")
        if self.answers():
            self._ready = True
            return True
        if not process.alive():
            raise StartFailed(f"ComfyUI {process.end()} while it started", process.tail())
        if time.monotonic() > self._deadline:
            process.kill()
            raise StartFailed(
                f"ComfyUI did not answer within {self.place.startup_timeout:.0f} s; "
                "COMFYD_MODAL_STARTUP_TIMEOUT at deploy time gives it more",
                process.tail(),
            )
        return False

    def answers(self) -> bool:
        """Asks whether our ComfyUI answers now, for 5 s at most."""
        try:
            stats = json.loads(self.get("/system_stats", 5))
        except (OSError, http.client.HTTPException, ValueError):
            return False
        system = stats.get("system", {})
        if system.get("argv", [])[1:] != self._args:  # somebody else has got the port before ours did
            return False
        self.about = About(str(system.get("comfyui_version", "")), device(stats))
        return True

    def get(self, path: str, seconds: float) -> bytes:
        """What it answers to GET path. OSError or http.client.HTTPException when it does not, for so long at a time."""
        with LOCAL.open(self.url + path, timeout=seconds) as answer:
            return answer.read()

    def wait_ready(self) -> None:
        """Waits until it answers; StartFailed as in ready."""
        while not self.ready():
            time.sleep(POLL)

    async def until_ready(self) -> None:
        """wait_ready, for an event loop."""
        while not self._ready and not await asyncio.to_thread(self.ready):
            await asyncio.sleep(POLL)

    def kill(self) -> None:
        """Ends it; a waiting launcher is left alone. It may be called again."""
        if self.process is not None:
            self.process.kill()
        self._ready = False

    def close(self) -> None:
        """Ends it and a waiting launcher."""
        self.kill()
        if self._launcher is not None:
            self._launcher.kill()
            self._launcher = None

    def remove(self) -> None:
        """Ends it and removes its folders."""
        self.close()
        shutil.rmtree(self.place.work, ignore_errors=True)

    def _launch(self, *args: str) -> Process:
        command = [self.place.python, "-u", launcher.__file__, str(self.place.folder), *args]
        env = {**self._environment(), "COMFYD_RUNNER_PID": str(os.getpid())}
        return Process(command, env, self.place.work / "comfyui.log", launcher.MARK)

    def _order(self, process: Process, order: bytes) -> None:
        try:
            process.write(order)
        except OSError:  # it has ended; ready() tells how
            pass

    def _from_launcher(self, order: bytes) -> Process | None:
        process, self._launcher = self._launcher, None
        if process is None:
            return None
        if process.alive():
            self._order(process, order)
            if process.wait_for(launcher.STARTING, STARTING_LIMIT):
                return process
        end = process.end(within=1) or "does not answer"
        process.kill()
        log.warning("the waiting launcher %s; ComfyUI starts without modules imported ahead", end)
        return None

    def _arguments(self) -> list[str]:
        # The options are those of comfy/cli_args.py, as 0.3.75 has them; later ones win.
        work = self.place.work
        args = ["--listen", "127.0.0.1", "--port", str(self.port), "--disable-auto-launch", "--preview-method", "auto"]
        args += ["--input-directory", str(work / "input"), "--output-directory", str(work / "output")]
        args += ["--temp-directory", str(work)]  # ComfyUI appends "temp"
        args += ["--user-directory", str(work / "user"), "--database-url", f"sqlite:///{work / 'user' / 'comfyui.db'}"]
        args += ["--extra-model-paths-config", str(self.place.models_config())]
        return args + list(self.place.args)

    def _environment(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if not k.startswith(PRIVATE)}

    def _prepare_folders(self) -> None:
        for name in ("input", "output", "temp", "user"):
            self.path(name).mkdir(parents=True, exist_ok=True)


def device(stats: dict) -> str:
    """The device's name in an answer of /system_stats: "NVIDIA L40S" of "cuda:0 NVIDIA L40S : cudaMallocAsync"."""
    devices = stats.get("devices") or [{}]
    name = str(devices[0].get("name", "")).split(" : ")[0]
    first, _, rest = name.partition(" ")
    return rest if rest and first.startswith(str(devices[0].get("type", "?"))) else name


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
