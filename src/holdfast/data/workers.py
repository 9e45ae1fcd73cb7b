"""Threads that make samples, and are replaced when one of them ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

Result = TypeVar("Result")


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
        self._threads: list[_Worker[Result]] = []

    def tend(self) -> list[BaseException]:
        """Sees to it that all threads are there; returns what ended those that were not."""
        lost = [thread for thread in self._threads if not thread.is_alive()]
        for thread in lost:
            self._threads.remove(thread)
        while len(self._threads) < self.count:
            self._threads.append(_Worker(self._jobs))
        return [thread.error for thread in lost if thread.error is not None]

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Hands work out; a promise that nobody has begun to keep can be cancelled."""
        promise: Future[Result] = Future()
        self._jobs.put(_Job(work, promise))
        return promise

    def close(self) -> None:
        """Ends the threads; work that nobody has begun is dropped."""
        with suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.promise.cancel()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._jobs = SimpleQueue()  # without what is left for threads that were lost


class _Worker(threading.Thread, Generic[Result]):
    """One thread. `error` is what ended it before its time."""

    def __init__(self, jobs: SimpleQueue[_Job[Result] | None]) -> None:
        super().__init__(name="holdfast-data", daemon=True)
        self.error: BaseException | None = None
        self._jobs = jobs
        self._job: _Job[Result] | None = None
        self.start()

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
