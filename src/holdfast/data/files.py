"""Files read within a time limit: a network drive that does not answer must not hold up a run for ever.

A system call that hangs cannot be ended, so the thread that makes it is left behind when the time is up.
Workers read by themselves, because they can be replaced, and whoever waits for them looks at the clock
(`workers.py`). Any other thread has a thread of its own to read for it: two hand-overs, which cost some
0.1 ms a file. All these threads are daemons, which no process waits for at its end.

A folder that is away for a moment (a drive that is mounted again) is waited for as long as for a read.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from holdfast.data.image import read_bytes
from holdfast.data.workers import Worker
from holdfast.errors import DataError

MOST_LOST = 16  # reads that hang at the same time, or that found no folder in a row, before a drive is gone
_GONE = "Check the drive, then go on with --resume."
_PAUSE = 0.2  # seconds between looks at a folder that is away


class Late(DataError):
    """A read that did not end in time; trying it again would take as long."""


class DriveGone(DataError):
    """Too many reads are lost: it is not about single files any more."""


class TimedFiles:
    """Reads whole files. Several threads may call at once.

    Args:
        limit: seconds that one read may take; 0 waits for as long as it takes.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._idle: list[_Fetcher] = []
        self._hung: list[threading.Thread] = []
        self._late: set[str] = set()
        self._away = 0  # reads in a row that found no folder
        self._lock = threading.Lock()

    def give_up(self, path: str, thread: threading.Thread) -> None:
        """Takes down that a worker was left behind while it read a file, which nobody is to try again."""
        with self._lock:
            self._late.add(path)
            self._hung.append(thread)

    @property
    def hung(self) -> int:
        """How many reads that were given up have still not ended."""
        with self._lock:
            self._hung = [fetcher for fetcher in self._hung if fetcher.is_alive()]
            return len(self._hung)

    def read(self, path: str) -> bytes:
        """Reads a file.

        Raises:
            Late: it took longer than the limit.
            DriveGone: so many reads are lost that no more are begun.
            DataError: the file is missing, empty or unreadable.
        """
        if not self.limit:
            return read_bytes(path)
        ends = time.monotonic() + self.limit
        while True:
            if self._hung and self.hung >= MOST_LOST:
                raise DriveGone(f"{MOST_LOST} reads hang at the same time.", path=path, hint=_GONE)
            if path in self._late:
                raise self._too_late(path)
            answer = self._ask(path, ends)
            if isinstance(answer, bytes):
                self._away = 0
                return answer
            error, away = answer
            if not away:
                raise error
            if time.monotonic() + _PAUSE > ends:
                self._away += 1
                if self._away >= MOST_LOST:
                    raise DriveGone(
                        f"the folder of {MOST_LOST} images in a row is not there.", path=path, hint=_GONE
                    )
                raise error
            time.sleep(_PAUSE)

    def _too_late(self, path: str) -> Late:
        return Late(f"reading did not end in {self.limit:g} s.", path=path, hint="Check the drive.")

    def _ask(self, path: str, ends: float) -> bytes | tuple[DataError, bool]:
        me = threading.current_thread()
        if isinstance(me, Worker):
            return _fetch(me.read, path)
        with self._lock:
            fetcher = self._idle.pop() if self._idle else None
        fetcher = fetcher or _Fetcher()
        fetcher.asked.put(path)
        try:
            answer = fetcher.answers.get(timeout=max(ends - time.monotonic(), 0.0))
        except Empty:
            fetcher.asked.put(None)  # it ends when the read does
            with self._lock:
                self._hung.append(fetcher)
                self._late.add(path)
            raise self._too_late(path) from None
        with self._lock:
            self._idle.append(fetcher)
        return answer

    def close(self) -> None:
        """Ends the threads that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for fetcher in idle:
            fetcher.asked.put(None)
        for fetcher in idle:
            fetcher.join()


class _Fetcher(threading.Thread):
    """Reads one file after the other."""

    def __init__(self) -> None:
        super().__init__(name="holdfast-read", daemon=True)
        self.asked: SimpleQueue[str | None] = SimpleQueue()
        self.answers: SimpleQueue[bytes | tuple[DataError, bool]] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while (path := self.asked.get()) is not None:
            self.answers.put(_fetch(read_bytes, path))


def _fetch(read: Callable[[str], bytes], path: str) -> bytes | tuple[DataError, bool]:
    """Returns the content, or what is wrong and whether the folder is away."""
    try:
        return read(path)
    except DataError as error:
        return error, not os.path.isdir(os.path.dirname(path) or ".")
    except Exception as error:  # memory ran out: the thread serves on
        return DataError(f"cannot be read ({type(error).__name__}: {error}).", path=path), False
