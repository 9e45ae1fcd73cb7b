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
    from faster_coco_eval.core import mask as coco

    # Runs go down the columns: where each begins and ends, counted over the whole mask.
    edges = np.diff(window.astype(np.int8), axis=0, prepend=0, append=0).T
    columns, starts = np.nonzero(edges == 1)
    begins = (columns + left) * height + top + starts
    columns, ends = np.nonzero(edges == -1)
    stops = (columns + left) * height + top + ends
    apart = stops[:-1] != begins[1:]  # a run may go on at the top of the next column
    begins, stops = begins[np.append(True, apart)[: len(begins)]], stops[np.append(apart, True)[: len(stops)]]
    places = np.stack([begins, stops], axis=1).ravel()
    counts = np.diff(places, prepend=0, append=height * width).tolist()
    if len(counts) > 1 and counts[-1] == 0:
        counts.pop()
    return _text(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width))


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
