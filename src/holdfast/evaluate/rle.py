"""Masks as COCO's compressed run lengths, in which thousands of them stay small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def of_pixels(mask: NDArray[Any]) -> str:
    """Run lengths of a mask (H, W)."""
    from faster_coco_eval.core import mask as coco

    return _text(coco.encode(np.asfortranarray(mask, dtype=np.uint8)))


def of_window(window: NDArray[np.bool_], top: int, left: int, height: int, width: int) -> str:
    """Run lengths of a mask (height, width) that is empty outside a window (h, w)."""
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    mask[top : top + window.shape[0], left : left + window.shape[1]] = window
    return of_pixels(mask)


def of_outline(points: NDArray[np.float32], height: int, width: int) -> str:
    """Run lengths of the inside of an outline (P, 2) in pixels, filled as pycocotools does."""
    from faster_coco_eval.core import mask as coco

    if len(points) < 3:
        return of_pixels(np.zeros((height, width), dtype=bool))
    flat = points.astype(np.float64).ravel().tolist()
    return _text(coco.merge(coco.frPyObjects([flat], height, width)))


def of_box(box: NDArray[np.float32], height: int, width: int) -> str:
    """Run lengths of a box (4,) xyxy, for objects that have no outline."""
    x1, y1, x2, y2 = box.tolist()
    return of_outline(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32), height, width)


def pixels(masks: Sequence[str], height: int, width: int) -> NDArray[np.bool_]:
    """Masks (n, height, width) of their run lengths."""
    from faster_coco_eval.core import mask as coco

    result = np.zeros((len(masks), height, width), dtype=bool)
    for row, counts in zip(result, masks, strict=True):
        row[...] = coco.decode({"size": [height, width], "counts": counts})
    return result


def _text(runs: Mapping[str, Any]) -> str:
    counts = runs["counts"]
    return str(counts, "ascii") if isinstance(counts, bytes) else str(counts)
