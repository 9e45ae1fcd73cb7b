"""Progress of downloads and long readings: one live line on a terminal, a plain line per quarter in pipes and
log files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from typing_extensions import Self

_BAR = 30  # columns
_QUARTERS = 4


class Progress:
    """Shows how far one file after another is; leaving it clears the live line.

    Args:
        out: where lines go.
        words: a count as text.
    """

    def __init__(self, out: TextIO, words: Callable[[int], str] | None = None) -> None:
        self.out = out
        self.words = words or megabytes
        self.live = out.isatty()
        self._drawn = False
        self._shown = 0.0
        self._quarter = 0
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def say(self, text: str) -> None:
        """Writes one line that stays."""
        self._clear()
        self.out.write(text + "\n")
        self.out.flush()

    def show(self, done: int, total: int | None) -> None:
        """Shows the progress of the current file; fewer bytes than before mean that another has begun.

        Args:
            done: bytes so far.
            total: bytes in all; None while unknown.
        """
        if done < self._done:
            self._quarter = 0
        self._done = done
        if self.live:
            now = time.monotonic()
            if now - self._shown > 0.1 or done == total:
                self._shown = now
                self.out.write("\r\x1b[K" + self._line(done, total))
                self.out.flush()
                self._drawn = True
        elif total and done * _QUARTERS // total > self._quarter:
            self._quarter = done * _QUARTERS // total
            self.out.write(f"  {done / total:4.0%} of {self.words(total)}\n")
            self.out.flush()

    def _line(self, done: int, total: int | None) -> str:
        if not total:
            return f"  {self.words(done)}"
        bar = "#" * (_BAR * done // total)
        return f"  [{bar:<{_BAR}}] {done / total:4.0%}  {self.words(done)} of {self.words(total)}"

    def _clear(self) -> None:
        if self._drawn:
            self.out.write("\r\x1b[K")
            self.out.flush()
            self._drawn = False


def megabytes(count: int) -> str:
    """Returns `5.5 MB` for 5,544,453 bytes."""
    return f"{count / 1e6:.1f} MB"


def images(count: int) -> str:
    """Returns `1,200 images`."""
    return f"{count:,} images"
