"""The first process of a container of fakemodal: `python -I -S init.py COMMAND...`.

It starts COMMAND, passes SIGINT, SIGTERM and SIGUSR1 on to it, and ends with its exit code. When COMMAND ends, or when
standard input does (the fake wants the container gone, or has itself been killed), every process below it is killed
with SIGKILL, also one that has left the process group: in Linux orphans come back to the subreaper.
"""

import ctypes
import os
import select
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
KILLED = 128 + signal.SIGKILL


def children() -> dict[int, list[int]]:
    """All processes by parent."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue
        found.setdefault(int(fields[1]), []).append(int(name))
    return found


def reap(main: int) -> int | None:
    """Waits for whatever has ended. Returns the exit code of main if that was among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == main:
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code


def kill_all(main: int) -> None:
    """Kills everything below this process and returns when it is gone and waited for."""
    while True:
        reap(main)
        parents, todo, below = children(), [os.getpid()], []
        while todo:
            for pid in parents.get(todo.pop(), []):
                todo.append(pid)
                below.append(pid)
        if not below:
            return
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.002)


def run(command: list[str]) -> int:
    """Runs command to its end."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    for number in (*passed_on, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    no_input = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    main = os.posix_spawnp(command[0], command, os.environ, file_actions=no_input)
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if 0 in ready and not os.read(0, 1):
            kill_all(main)
            return KILLED
        if wake in ready:
            for number in os.read(wake, 256):
                if number in passed_on:
                    os.kill(main, number)
            code = reap(main)
            if code is not None:
                kill_all(main)
                return code


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
