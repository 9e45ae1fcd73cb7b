"""Chunks are worked on by threads or processes with the same outcome, whatever happens to the processes."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from holdfast.data import pool
from holdfast.data.pool import map_chunks

# Helpers import this package only, so the work has to be a function of Python or of Holdfast.


@pytest.mark.parametrize(("workers", "processes"), [(0, True), (1, False), (3, False), (2, True)])
def test_results_come_in_order(workers: int, processes: bool) -> None:
    seen: list[tuple[int, int]] = []
    results = map_chunks(
        sum,
        range(10),
        size=3,
        workers=workers,
        processes=processes,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert results == [3, 12, 21, 9]
    assert seen == [(3, 10), (6, 10), (9, 10), (10, 10)]


@pytest.mark.parametrize("processes", [False, True])
def test_helpers_are_processes(processes: bool) -> None:
    ask = "__import__('os').getpid()"
    found = map_chunks(eval, 2 * ask, size=len(ask), workers=2, processes=processes)
    assert (os.getpid() in found) != processes


def test_what_helpers_cannot_do_is_done_here() -> None:
    assert map_chunks(_identity, [1, 2], size=1, workers=2, processes=True) == [[1], [2]]


def _identity(chunk: Sequence[int]) -> list[int]:
    """Helpers do not know this file."""
    return list(chunk)


@pytest.mark.parametrize("program", ["", "no such program", "/bin/false"])
def test_without_helpers_the_work_is_done_here(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool.sys, "executable", program)
    assert map_chunks(sum, range(10), size=3, workers=2, processes=True) == [3, 12, 21, 9]


@pytest.mark.parametrize("processes", [False, True])
def test_an_error_of_the_work_arrives(processes: bool) -> None:
    with pytest.raises(TypeError):
        map_chunks(sum, [1, 2, "x", 3], size=1, workers=2, processes=processes)  # type: ignore[arg-type]
