"""Detections as COCO result rows: the file that pycocotools and evaluation servers read.

Rounding (boxes to 3 decimals, scores to 5) is what published numbers were computed from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# COCO's 80 detection classes keep the ids of the original list of 91.
COCO_CATEGORY_IDS = (
    *range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70,
    *range(72, 83), *range(84, 91),
)  # fmt: skip


def image_key(path: str | Path) -> int | str:
    """Returns the image id COCO expects: the file name without suffix, as a number when it is one."""
    stem = Path(path).stem
    return int(stem) if stem.isascii() and stem.isdigit() else stem


def result_rows(
    image_id: int | str, detections: NDArray[np.float32], category_ids: Mapping[int, int] | None = None
) -> list[dict[str, Any]]:
    """Turns the detections of one image into result rows.

    Args:
        image_id: the id used in the annotation file.
        detections: (n, 6) xyxy in pixels of the original image, score, class.
        category_ids: class index to category id; the class index itself when absent.

    Returns:
        n rows with image_id, category_id, bbox (x, y, width, height) and score.
    """
    boxes = detections[:, :4].astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(boxes.tolist(), detections[:, 4].tolist(), detections[:, 5].astype(int).tolist(), strict=True)
    return [
        {
            "image_id": image_id,
            "category_id": c if category_ids is None else category_ids[c],
            "bbox": [round(value, 3) for value in box],
            "score": round(score, 5),
        }
        for box, score, c in rows
    ]


def write_results(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes the rows as one JSON list, one row per line, without holding them all; returns their number."""
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        file.write("[")
        for row in rows:
            file.write("\n" if count == 0 else ",\n")
            file.write(json.dumps(row, separators=(",", ":")))
            count += 1
        file.write("\n]\n" if count else "]\n")
    return count
