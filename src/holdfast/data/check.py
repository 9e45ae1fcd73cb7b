"""`holdfast check` as data: reads a data set as a run would, and lists what is wrong with it.

Nothing is written and nothing printed here. Findings come by level and then in the order in which they cost
accuracy: what cannot be read, what leaks, what is probably a slip, what is worth knowing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.data.boxes_check import SIZE_EDGES, box_facts
from holdfast.data.dataset_file import SPLITS, DatasetFile, read_dataset_file
from holdfast.data.duplicates import Progress
from holdfast.data.findings import (
    LEVELS,
    Finding,
    Level,
    Split,
    box_findings,
    class_counts,
    class_findings,
    image_findings,
    problem_findings,
)
from holdfast.data.pictures_check import PictureFacts, look_at_pictures, picture_findings
from holdfast.data.splits import split_index
from holdfast.errors import DataError
from holdfast.geometry.targets import Needs

NEEDED = ("train", "val")
_EXIT_CODES: dict[Level, int] = {"error": 2, "warning": 1, "note": 0}


@dataclass(frozen=True)
class Inspection:
    """What a check found.

    Attributes:
        source: what was checked, as given.
        dataset: the data file; None when it was refused.
        splits: the splits that can be read, in the order train, val, test.
        findings: by level, most important first.
        pictures: what only the pixels tell; None when they were not looked at.
    """

    source: str
    dataset: DatasetFile | None
    splits: Sequence[Split] = ()
    findings: Sequence[Finding] = ()
    pictures: PictureFacts | None = None

    @property
    def exit_code(self) -> int:
        """0: nothing wrong; 1: usable, with warnings; 2: cannot be trained on."""
        return max((_EXIT_CODES[finding.level] for finding in self.findings), default=0)

    @property
    def sizes(self) -> str:
        """`205 train, 87 val`: the images that a run would use."""
        return ", ".join(f"{self._usable(split):,} {split.name}" for split in self.splits)

    @property
    def verdict(self) -> str:
        """The outcome as a sentence."""
        if self.exit_code == 0:
            return f"Data OK: {self.sizes}"
        level = "error" if self.exit_code == 2 else "warning"
        number = sum(finding.level == level for finding in self.findings)
        kind = level + ("s" if number > 1 else "")
        if self.exit_code == 1:
            return f"Data usable, with {number} {kind} to look at: {self.sizes}"
        return f"Data cannot be trained on: {number} {kind}"

    def show(self, path: str) -> str:
        """A path as it is printed: below the data set's folder, whatever bytes it holds."""
        return shown(path, self.dataset)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        names = self.splits[0].index.names if self.splits else {}
        counts = {split.name: class_counts(split.index) for split in self.splits}
        return {
            "data": str(self.dataset.path if self.dataset else self.source),
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "splits": {split.name: self._split_dict(split) for split in self.splits},
            "classes": [
                {"class": number, "name": name, **{s: int(count[number]) for s, count in counts.items()}}
                for number, name in names.items()
            ],
            "findings": [
                {
                    "level": finding.level,
                    "kind": finding.kind,
                    "count": finding.count,
                    "splits": finding.counts,
                    "examples": finding.examples,
                    "remedy": finding.remedy,
                    "mendable": finding.mendable,
                }
                for finding in self.findings
            ],
            "leaks": [
                {
                    left.split: self.show(left.path(self.splits)),
                    right.split: self.show(right.path(self.splits)),
                    "same_file": pair.same_file,
                    "different_bits": pair.bits,
                }
                for left, right, pair in (self.pictures.leaks if self.pictures else ())
            ],
        }

    def _damaged(self, split: Split) -> int:
        return len(self.pictures.damaged[split.name]) if self.pictures else 0

    def _usable(self, split: Split) -> int:
        return len(split.index) - self._damaged(split)

    def _split_dict(self, split: Split) -> dict[str, Any]:
        small, medium, large = split.facts.area
        labels = [f"under {edge:.0%}" for edge in SIZE_EDGES] + [f"{SIZE_EDGES[-1]:.0%} and over"]
        return {
            "images": len(split.index),
            "images_left_out": split.index.problems.dropped_images,
            "images_damaged": self._damaged(split),
            "backgrounds": split.index.backgrounds,
            "boxes": len(split.index.boxes),
            "rows_left_out": split.index.problems.dropped_rows,
            "area": {"small": small, "medium": medium, "large": large},
            "side": dict(zip(labels, split.facts.sides, strict=True)),
        }


def inspect(
    source: Path | str,
    *,
    imgsz: int = 640,
    single_cls: bool = False,
    pictures: bool = True,
    workers: int = 8,
    progress: Progress = lambda done, total: None,
) -> Inspection:
    """Checks a data set.

    Args:
        source: the data file, its folder, or one of class folders.
        imgsz: input size at which boxes may become too small.
        single_cls: take every class for class 0.
        pictures: open every image to find damaged ones, duplicates and leaks.
        workers: threads.
        progress: is told how many images were opened, and how many there are.
    """
    try:
        dataset = read_dataset_file(source)
    except DataError as error:
        return Inspection(str(source), None, findings=[_error(error)])
    needs = Needs(whole=dataset.class_folders)
    splits: list[Split] = []
    findings: list[Finding] = []
    for name in SPLITS:
        if name not in NEEDED and name not in dataset.splits and name not in dataset.faults:
            continue
        try:
            index = split_index(dataset, name, needs=needs, single_cls=single_cls, workers=workers)
            splits.append(Split(name, index, box_facts(index, imgsz=imgsz)))
        except DataError as error:
            findings.append(_error(error) if name in NEEDED else _unusable(name, error))
    if not splits:
        return Inspection(str(source), dataset, findings=findings)

    def show(path: str) -> str:
        return shown(path, dataset)

    facts = look_at_pictures(splits, workers=workers, progress=progress) if pictures else None
    findings += problem_findings(splits, show)
    findings += picture_findings(facts, splits, show) if facts else []
    findings += [] if needs.whole else box_findings(splits, show, imgsz=imgsz)
    findings += class_findings(splits)
    findings += image_findings(splits, show)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Inspection(str(source), dataset, splits, findings, facts)


def shown(path: str, dataset: DatasetFile | None) -> str:
    """A path as it can be printed, relative to the data set's folder where it lies inside."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    folders = [dataset.root, dataset.path.parent] if dataset else []
    for folder in folders:
        if text.startswith(f"{folder}{os.sep}"):
            return text[len(str(folder)) + 1 :]
    return text


def _error(error: DataError) -> Finding:
    return Finding("error", error.message, {"all": 1}, [], error.hint)


def _unusable(name: str, error: DataError) -> Finding:
    kind = f"{name} split that cannot be used"
    return Finding("warning", kind, {name: 1}, [error.message], f"Training does not need it. {error.hint}")
