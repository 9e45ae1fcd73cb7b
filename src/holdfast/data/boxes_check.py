"""Boxes that are probably not what the labeller meant: doubles, whole images, slivers, specks.

Dimensions: N images, M boxes of a split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.data.index import Index

DOUBLE_IOU = 0.95
WHOLE_SHARE = 0.95  # of the image's area
LONG_ASPECT = 20.0  # longer side over shorter side, in pixels
SPECK = 3.0  # pixels at the input size, shorter side
_ROWS = 1024  # boxes compared with all others of their image at once

SIZE_EDGES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)  # side of a box as a part of the image's
SMALL_AREA, MEDIUM_AREA = 32.0**2, 96.0**2  # COCO's limits, in pixels of the image


@dataclass(frozen=True)
class BoxFacts:
    """What is known about the boxes of a split.

    Attributes:
        image: (M,) the image each is on.
        area: how many are small, medium and large by COCO's limits, in original pixels.
        sides: how many have a side (root of the area share) below each of SIZE_EDGES, and above the last.
        doubles: (K, 2) box numbers on one image with one class and IoU above DOUBLE_IOU, the earlier first.
        rivals: (K, 2) the same with different classes.
        whole: box numbers that cover nearly all of their image.
        long: box numbers with an extreme aspect.
        specks: box numbers with under SPECK pixels at the input size.
    """

    image: npt.NDArray[np.int64]
    area: tuple[int, int, int]
    sides: tuple[int, ...]
    doubles: npt.NDArray[np.int64]
    rivals: npt.NDArray[np.int64]
    whole: npt.NDArray[np.int64]
    long: npt.NDArray[np.int64]
    specks: npt.NDArray[np.int64]


def box_facts(index: Index, *, imgsz: int) -> BoxFacts:
    """Looks at every box of a split.

    Args:
        index: the split.
        imgsz: input size at which boxes may become too small; images are scaled to fit, as letterboxing does.
    """
    image = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    sizes = index.sizes[image].astype(np.float64)
    width, height = index.boxes[:, 2] * sizes[:, 1], index.boxes[:, 3] * sizes[:, 0]
    shorter = np.minimum(width, height)
    share = index.boxes[:, 2].astype(np.float64) * index.boxes[:, 3]
    area, sides = size_counts(index)
    scale = imgsz / sizes.max(axis=1, initial=1)
    pairs = _doubles(index)
    same = index.classes[pairs[:, 0]] == index.classes[pairs[:, 1]]
    return BoxFacts(
        image=image,
        area=area,
        sides=sides,
        doubles=pairs[same],
        rivals=pairs[~same],
        whole=np.flatnonzero(share > WHOLE_SHARE),
        long=np.flatnonzero(np.maximum(width, height) > LONG_ASPECT * shorter),
        specks=np.flatnonzero(shorter * scale < SPECK),
    )


def size_counts(index: Index) -> tuple[tuple[int, int, int], tuple[int, ...]]:
    """How many boxes are small, medium and large, and how many have which side: see `BoxFacts`."""
    image = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    pixels = index.sizes[image].astype(np.float64).prod(axis=1)
    share = index.boxes[:, 2].astype(np.float64) * index.boxes[:, 3]
    counts = np.bincount(np.digitize(share * pixels, (SMALL_AREA, MEDIUM_AREA)), minlength=3)
    sides = np.bincount(np.digitize(np.sqrt(share), SIZE_EDGES), minlength=len(SIZE_EDGES) + 1)
    return (int(counts[0]), int(counts[1]), int(counts[2])), tuple(sides.tolist())


def _doubles(index: Index) -> npt.NDArray[np.int64]:
    """Pairs (K, 2) of boxes on one image with IoU above DOUBLE_IOU."""
    half = index.boxes[:, 2:].astype(np.float64) / 2
    corners = np.concatenate([index.boxes[:, :2] - half, index.boxes[:, :2] + half], axis=1)
    found = [np.zeros((0, 2), np.int64)]
    for i in np.flatnonzero(np.diff(index.offsets) > 1):
        start, stop = int(index.offsets[i]), int(index.offsets[i + 1])
        for row in range(start, stop, _ROWS):
            rows = corners[row : min(row + _ROWS, stop)]
            left, right = np.nonzero(_iou(rows, corners[row:stop]) > DOUBLE_IOU)
            later = right > left
            if later.any():
                found.append(np.stack([left[later], right[later]], axis=1) + row)
    return np.concatenate(found)


def _iou(rows: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low = np.maximum(rows[:, None, :2], others[None, :, :2])
    high = np.minimum(rows[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0.0), axis=2)
    mine, theirs = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (rows, others))
    return np.asarray(shared / np.maximum(mine[:, None] + theirs[None] - shared, 1e-12))
