"""How text reaches a terminal, a pipe or a log file: lines that stay, and on a terminal a live part under
them that is drawn over and over.

Unusual: nothing here decides to print; programs and doors hand over the stream. Only a terminal sees control
codes, and lines that stay are never broken, whatever the width. The cursor stays visible and keys keep their
meaning, so that a process which is killed leaves the terminal as it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from typing_extensions import Self

DRAWN = 0.5  # seconds between two drawings
_GAP = 2  # columns between parts
_BAR = (6, 40)  # columns of a bar, at least and at most
_QUARTERS = 4


@dataclass(frozen=True)
class Row:
    """One drawn line: as many of its parts as fit.

    Attributes:
        parts: (rank, text) in the order they stand; the lowest ranks stay longest.
        done: share that a bar after the first part is filled to, in [0, 1]; None has no bar.
    """

    parts: Sequence[tuple[int, str]]
    done: float | None = None

    def text(self, columns: int) -> str:
        """The parts that fit into so many columns, without the bar."""
        return (" " * _GAP).join(self._fitting(columns))[:columns]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line for rich."""
        columns, (least, most) = options.max_width, _BAR
        texts = self._fitting(columns if self.done is None else columns - least - _GAP)
        room = columns - sum(len(text) + _GAP for text in texts)
        if self.done is None or room < least:
            yield Segment(self.text(columns))
            return
        yield Segment(texts[0] + " " * _GAP)
        bar = ProgressBar(total=1.0, completed=self.done, width=min(room, most))
        drawn = list(bar.__rich_console__(console, options))
        yield from drawn
        if texts[1:]:
            missing = min(room, most) - sum(len(part.text) for part in drawn if isinstance(part, Segment))
            yield Segment(" " * (missing + _GAP) + (" " * _GAP).join(texts[1:]))

    def _fitting(self, columns: int) -> list[str]:
        """The first in rank always, others while there is room."""
        shown: set[int] = set()
        room = columns + _GAP
        ranked = sorted((rank, number) for number, (rank, text) in enumerate(self.parts) if text)
        for place, (_, number) in enumerate(ranked):
            needed = len(self.parts[number][1]) + _GAP
            if place == 0 or needed <= room:
                shown.add(number)
                room -= needed
        return [self.parts[number][1] for number in sorted(shown)]


@dataclass(frozen=True)
class Rows:
    """Several of them; those that have nothing to say are left out."""

    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines for rich."""
        for number, row in enumerate(row for row in self.rows if any(text for _, text in row.parts)):
            if number:
                yield Segment.line()
            yield row


class Screen:
    """Writes lines that stay, and draws a live part under them where that is possible.

    While something is drawn, what the program prints goes above it.

    Args:
        out: where lines go.

    Attributes:
        live: whether anything can be drawn: on a terminal that can go back to an earlier line.
    """

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self._console = _Terminal(out) if out.isatty() else None
        self.live = self._console is not None and not self._console.is_dumb_terminal
        self._drawn: Live | None = None

    def say(self, text: str) -> None:
        """Writes one line that stays."""
        if self._drawn is not None:
            self._drawn.console.out(text, highlight=False)
        else:
            self.out.write(text + "\n")
            self.out.flush()

    def draw(self, what: Row | Rows) -> None:
        """Draws this in place of what is drawn; does nothing where nothing can be drawn."""
        if not self.live:
            return
        if self._drawn is None:
            self._drawn = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                vertical_overflow="crop",
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            self._drawn.start()
        self._drawn.update(what, refresh=True)

    def clear(self) -> None:
        """Takes what is drawn away."""
        drawn, self._drawn = self._drawn, None
        if drawn is not None:
            drawn.stop()


class _Terminal(Console):
    """rich's console for what is a terminal."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(
            file=out,
            force_terminal=True,
            force_jupyter=False,
            soft_wrap=True,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def show_cursor(self, show: bool = True) -> bool:
        """Leaves it visible: a process that is killed could not bring it back."""
        return False

    def on_broken_pipe(self) -> None:
        """Lets the error through; rich would end the program."""
        raise


class Progress:
    """How far one thing after another is: a bar on a terminal, a plain line per quarter elsewhere.

    Args:
        out: where lines go.
        unit: puts a count into words.
        after: seconds until anything is shown: what is done sooner needs no line.
    """

    def __init__(self, out: TextIO, *, unit: Callable[[int], str] | None = None, after: float = 0.0) -> None:
        self.screen = Screen(out)
        self.unit = unit or megabytes
        self.after = after
        self._shown = 0.0
        self._quarter = 0
        self._done = 0
        self._began: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.screen.clear()

    def show(self, done: int, total: int | None) -> None:
        """Shows how far the current thing is; a lower count than before means that another has begun.

        Args:
            done: so much of it, such as bytes or images.
            total: in all; None while unknown.
        """
        now = time.monotonic()
        if self._began is None or done < self._done:
            self._quarter, self._began, self._first = 0, now, done
        self._done = done
        if now - self._began < self.after:
            return
        if self.screen.live:
            if now - self._shown > DRAWN or done == total:
                self._shown = now
                self.screen.draw(self._row(done, total, now - self._began))
        elif total and done * _QUARTERS // total > self._quarter:
            self._quarter = done * _QUARTERS // total
            self.screen.say(f"  {done / total:4.0%} of {self.unit(total)}")

    def _row(self, done: int, total: int | None, seconds: float) -> Row:
        if not total:
            return Row([(0, f"  {self.unit(done)}")])
        pace = (done - self._first) / seconds if seconds else 0.0
        left = f"{(total - done) / pace:.0f} s left" if pace else ""
        of = f"{self.unit(done)} of {self.unit(total)}"
        return Row([(0, f"  {done / total:4.0%}"), (1, of), (2, left)], done / total)


def megabytes(count: int) -> str:
    """Returns `5.5 MB` for 5,544,453 bytes."""
    return f"{count / 1e6:.1f} MB"
