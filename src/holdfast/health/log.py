"""Reading health.jsonl: one record per line. What is no whole line is skipped, so a reader may look while a
run writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from holdfast.health.records import Breakdown, Epoch, Event, Facts, Finding, Record, Window, from_row

NAME = "health.jsonl"


def read(path: Path) -> list[Record]:
    """The records of a file; none where there is no file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return parse(lines)


def parse(lines: Iterable[bytes]) -> list[Record]:
    """The records of whole lines; others are left out."""
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # empty, cut short by a full disk or by a kill, or being written
            continue
        record = from_row(row) if isinstance(row, dict) else None
        if record is not None:
            found.append(record)
    return found


def belonging(records: Iterable[Record], *, epoch: int, step: int) -> list[Record]:
    """The records of what a resumed run does not do again.

    Args:
        epoch: epochs that are done.
        step: steps that are done.
    """
    return [record for record in records if _belongs(record, epoch, step)]


def _belongs(record: Record, epoch: int, step: int) -> bool:
    if isinstance(record, Facts | Breakdown):
        return step > 0
    if isinstance(record, Epoch | Finding):
        return record.epoch <= epoch
    assert isinstance(record, Event | Window)
    return record.step <= step and step > 0
