"""`holdfast watch`: follows a run from another shell by reading its health.jsonl, or tells of a finished one.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from holdfast.health.folder import history_of, locate
from holdfast.health.lines import epoch_line, live_line, run_line
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
    screen = Screen(out or sys.stdout, last=settings.last)
    history = history_of(folder)
    screen.say(f"{folder}: {run_line(history)}")
    if not (folder / NAME).is_file():
        screen.show([history.facts, *history.epochs])
        screen.say(f"there is no {NAME}, so this is what results.csv says")
        return
    file = Follower(folder / NAME)
    try:
        while True:
            gone = is_gone(screen.facts)
            screen.show(file.fresh())
            if screen.ended or settings.once:
                break
            if gone:
                screen.say(
                    f"the process that trained ({screen.facts.pid}) is gone without a word; to go on: "
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


class Screen:
    """Shows each record once, as plain lines, and on a terminal a live line under them.

    Args:
        out: where lines go.
        last: epochs that are told of those that were there at the beginning.

    Attributes:
        facts: of the latest start of the run.
        ended: whether the run has said that it ended, and has not started again.
    """

    def __init__(self, out: TextIO, *, last: int) -> None:
        self.out = out
        self.last = last
        self.live = out.isatty() and os.environ.get("TERM") != "dumb"
        self.facts = Facts()
        self.ended = False
        self._from: int | None = None  # first epoch that is told
        self._epoch, self._time = 0, 0.0  # of the latest that was shown
        self._rules: set[str] = set()

    def show(self, records: Sequence[Record]) -> None:
        """Shows what is new in records."""
        epochs = [record.epoch for record in records if isinstance(record, Epoch)]
        if self._from is None and records:
            self._from = epochs[-self.last] if len(epochs) > self.last else 0
            if self._from > 1:
                self.say(f"... {self._from - 1} epochs before")
        for record in records:
            self._show(record, self._from or 0)
        windows = [record for record in records if isinstance(record, Window)]
        if self.live and not self.ended and windows and windows[-1].epoch > self._epoch:
            columns = max(shutil.get_terminal_size().columns - 1, 1)
            facts, window = self.facts, windows[-1]
            left = time_left(window, facts)
            self._write("\r\x1b[K" + live_line(window, facts.epochs, facts.planned, left, columns))

    def say(self, text: str) -> None:
        """Writes one line that stays."""
        self.clear()
        self._write(text + "\n")

    def clear(self) -> None:
        """Takes the live line away."""
        if self.live:
            self._write("\r\x1b[K")

    def _show(self, record: Record, first: int) -> None:
        if isinstance(record, Facts):
            self.facts, self.ended = record, False
        elif isinstance(record, Epoch) and record.epoch > self._epoch:
            self._epoch = record.epoch
            if record.epoch >= first:
                self.say(epoch_line(record, self.facts.epochs, self.facts.planned))
        elif isinstance(record, Finding) and record.rule not in self._rules:
            self._rules.add(record.rule)
            self.say(record.line())
        elif isinstance(record, Event):
            self.ended = record.what == "end"
            if record.time > self._time:
                self._time = record.time
                if record.epoch >= first:
                    self.say(f"ended: {record.text}" if self.ended else f"step {record.step}: {record.text}")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def time_left(window: Window, facts: Facts) -> float | None:
    """Seconds until the end of a run at the speed of the window; None while that is not known."""
    if window.images_per_second <= 0:
        return None
    steps = window.steps - window.done + (facts.epochs - window.epoch) * window.steps
    return steps * facts.batch / window.images_per_second


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
