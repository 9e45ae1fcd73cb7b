"""Writes what is known of a run into its health.jsonl and asks the rules about it."""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast.health.lines import short_advice
from holdfast.health.log import NAME, belonging, read
from holdfast.health.records import Facts, Finding, History, Record, Window, to_row
from holdfast.health.rules import examine
from holdfast.runs import JsonLog, write_json
from holdfast.train.checkpoint import Progress

WINDOWS = 100  # that rules see


class Recorder:
    """Records of a run, those of its earlier parts included.

    Args:
        folder: the run folder.
        facts: what the run is.
        epoch: epochs that are done.
        step: steps that are done.
        say: told when the file cannot be written, once for each cause.
    """

    def __init__(
        self, folder: Path, facts: Facts, *, epoch: int, step: int, say: Callable[[str], None]
    ) -> None:
        self.facts = facts
        self.say = say
        kept = belonging(read(folder / NAME), epoch=epoch, step=step)
        self._records: list[Record] = [r for r in kept if not isinstance(r, Window)]
        self._windows: deque[Record] = deque((r for r in kept if isinstance(r, Window)), maxlen=WINDOWS)
        self._said = {record.rule for record in kept if isinstance(record, Finding)}
        self._trouble = ""
        self._log = JsonLog(folder / NAME, map(to_row, kept))
        self.add(facts)

    def add(self, record: Record) -> None:
        """Adds one; a disk that refuses it stops nothing."""
        (self._windows if isinstance(record, Window) else self._records).append(record)
        try:
            self._log.append(to_row(record))
        except OSError as error:
            cause = error.strerror or str(error)
            if cause != self._trouble:
                self.say(
                    f"{self._log.path} cannot be written ({cause}); training goes on, and what is missing "
                    "comes with the next record"
                )
            self._trouble = cause
        else:
            self._trouble = ""

    def history(self) -> History:
        """All that is known."""
        return History.of([*self._records, *self._windows])

    def warnings(self) -> list[Finding]:
        """What the rules warn of and has not been said in this run; it is recorded as said."""
        new = [
            finding
            for finding in examine(self.history())
            if finding.level == "warning" and finding.rule not in self._said
        ]
        for finding in new:
            self._said.add(finding.rule)
            self.add(finding)
        return new

    def advise(self, folder: Path) -> list[str]:
        """Writes what the rules say of the whole run to advice.json; returns the lines that matter most."""
        found = examine(self.history())
        write_json(folder / "advice.json", {"findings": [to_row(finding) for finding in found]})
        return short_advice(found, folder)


def recorder_of(
    folder: Path,
    settings: Mapping[str, Any],
    manifest: Mapping[str, Any],
    progress: Progress,
    say: Callable[[str], None],
) -> Recorder:
    """The recorder of a run that starts or goes on here and now.

    Args:
        folder: the run folder.
        settings: of the run, as plain data.
        manifest: what manifest.json says.
        progress: where the run stands.
        say: told when records cannot be written.
    """
    facts = Facts.of(settings, manifest, started=time.time(), host=platform.node(), pid=os.getpid())
    return Recorder(folder, facts, epoch=progress.epoch, step=progress.step, say=say)
