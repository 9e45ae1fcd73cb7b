"""Which detections of one image are right: greedy one-to-one matching as the COCO evaluator does it.

Detections choose in the order of falling score; each takes the free object of its class with the highest IoU
at or above the threshold. (Official YOLOv9 instead lets the highest IoU choose first; both give the same
counts in all but crowded scenes. We follow COCO so that precision and recall belong to the same matching as
AP.)

Dimensions: N detections, M objects of one image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from holdfast.geometry.iou import pairwise_iou

# An IoU that equals the threshold counts as a match, whatever the last bit of the division says.
SLACK = 1e-9


def as_array(values: Tensor | ArrayLike, kind: type[np.generic]) -> NDArray[Any]:
    """Returns a tensor or array as a numpy array of its own, so that the caller may reuse its buffer."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.array(values, dtype=kind)


def iou_matrix(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """IoU of every box with every other box, in double precision.

    Args:
        boxes: (N, 4) xyxy.
        others: (M, 4) xyxy.

    Returns:
        (N, M) in [0, 1].
    """
    a = torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float64))
    b = torch.from_numpy(np.ascontiguousarray(others, dtype=np.float64))
    result: NDArray[np.float64] = pairwise_iou(a, b).numpy()
    return result


def matches(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    truth_boxes: NDArray[np.float32],
    truth_classes: NDArray[np.int64],
    *,
    threshold: float = 0.5,
) -> NDArray[np.int64]:
    """Finds the object of its class that each detection matches.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,) confidence; ties keep their given order.
        classes: (N,) class index.
        truth_boxes: (M, 4) xyxy in the same pixels.
        truth_classes: (M,) class index.
        threshold: least IoU of a match.

    Returns:
        (N,) number of the object, -1 where there is none, in the given order of the detections.
    """
    return matches_by(iou_matrix(boxes, truth_boxes), scores, classes, truth_classes, threshold=threshold)


def matches_by(
    overlap: NDArray[np.float64],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    *,
    threshold: float = 0.5,
) -> NDArray[np.int64]:
    """The same for an overlap (N, M) of any kind."""
    taken = np.full(len(overlap), -1, dtype=np.int64)
    if not overlap.size:
        return taken
    free = np.where(classes[:, None] == truth_classes[None, :], overlap, 0.0)
    free[free < threshold - SLACK] = 0.0
    order = np.argsort(-scores, kind="stable")
    # Most rows have no candidate at all; the loop below only sees the few that have.
    order = order[free.max(axis=1)[order] > 0.0]
    for row in order:
        best = int(free[row].argmax())
        if free[row, best] > 0.0:
            taken[row] = best
            free[:, best] = 0.0
    return taken
