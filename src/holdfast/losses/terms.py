"""Terms of the detection loss, as sums over the assigned anchors: the caller divides.

Classification is binary cross-entropy with soft targets, written without a table of targets: for a logit x and a
target t it is softplus(x) - t x, and t is 0 almost everywhere. Boxes are CIoU (arXiv 1911.08287) and the distribution
focal loss (arXiv 2006.04388).

Dimensions: B images, C classes, R bins per side, P assigned anchors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from holdfast.geometry.iou import ciou


def background_bce(logits: Tensor) -> Tensor:
    """Sum of binary cross-entropy of all logits (any shape) against 0: the loss as if nothing were there."""
    return F.softplus(logits).sum()


def ciou_loss(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum of weight (P,) * (1 - CIoU) of xyxy boxes (P, 4)."""
    return ((1 - ciou(predicted, target)) * weight).sum()


def expected_distance(log_probability: Tensor) -> Tensor:
    """Mean of the distribution over distances 0..R-1: (..., R) -> (...)."""
    bins = torch.arange(log_probability.shape[-1], dtype=log_probability.dtype, device=log_probability.device)
    return log_probability.exp() @ bins


def distribution_focal_loss(log_probability: Tensor, distance: Tensor, weight: Tensor) -> Tensor:
    """Sum of weight (P,) * mean over the sides of the cross-entropy with the two bins around the distance.

    Args:
        log_probability: (P, 4, R) log-softmax over bins.
        distance: (P, 4) true distances in stride units; clamped to [0, R - 1.01], so that the right bin exists.
        weight: (P,).
    """
    distance = distance.clamp(0, log_probability.shape[-1] - 1.01)
    left = distance.long()
    share = distance - left
    near = log_probability.gather(-1, left.unsqueeze(-1)).squeeze(-1)
    far = log_probability.gather(-1, left.unsqueeze(-1) + 1).squeeze(-1)
    return -((near * (1 - share) + far * share).mean(-1) * weight).sum()
