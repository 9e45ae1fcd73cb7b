"""Progress of something long: one live line on a terminal, a plain line per quarter elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from typing_extensions import Self

_BAR = 30  # columns
_QUARTERS = 4


class Progress:
    """Shows how far one thing after another is; leaving it clears the live line.

    Args:
        out: where lines go.
        unit: puts a count into words.
        after: seconds until anything is shown: what is done sooner needs no line.
    """

    def __init__(self, out: TextIO, *, unit: Callable[[int], str] | None = None, after: float = 0.0) -> None:
        self.out = out
        self.unit = unit or megabytes
        self.after = after
        self.live = out.isatty()
        self._drawn = False
        self._shown = 0.0
        self._quarter = 0
        self._done = 0
        self._begun: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def say(self, text: str) -> None:
        """Writes one line that stays."""
        self.clear()
        self.out.write(text + "\n")
        self.out.flush()

    def show(self, done: int, total: int | None) -> None:
        """Shows the progress of the current file; a lower count than before means that another has begun.

        Args:
            done: bytes so far.
            total: bytes in all; None while unknown.
        """
        now = time.monotonic()
        if self._begun is None or done < self._done:
            self._quarter, self._begun = 0, now
        self._done = done
        if now - self._begun < self.after:
            return
        if self.live:
            if now - self._shown > 0.1 or done == total:
                self._shown = now
                self.out.write("\r\x1b[K" + self._line(done, total))
                self.out.flush()
                self._drawn = True
        elif total and done * _QUARTERS // total > self._quarter:
            self._quarter = done * _QUARTERS // total
            self.out.write(f"  {done / total:4.0%} of {self.unit(total)}\n")
            self.out.flush()

    def clear(self) -> None:
        """Takes the live line away."""
        if self._drawn:
            self.out.write("\r\x1b[K")
            self.out.flush()
            self._drawn = False

    def _line(self, done: int, total: int | None) -> str:
        if not total:
            return f"  {self.unit(done)}"
        bar = "#" * (_BAR * done // total)
        return f"  [{bar:<{_BAR}}] {done / total:4.0%}  {self.unit(done)} of {self.unit(total)}"


def megabytes(count: int) -> str:
    """Returns `5.5 MB` for 5,544,453 bytes."""
    return f"{count / 1e6:.1f} MB"
