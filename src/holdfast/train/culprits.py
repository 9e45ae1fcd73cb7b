"""Which images of a batch make a step fail, found by halving."""

from __future__ import annotations

from collections.abc import Callable

MOST_TRIES = 256  # a bound on the time it takes; a batch of 64 that fails throughout needs 127


def find_culprits(images: int, fails: Callable[[list[int]], bool]) -> list[int]:
    """Returns the numbers of the images that fail alone; a batch may also fail only as a whole, or once.

    Args:
        images: in the batch.
        fails: whether some of the images fail, as a batch of their own.
    """
    found: list[int] = []
    waiting = [list(range(images))] if images else []
    for _ in range(MOST_TRIES):
        if not waiting:
            break
        group = waiting.pop(0)
        if not fails(group):
            continue
        if len(group) == 1:
            found += group
        else:
            middle = len(group) // 2
            waiting += [group[:middle], group[middle:]]
    return sorted(found)
