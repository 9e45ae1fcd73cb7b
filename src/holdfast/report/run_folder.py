"""All that a run folder tells, as far as it is there: files may be missing, cut short, or still to come."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from holdfast.errors import DataError
from holdfast.health.folder import history_of
from holdfast.health.log import NAME, read
from holdfast.health.records import Epoch, Event, Facts, History, Number, Record
from holdfast.report.table import Columns, read_results

DATA = "data.json"  # what the data set holds
EXAMPLES = "examples"  # folder of pictures from the last validation
EXAMPLES_LIST = "examples.json"  # in that folder: what they show
INCIDENTS = "incidents"  # folder of notes on lost processes


@dataclass(frozen=True)
class RunFolder:
    """What is known of a run.

    Attributes:
        path: the folder.
        args: settings, by key; empty where args.yaml is missing. So are the others.
        manifest: facts and plan of its latest start.
        results: of the validation of its best weights.
        table: of its epochs.
        history: of its health; made from the table where there is no health.jsonl.
        starts: epochs that were done when it was started again.
        end: how its last part ended: `finished`, or what ended it; empty where it has not, or was killed.
        quarantine: images at fault, rows of quarantine.csv.
        data: what the data set holds, by split.
        examples: groups of pictures of the last validation.
        incidents: name and text of each note.
    """

    path: Path
    args: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    table: Columns = field(default_factory=dict)
    history: History = field(default_factory=lambda: History(facts=Facts()))
    starts: tuple[int, ...] = ()
    end: str = ""
    quarantine: tuple[Mapping[str, str], ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)
    incidents: tuple[tuple[str, str], ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.results) and self.end in ("", "finished")

    def file(self, name: str) -> Path | None:
        """The path of a file of the folder, or None where there is none."""
        path = self.path / name
        return path if path.is_file() else None

    @property
    def span(self) -> tuple[float, float]:
        """First and last epoch with a record; 1 and 1 where there is none."""
        numbers = [epoch.epoch for epoch in self.history.epochs]
        return float(min(numbers, default=1)), float(max(numbers, default=1))

    @property
    def epochs(self) -> NDArray[np.float64]:
        """(E,) every epoch from the first to the last with a record."""
        return np.arange(self.span[0], self.span[1] + 1) if self.history.epochs else np.zeros(0)

    def series(self, get: Callable[[Epoch], Number]) -> NDArray[np.float64]:
        """(E,) a number of each epoch, NaN where it is unknown or not finite."""
        values = np.full(len(self.epochs), np.nan)
        for epoch in self.history.epochs:
            value = get(epoch)
            values[epoch.epoch - int(self.span[0])] = np.nan if value is None else value
        values[~np.isfinite(values)] = np.nan
        return values


def read_run(folder: Path) -> RunFolder:
    """Reads a run folder; what is missing or cannot be read stays empty."""
    try:
        table = read_results(folder / "results.csv")
    except DataError:
        table = {}
    records = read(folder / NAME)
    return RunFolder(
        path=folder,
        args=_mapping(folder / "args.yaml"),
        manifest=_mapping(folder / "manifest.json"),
        results=_mapping(folder / "results.json"),
        table=table,
        history=history_of(folder),
        starts=_starts(records),
        end=_end(records),
        quarantine=_rows(folder / "quarantine.csv"),
        data=_mapping(folder / DATA),
        examples=_mapping(folder / EXAMPLES / EXAMPLES_LIST),
        incidents=tuple((path.name, _text(path)) for path in sorted((folder / INCIDENTS).glob("*.md"))),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(_text(path)) if path.suffix == ".json" else yaml.safe_load(_text(path))
    except (ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _rows(path: Path) -> tuple[Mapping[str, str], ...]:
    lines = _text(path).replace("\0", "").splitlines()
    return tuple({str(key): str(value) for key, value in row.items()} for row in csv.DictReader(lines))


def _starts(records: list[Record]) -> tuple[int, ...]:
    """Epochs that were done at each start but the first."""
    found, done = [], 0
    for record in records:
        if isinstance(record, Epoch):
            done = record.epoch
        elif isinstance(record, Facts):
            found.append(done)
    return tuple(dict.fromkeys(found[1:]))


def _end(records: list[Record]) -> str:
    found = ""
    for record in records:
        if isinstance(record, Event) and record.what == "end":
            found = "finished" if record.facts.get("done") else record.text
        elif isinstance(record, Facts):
            found = ""
    return found
