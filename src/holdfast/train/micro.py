"""How many images go through the network at a time: as planned, fewer after memory ran out, more again later.

Sizes of a step's micro-batches are balanced (22, 21, 21 rather than 24, 24, 16), so that batch statistics are
taken over nearly equal numbers of images.
"""

from __future__ import annotations

QUIET_STEPS = 100  # steps without trouble before a larger micro-batch is tried


def balanced(count: int, most: int) -> list[tuple[int, int]]:
    """Cuts `count` images into the fewest parts of at most `most`: (start, stop) of each, sizes one apart."""
    parts = -(-count // most)
    return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]


class MicroBatch:
    """Size of the micro-batches.

    After memory ran out the size is half of what was tried. After quiet steps it goes half of the way back to
    the plan; where that fails, it returns to the last size that worked and waits twice as long.

    Args:
        planned: most images at a time; None for the whole batch.
        quiet: steps without trouble before more is tried.

    Attributes:
        size: most images at a time now; None for the whole batch.
    """

    def __init__(self, planned: int | None = None, *, quiet: int = QUIET_STEPS) -> None:
        if planned is not None and planned < 1:
            raise ValueError(f"a micro-batch has at least one image, got {planned}")
        self.planned = planned
        self.size = planned
        self.quiet = quiet
        self._goal: int | None = None  # where to grow back to, known once memory ran out
        self._safe: int | None = None  # the size before the last growth, until it has proved itself
        self._calm = 0

    def parts(self, count: int) -> list[tuple[int, int]]:
        """(start, stop) of the micro-batches of `count` images."""
        return balanced(count, count if self.size is None else self.size) if count else []

    def shrink(self, tried: int) -> None:
        """Takes note that `tried` images at a time were too many; at least one remains."""
        if self._goal is None:
            self._goal = self.planned or tried
        if self._safe is not None and self._safe < tried:
            self.size, self.quiet = self._safe, self.quiet * 2
        else:
            self.size = max(tried // 2, 1)
        self._safe, self._calm = None, 0

    def calm(self) -> int | None:
        """Counts a step without trouble; returns the new size when it has grown."""
        if self._goal is None or self.size is None or self.size >= self._goal:
            return None
        self._calm += 1
        if self._calm < self.quiet:
            return None
        self._safe, self._calm = self.size, 0
        self.size = (self.size + self._goal + 1) // 2
        return self.size
