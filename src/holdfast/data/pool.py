"""Work on many chunks at once: threads for little, processes for much.

Reading a label file is mostly Python, which threads cannot do side by side: over files that the system has in
memory, two threads take longer than one, two processes half as long (`benchmarks/index.py`). Helpers are
started as programs of their own, neither forked (the caller may run threads of torch and OpenCV) nor by
`multiprocessing` (which would run the user's script again). Where none can be started, threads do the work.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]

_MOST_HELPERS = 32
_SERVE = "import sys; sys.path[:] = sys.argv[1:]; from holdfast.data.pool import serve; serve()"


def map_chunks(
    work: Callable[[Sequence[Chunk]], Result],
    items: Sequence[Chunk],
    *,
    size: int,
    workers: int,
    processes: bool,
    progress: Progress | None = None,
) -> list[Result]:
    """Calls `work` on chunks of `items`, and returns the results in their order.

    Args:
        work: a function of a module, or a partial of one, that can be pickled when `processes`.
        items: all items.
        size: items per chunk.
        workers: chunks at work at the same time; 0 and 1 work here.
        processes: use processes where possible, instead of threads.
        progress: told how many items are done, and how many there are.
    """
    chunks = [items[at : at + size] for at in range(0, len(items), size)]
    results: list[Result] = []
    workers = min(workers, len(chunks), _MOST_HELPERS)

    def collect(result: Result) -> None:
        results.append(result)
        if progress is not None:
            progress(min(len(results) * size, len(items)), len(items))

    if workers <= 1:
        for chunk in chunks:
            collect(work(chunk))
        return results
    helpers = _Helpers(workers if processes else 0)
    threads = ThreadPoolExecutor(workers, thread_name_prefix="holdfast-scan")
    try:
        for result in threads.map(lambda chunk: helpers.run(work, chunk), chunks):
            collect(result)
    finally:
        helpers.close()
        threads.shutdown(cancel_futures=True)
    return results


def serve() -> None:
    """What a helper does: answers pickled calls until its input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not garble replies
    calls = sys.stdin.buffer
    while True:
        try:
            work, chunk = pickle.load(calls)
        except (EOFError, KeyboardInterrupt):
            return
        pickle.dump(work(chunk), replies, protocol=pickle.HIGHEST_PROTOCOL)
        replies.flush()


class _Helpers:
    """Helper processes; a call whose helper fails is done here instead.

    Args:
        count: how many; with 0 all calls are done here.
    """

    def __init__(self, count: int) -> None:
        self._closed = False
        self._all: list[subprocess.Popen[bytes]] = []
        self._free: SimpleQueue[subprocess.Popen[bytes] | None] = SimpleQueue()
        package = str(Path(__file__).parents[2])
        command = [sys.executable or "python", "-c", _SERVE, package, *(path for path in sys.path if path)]
        with suppress(OSError):  # as many as can be started
            for _ in range(count):
                helper = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                self._all.append(helper)
                self._free.put(helper)
        self._used = bool(self._all)
        for _ in range(count - len(self._all) if self._used else 0):
            self._free.put(None)

    def run(self, work: Callable[[Any], Result], chunk: Any) -> Result:
        """Does one call in a free helper."""
        if not self._used:
            return work(chunk)
        helper = self._free.get()
        try:
            if helper is not None:
                assert helper.stdin is not None
                assert helper.stdout is not None
                pickle.dump((work, chunk), helper.stdin, protocol=pickle.HIGHEST_PROTOCOL)
                helper.stdin.flush()
                result: Result = pickle.load(helper.stdout)
                return result
        except (OSError, EOFError, ValueError, pickle.PickleError):
            if self._closed:
                raise
            helper = None  # it is gone, and its work is ours
        finally:
            self._free.put(helper)
        return work(chunk)

    def close(self) -> None:
        """Ends all helpers."""
        self._closed = True
        for helper in self._all:
            helper.kill()
        for helper in self._all:
            helper.wait()
            for pipe in (helper.stdin, helper.stdout):
                assert pipe is not None
                with suppress(OSError):  # it was broken
                    pipe.close()
