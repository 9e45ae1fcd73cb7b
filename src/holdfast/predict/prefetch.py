"""Runs a slow iterator one thread ahead of its consumer.

Decoding and resizing release the interpreter lock, so the next picture is ready when the network has finished
the last. The queue is bounded: at most `depth` items wait, whatever the length of the source.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterable[T], *, depth: int = 4) -> Generator[T, None, None]:
    """Yields the items in order while a thread reads on.

    Closing the generator (or leaving a loop over it) stops the thread and closes the underlying iterator.

    Args:
        items: read in another thread; what it raises is raised here, in its place in the order.
        depth: items that may wait.
    """
    # One slot holds (item, None), (None, error) or (None, None) for the end.
    slots: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: T | None, error: BaseException | None, last: bool) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                slots.put((item, error, last), timeout=0.1)
                return

    def work() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put(item, None, False)
                if stop.is_set():
                    break
            put(None, None, True)
        except BaseException as error:  # handed to the consumer, which raises it
            put(None, error, True)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=work, name="holdfast-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = slots.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(timeout=5)
