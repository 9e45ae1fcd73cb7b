"""Reading ahead keeps order, bounds memory, passes errors on and ends its thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from holdfast.predict.prefetch import prefetch


def readers() -> int:
    return sum(thread.name == "holdfast-prefetch" for thread in threading.enumerate())


def test_order_and_end_are_kept_and_the_thread_is_gone() -> None:
    assert list(prefetch(range(100), depth=3)) == list(range(100))
    assert readers() == 0


def test_no_more_than_the_queue_and_two_in_hand_are_read_ahead() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for i in range(1000):
            read.append(i)
            yield i

    items = prefetch(numbers(), depth=3)
    next(items)
    time.sleep(0.2)
    assert len(read) <= 5
    items.close()
    assert readers() == 0


def test_an_error_comes_out_after_the_items_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    items = prefetch(numbers())
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
    assert readers() == 0


def test_closing_closes_the_source_too() -> None:
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    items = prefetch(numbers())
    next(items)
    items.close()
    assert closed.wait(2)
