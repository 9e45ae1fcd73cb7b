"""Overlap of boxes: IoU and its GIoU, DIoU and CIoU relatives.

Sources: GIoU arXiv 1902.09630, DIoU and CIoU arXiv 1911.08287. The epsilons follow published detectors,
because trained networks and golden numbers depend on them: 1e-7 goes into heights (not widths), union and
enclosing measures. `pairwise_iou` is the measure of evaluation (epsilon in the denominator only).

A box that takes part in many pairs is prepared once (`box_parts`): area and aspect angle are then not
recomputed per pair, which is most of the cost of CIoU.

Dimensions: N, M boxes; "..." any broadcastable leading dimensions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_EPS = 1e-7
_ASPECT = 4 / math.pi**2


class BoxParts(NamedTuple):
    """Corners of boxes (xyxy) with what CIoU needs per box; every field has the same shape (...)."""

    x1: Tensor
    y1: Tensor
    x2: Tensor
    y2: Tensor
    area: Tensor
    angle: Tensor

    def take(self, index: Tensor) -> BoxParts:
        """Returns the parts of the boxes at `index`, an integer tensor of any shape (fields must be 1-D)."""
        return BoxParts(*(field.index_select(0, index.reshape(-1)).view(index.shape) for field in self))

    def column(self) -> BoxParts:
        """Returns the parts with a trailing dimension of one, to be broadcast against rows of other boxes."""
        return BoxParts(*(field.unsqueeze(-1) for field in self))


def box_parts(boxes: Tensor) -> BoxParts:
    """Prepares xyxy boxes (..., 4) for `ciou_of_parts`."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    w, h = x2 - x1, y2 - y1 + _EPS
    return BoxParts(x1, y1, x2, y2, w * h, torch.atan(w / h))


def ciou_of_parts(a: BoxParts, b: BoxParts) -> Tensor:
    """CIoU of prepared boxes, broadcasting; see `ciou`."""
    inter = _span(a.x1, a.x2, b.x1, b.x2).clamp_(min=0) * _span(a.y1, a.y2, b.y1, b.y2).clamp_(min=0)
    iou = inter / (a.area + b.area - inter + _EPS)
    v = _ASPECT * (b.angle - a.angle) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + (1 + _EPS))
    return iou - _centre_penalty(a, b) - alpha * v


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (N, M), in [0, 1], of all xyxy boxes of a (N, 4) with all of b (M, 4); 0 for empty boxes."""
    ax1, ay1, ax2, ay2 = a.unsqueeze(1).unbind(-1)  # (N, 1)
    bx1, by1, bx2, by2 = b.unsqueeze(0).unbind(-1)  # (1, M)
    inter = _span(ax1, ax2, bx1, bx2).clamp_(min=0) * _span(ay1, ay2, by1, by2).clamp_(min=0)
    return inter / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter + _EPS)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (...) of xyxy boxes a and b (..., 4), in [0, 1]."""
    inter, union = _inter_union(a, b)
    return inter / union


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (...) of xyxy boxes (..., 4), in (-1, 1]: IoU less the empty part of the hull."""
    inter, union = _inter_union(a, b)
    hull = (
        _hull(a[..., 0], a[..., 2], b[..., 0], b[..., 2]) * _hull(a[..., 1], a[..., 3], b[..., 1], b[..., 3])
        + _EPS
    )
    return inter / union - (hull - union) / hull


def diou(a: Tensor, b: Tensor) -> Tensor:
    """Distance IoU (...) of xyxy boxes a and b (..., 4), in (-1, 1]: IoU less the squared centre distance."""
    inter, union = _inter_union(a, b)
    return inter / union - _centre_penalty(box_parts(a), box_parts(b))


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU (...) of xyxy boxes a and b (..., 4), in (-2, 1].

    IoU less squared centre distance (relative to the hull's diagonal) less aspect-ratio difference. The
    weight of the aspect term is held constant in the backward pass. Finite, gradient included, for empty and
    inverted boxes.
    """
    return ciou_of_parts(box_parts(a), box_parts(b))


def _span(a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    return torch.minimum(a2, b2) - torch.maximum(a1, b1)


def _hull(a1: Tensor, a2: Tensor, b1: Tensor, b2: Tensor) -> Tensor:
    return torch.maximum(a2, b2) - torch.minimum(a1, b1)


def _centre_penalty(a: BoxParts, b: BoxParts) -> Tensor:
    diagonal = _hull(a.x1, a.x2, b.x1, b.x2) ** 2 + _hull(a.y1, a.y2, b.y1, b.y2) ** 2 + _EPS
    dx, dy = b.x1 + b.x2 - a.x1 - a.x2, b.y1 + b.y2 - a.y1 - a.y2
    return (dx**2 + dy**2) / (4 * diagonal)


def _inter_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    inter = _span(ax1, ax2, bx1, bx2).clamp_(min=0) * _span(ay1, ay2, by1, by2).clamp_(min=0)
    union = (ax2 - ax1) * (ay2 - ay1 + _EPS) + (bx2 - bx1) * (by2 - by1 + _EPS) - inter + _EPS
    return inter, union
