"""A child process in its own group, with a bounded log."""

import collections
import logging
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

log = logging.getLogger("comfyd.comfyui")

LOG_LIMIT = 4 << 20  # bytes; one older file of this size is kept
TAIL_LINES = 40

# threading.excepthook's words for ComfyUI's execution thread (main.py, prompt_worker). After it ComfyUI answers, and
# takes prompts, and never runs one again.
WORKER_DIED = re.compile(r"^Exception in thread .*\(prompt_worker\)")


class BoundedFile:
    """A file that is put aside as `path`.1 when it has grown to LOG_LIMIT, and begun anew."""

    def __init__(self, path: Path):
        self._path = path
        self._file = open(path, "ab", buffering=0)

    def __enter__(self) -> "BoundedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Appends data."""
        if self._file.tell() + len(data) > LOG_LIMIT:
            self._file.close()
            os.replace(self._path, f"{self._path}.1")
            self._file = open(self._path, "ab", buffering=0)
        self._file.write(data)


class Process:
    """A running command. Start it from the main thread: the launcher asks to die with the thread that made it.

    Its output goes to `log_path`, which is bounded, and line by line to the logger "comfyd.comfyui" under the present
    `label`, so that a container's log says whose lines they are. Lines that begin with `mark` can be waited for.
    """

    def __init__(self, command: list[str], env: dict[str, str], log_path: Path, mark: str):
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "ComfyUI is to be started from the main thread: it is killed when the thread that started it ends"
            )
        self.label = ""
        self.killed = False
        self._lines: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._mark = mark
        self._marked: list[str] = []
        self._said = threading.Condition()
        self._ended = False
        self._worker_died = False
        self._log_path = log_path
        self._popen = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._pump = threading.Thread(target=self._read, name="comfyui-log", daemon=True)
        self._pump.start()

    @property
    def pid(self) -> int:
        """The process's ID, which is its group's too."""
        return self._popen.pid

    def alive(self) -> bool:
        """Whether the process itself has not ended."""
        return self._popen.poll() is None

    def worker_died(self) -> bool:
        """Whether the log says that ComfyUI's execution thread has ended by an exception."""
        return self._worker_died

    def write(self, data: bytes) -> None:
        """Hands data to its stdin, and closes that. Raises OSError when nobody reads any more."""
        assert self._popen.stdin is not None
        with self._popen.stdin as stdin:
            stdin.write(data)

    def wait_for(self, text: str, seconds: float) -> bool:
        """Waits for a line that begins with `text`, and so with the mark, or that came before; False for none."""
        with self._said:
            self._said.wait_for(lambda: self._ended or any(m.startswith(text) for m in self._marked), seconds)
            return any(m.startswith(text) for m in self._marked)

    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self._lines)

    def end(self, within: float = 0.0) -> str:
        """How it has ended, or does within some seconds, in words; "" while it runs."""
        try:
            code = self._popen.wait(within)
        except subprocess.TimeoutExpired:
            return ""
        self._pump.join(timeout=1)  # its last words are still in the pipe
        if code == -signal.SIGKILL and not self.killed:
            return (
                "was killed (SIGKILL), most often because the container's memory was used up: "
                "COMFYD_MODAL_MEMORY at deploy time gives it more"
            )
        if code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name})"
        return f"exited with status {code}"

    def kill(self) -> None:
        """Ends the whole group and waits for the process, 10 s at most. It may be called again."""
        self.killed = self.killed or self.alive()
        try:
            os.killpg(self._popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            self._popen.wait(timeout=10)
        except subprocess.TimeoutExpired:
            log.error("process %d has not ended 10 s after SIGKILL", self._popen.pid)
        if self._popen.stdin is not None:
            try:
                self._popen.stdin.close()
            except OSError:
                pass
        self._pump.join(timeout=1)

    def _read(self) -> None:
        assert self._popen.stdout is not None
        pending = b""
        with self._popen.stdout as stdout, BoundedFile(self._log_path) as file:
            while data := os.read(stdout.fileno(), 1 << 16):
                file.write(data)
                # A progress bar rewrites its line after a \r; only what it ends with is worth a line of the log.
                *lines, pending = (pending + data).replace(b"\r\n", b"\n").split(b"\n")
                pending = pending[-(1 << 16) :]
                for line in lines:
                    self._line(line)
        self._line(pending)
        with self._said:
            self._ended = True
            self._said.notify_all()

    def _line(self, raw: bytes) -> None:
        line = raw.rpartition(b"\r")[2].decode(errors="replace").rstrip()
        if not line:
            return
        self._lines.append(line)
        if WORKER_DIED.match(line):
            self._worker_died = True
        if line.startswith(self._mark):
            with self._said:
                self._marked.append(line)
                self._said.notify_all()
        log.info("%s%s", self.label, line)
