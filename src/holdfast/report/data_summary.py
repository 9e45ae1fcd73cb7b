"""data.json: what the data set of a run holds, for its report: counts, class balance, sizes, what is left
out.

Dimensions: M boxes of a split.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.data.boxes_check import size_counts
from holdfast.data.index import Index
from holdfast.data.problems import REMEDIES
from holdfast.report.run_folder import DATA
from holdfast.runs import write_json


def write_summary(folder: Path, splits: Mapping[str, Index], names: Mapping[int, str]) -> Path:
    """Writes data.json and returns its path.

    Args:
        folder: the run folder.
        splits: name of a split to its images.
        names: class index to name.
    """
    path = folder / DATA
    found = {name: split_summary(index, names) for name, index in splits.items()}
    write_json(path, {"names": [names[number] for number in sorted(names)], "splits": found})
    return path


def split_summary(index: Index, names: Mapping[int, str]) -> dict[str, Any]:
    """What a split holds, as plain data; lists of classes are in the order of their numbers."""
    area, sides = size_counts(index)
    problems = index.problems
    return {
        "images": len(index),
        "images left out": problems.dropped_images,
        "images without boxes": index.backgrounds,
        "boxes": len(index.boxes),
        "label rows left out": problems.dropped_rows,
        "classes": np.bincount(index.classes, minlength=max(names, default=-1) + 1)[sorted(names)].tolist(),
        "areas": list(area),
        "sides": list(sides),
        "problems": [
            {"reason": reason, "count": count, "examples": problems.examples.get(reason, []),
             "remedy": REMEDIES.get(reason, "")}
            for reason, count in sorted(problems.counts.items(), key=lambda item: -item[1])
        ],
    }  # fmt: skip
