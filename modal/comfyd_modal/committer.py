"""Makes durable what downloads write, often enough."""

import threading
from collections.abc import Callable
from types import TracebackType

SHARE = 0.02  # of the expected bytes, between two commits
FLOOR = 16 << 20  # bytes; below it a commit costs more than it saves


class CommitFailed(Exception):
    """What was written could not be made durable."""


class Committer:
    """Calls `commit` from a thread of its own whenever SHARE of the expected bytes (FLOOR at least) has been written.

    Writers wait when twice that is at risk, so that a killed container loses less than 5 % of a large download, however
    slow commits are. Modal commits a Volume in the background too, but does not say how often.
    """

    def __init__(self, commit: Callable[[], None], floor: int = FLOOR):
        self._commit = commit
        self._floor = floor
        self._expected = 0
        self._pending = 0  # bytes written and not yet durable
        self._asked = 0  # flushes wanted
        self._done = 0  # flushes done
        self._closing = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)

    def __enter__(self) -> "Committer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def expect(self, size: int) -> None:
        """Says that `size` more bytes will be there in the end."""
        with self._changed:
            self._expected += size

    def wrote(self, size: int) -> None:
        """Says that `size` bytes were written. Waits while too much is at risk. CommitFailed when commits fail."""
        with self._changed:
            self._pending += size
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or self._pending < 2 * self._step())
            self._raise()

    def flush(self) -> None:
        """Returns when everything written until now is durable. CommitFailed when it cannot be made so."""
        with self._changed:
            self._asked += 1
            mine = self._asked
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or self._done >= mine)
            self._raise()

    def _step(self) -> int:
        return max(self._floor, int(self._expected * SHARE))

    def _raise(self) -> None:
        if self._error:
            raise CommitFailed(str(self._error) or repr(self._error)) from self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or self._asked > self._done or self._pending >= self._step()
                )
                if self._error or (self._closing and not self._pending and self._asked == self._done):
                    return
                pending, asked = self._pending, self._asked
            error = None
            try:
                self._commit()
            except Exception as e:
                error = e
            with self._changed:
                self._error = error
                self._pending -= pending
                self._done = asked
                self._changed.notify_all()
