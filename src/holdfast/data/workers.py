"""Threads that make samples, and are replaced when one of them ends or hangs in reading a file."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from holdfast.data.image import read_bytes

Result = TypeVar("Result")


_LOOK = 0.5  # seconds between looks at a thread that is to end


class WorkerLost(Exception):
    """A worker ended before its work was done."""


class _Job(NamedTuple, Generic[Result]):
    work: Callable[[], Result]
    promise: Future[Result]


class Workers(Generic[Result]):
    """So many threads as long as there is work; they live until `close`.

    An error of the work comes back through its promise. What ends the thread itself (SystemExit, or anything
    that hits it between two pieces of work) breaks the promise with `WorkerLost`, and `tend` starts another.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._jobs: SimpleQueue[_Job[Result] | None] = SimpleQueue()
        self._threads: list[Worker[Result]] = []

    def tend(self) -> list[BaseException]:
        """Sees to it that all threads are there; returns what ended those that were not."""
        lost = [thread for thread in self._threads if not thread.is_alive()]
        for thread in lost:
            self._threads.remove(thread)
        while len(self._threads) < self.count:
            self._threads.append(Worker(self._jobs))
        return [thread.error for thread in lost if thread.error is not None]

    def give_up(self, limit: float) -> list[tuple[str, threading.Thread]]:
        """Leaves threads behind that have been reading one file for more than `limit` seconds.

        Returns:
            The path of each such file, and the thread, which ends when the read does.
        """
        late: list[tuple[str, threading.Thread]] = []
        for thread in self._threads.copy():
            path = thread.give_up(limit)
            if path is not None:
                self._threads.remove(thread)
                late.append((path, thread))
        return late

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Hands work out; a promise that nobody has begun to keep can be cancelled."""
        promise: Future[Result] = Future()
        self._jobs.put(_Job(work, promise))
        return promise

    def clear(self) -> None:
        """Drops the work that nobody has begun."""
        with suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.promise.cancel()

    def close(self) -> None:
        """Ends the threads; work that nobody has begun is dropped."""
        self.clear()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_LOOK)
                if thread.give_up(_LOOK) is not None:
                    break  # nobody waits for what it reads
        self._threads = []
        self._jobs = SimpleQueue()  # without what is left for threads that were lost


class Worker(threading.Thread, Generic[Result]):
    """One thread. `error` is what ended it before its time."""

    def __init__(self, jobs: SimpleQueue[_Job[Result] | None]) -> None:
        super().__init__(name="holdfast-data", daemon=True)
        self.error: BaseException | None = None
        self._jobs = jobs
        self._job: _Job[Result] | None = None
        self._reading: tuple[str, float] | None = None  # path, and since when
        self._left_behind = False
        self._lock = threading.Lock()
        self.start()

    def read(self, path: str) -> bytes:
        """Reads a file, in this thread, as `read_bytes` does.

        Raises:
            SystemExit: nobody waits for it any more, and others may use the memory it was to draw into.
        """
        self._reading = path, time.monotonic()
        try:
            return read_bytes(path)
        finally:
            with self._lock:
                self._reading = None
            if self._left_behind:
                raise SystemExit

    def give_up(self, limit: float) -> str | None:
        """Breaks the promise of a thread that has been reading for more than `limit` seconds: the path."""
        with self._lock:
            if self._reading is None or time.monotonic() - self._reading[1] < limit:
                return None
            self._left_behind = True
            path = self._reading[0]
        job = self._job
        if job is not None and not job.promise.done():
            job.promise.set_exception(WorkerLost(f"reading {path} takes more than {limit:g} s"))
        return path

    def run(self) -> None:
        try:
            while self._serve():
                pass
        except BaseException as error:
            self.error = error
            if self._job is not None and not self._job.promise.done():
                self._job.promise.set_exception(WorkerLost(f"{type(error).__name__}: {error}"))

    def _serve(self) -> bool:
        """Does one piece of work, and holds nothing of it afterwards; False when there is no more."""
        job = self._job = self._jobs.get()
        if job is None:
            return False
        if job.promise.set_running_or_notify_cancel():
            try:
                result = job.work()
            except Exception as error:
                job.promise.set_exception(error)
            else:
                job.promise.set_result(result)
        self._job = None
        return True
