"""`holdfast watch`: follows a run from another shell by reading its health.jsonl, or tells of a finished one.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from holdfast.console import Row, Rows, Screen
from holdfast.health.folder import history_of, locate
from holdfast.health.lines import epoch_line, live_parts, run_line
from holdfast.health.log import NAME, parse
from holdfast.health.records import Epoch, Event, Facts, Finding, Record, Window
from holdfast.settings import WatchSettings


def run_watch(settings: WatchSettings, *, out: TextIO | None = None) -> None:
    """Runs `holdfast watch`, until the run ends or its process is gone.

    Args:
        settings: which run, and how.
        out: where lines go; standard output by default.

    Raises:
        SettingsError: there is no such run.
    """
    folder = locate(settings.run, Path(settings.project))
    screen = Screen(out or sys.stdout)
    teller = Teller(screen, last=settings.last)
    history = history_of(folder)
    screen.say(f"{folder}: {run_line(history)}")
    if not (folder / NAME).is_file():
        teller.show([history.facts, *history.epochs])
        screen.clear()
        screen.say(f"there is no {NAME}, so this is what results.csv says")
        return
    file = Follower(folder / NAME)
    try:
        while True:
            gone = is_gone(teller.facts)
            teller.show(file.fresh())
            if teller.ended or settings.once:
                break
            if gone:
                screen.say(
                    f"the process that trained ({teller.facts.pid}) is gone without a word; to go on: "
                    f"holdfast resume {folder}"
                )
                break
            time.sleep(settings.every)
    except KeyboardInterrupt:  # the usual way to end it; the run goes on
        pass
    finally:
        screen.clear()


class Follower:
    """Reads a file of JSON lines as it grows; from its beginning again where a resumed run has replaced it.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = (0, 0)  # device and number
        self._at = 0

    def fresh(self) -> list[Record]:
        """The whole lines that were added since the last call."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                known = (status.st_dev, status.st_ino)
                if known != self._file or status.st_size < self._at:
                    self._file, self._at = known, 0
                file.seek(self._at)
                text = file.read()
        except OSError:  # moved, or being replaced
            return []
        whole = text.rfind(b"\n") + 1
        self._at += whole
        return parse(text[:whole].split(b"\n"))


class Teller:
    """Tells each record once, as plain lines, and draws the epoch under way where that is possible.

    Args:
        screen: where lines go.
        last: epochs that are told of those that were there at the beginning.

    Attributes:
        facts: of the latest start of the run.
        ended: whether the run has said that it ended, and has not started again.
    """

    def __init__(self, screen: Screen, *, last: int) -> None:
        self.screen = screen
        self.last = last
        self.facts = Facts()
        self.ended = False
        self._from: int | None = None  # first epoch that is told
        self._epoch, self._time = 0, 0.0  # of the latest that was shown
        self._rules: set[str] = set()
        self._window: Window | None = None
        self._scored: Epoch | None = None

    def show(self, records: Sequence[Record]) -> None:
        """Shows what is new in records."""
        epochs = [record.epoch for record in records if isinstance(record, Epoch)]
        if self._from is None and records:
            self._from = epochs[-self.last] if len(epochs) > self.last else 0
            if self._from > 1:
                self.screen.say(f"... {self._from - 1} epochs before")
        for record in records:
            self._show(record, self._from or 0)
        if self.ended:
            self.screen.clear()
        else:
            self._draw()

    def _draw(self) -> None:
        facts, window = self.facts, self._window
        if window is None or window.epoch <= self._epoch:  # nothing is known of the epoch under way
            window = Window(epoch=self._epoch + 1, step=0, done=0, steps=0, time=0.0)
        if window.epoch > facts.epochs:
            return
        left = time_left(window, facts)
        first, *others = live_parts(
            window, epochs=facts.epochs, planned=facts.planned, left=left, scored=self._scored
        )
        done = window.done / window.steps if window.steps else 0.0
        self.screen.draw(Rows([Row(first, done), *map(Row, others)]))

    def _show(self, record: Record, first: int) -> None:
        if isinstance(record, Facts):
            self.facts, self.ended = record, False
        elif isinstance(record, Epoch) and record.epoch > self._epoch:
            self._epoch = record.epoch
            self._scored = record if record.metrics else self._scored
            if record.epoch >= first:
                self.screen.say(epoch_line(record, self.facts.epochs, self.facts.planned))
        elif isinstance(record, Finding) and record.rule not in self._rules:
            self._rules.add(record.rule)
            self.screen.say(record.line())
        elif isinstance(record, Event):
            self.ended = record.what == "end"
            if record.time > self._time:
                self._time = record.time
                if record.epoch >= first:
                    where = "ended" if self.ended else f"step {record.step}"
                    self.screen.say(f"{where}: {record.text}")
        elif isinstance(record, Window):
            self._window = record


def time_left(window: Window, facts: Facts) -> tuple[float, float] | None:
    """Seconds until the end of the epoch and of the run at the speed of the window; None while unknown."""
    if window.images_per_second <= 0:
        return None
    step = facts.batch / window.images_per_second
    rest = window.steps - window.done
    return rest * step, (rest + (facts.epochs - window.epoch) * window.steps) * step


def is_gone(facts: Facts) -> bool:
    """Whether the process of a run was on this machine and is not there any more."""
    if not facts.pid or facts.host != platform.node():
        return False
    import psutil

    try:
        process = psutil.Process(facts.pid)
        another = process.create_time() > facts.started  # which has got its number
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
