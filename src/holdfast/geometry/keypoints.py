"""Keypoints: x, y and, for ground truth, whether labelled; and how alike two sets of them are.

Dimensions: K keypoints; "..." any broadcastable leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
    0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""Spread of human annotations of each of the 17 keypoints of COCO, as a share of the object's size."""

BOX_TO_OBJECT = 0.53  # area of a person as a share of that of its box, where outlines are not at hand
_EPS = 1e-9


def keypoint_sigmas(keypoints: tuple[int, int]) -> tuple[float, ...]:
    """Spreads to assume for (K, numbers per keypoint): those of COCO for its own shape, else 1 / K each."""
    count, _ = keypoints
    return COCO_SIGMAS if keypoints == (len(COCO_SIGMAS), 3) else (1 / count,) * count


def keypoint_errors(points: Tensor, truth: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """Squared distances (..., K) in units of what counts as one: d^2 / (2 (2 sigma)^2 area).

    Args:
        points, truth: (..., K, 2 or more), x and y first.
        area: (...) of the object, in the square of the points' unit.
        sigmas: (K,).
    """
    squared = (points[..., :2] - truth[..., :2]).square().sum(-1)
    return squared / ((2 * sigmas).square() * (area.unsqueeze(-1) + _EPS) * 2)


def object_keypoint_similarity(points: Tensor, truth: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """OKS (...), in [0, 1]: the mean of exp(-error) over labelled keypoints; 0 where none is.

    Args:
        points: (..., K, 2 or more) found.
        truth: (..., K, 3) x, y, and 0 where not labelled.
        area: (...) of the true object.
        sigmas: (K,).
    """
    labelled = (truth[..., 2] != 0).to(points.dtype)
    alike = torch.exp(-keypoint_errors(points, truth, area, sigmas)) * labelled
    return alike.sum(-1) / (labelled.sum(-1) + _EPS)
