"""Terms of the detection loss, as sums over the assigned anchors: the caller divides.

Classification is binary cross-entropy with soft targets, written without a table of targets: for a logit x
and a target t it is softplus(x) - t x, and t is 0 almost everywhere. Boxes are CIoU (arXiv 1911.08287) and
the distribution focal loss (arXiv 2006.04388).

Two functions carry their own backward pass: autograd would build one full-size map of zeros per gather and
add them up, which costs more than the loss itself.

Dimensions: B images, C classes, K channels, R bins per side, P assigned anchors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from holdfast.geometry.iou import ciou
from holdfast.losses.maps import columns, flat, flat_index, is_channels_last


def soft_bce(
    logits: Tensor, image: Tensor, cell: Tensor, classes: Tensor, score: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """Sum, in float32, of binary cross-entropy over a whole map of logits.

    Args:
        logits: (B, C, H, W), any float dtype.
        image, cell, classes: (P,) int64, where the targets are not 0; cells are row-major, no (image, cell)
            twice.
        score: (P,) float32, the targets there.
        smoothing: share of each target spread evenly over all classes of its cell.
    """
    total: Tensor = _SoftBce.apply(logits, image, cell, classes, score, smoothing)  # type: ignore[no-untyped-call]
    return total


def take_columns(maps: Tensor, image: Tensor, cell: Tensor) -> Tensor:
    """Channels (P, K), float32, of maps (B, K, H, W) at cells (row-major, no (image, cell) twice)."""
    columns: Tensor = _TakeColumns.apply(maps, image, cell)  # type: ignore[no-untyped-call]
    return columns


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
        distance: (P, 4) true distances in stride units; clamped to [0, R - 1.01], so that the right bin
            exists.
        weight: (P,).
    """
    distance = distance.clamp(0, log_probability.shape[-1] - 1.01)
    left = distance.long()
    share = distance - left
    near, far = log_probability.gather(-1, torch.stack((left, left + 1), -1)).unbind(-1)
    return -((near + (far - near) * share).mean(-1) * weight).sum()


def distance_loss(difference: Tensor, weight: Tensor) -> Tensor:
    """Sum of weight (P,) * mean over the sides of absolute differences of distances (P, 4)."""
    return (difference.abs().mean(-1) * weight).sum()


class _SoftBce(Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        image: Tensor,
        cell: Tensor,
        classes: Tensor,
        score: Tensor,
        smoothing: float,
    ) -> Tensor:
        ctx.save_for_backward(logits, image, cell, classes, score)
        ctx.smoothing = smoothing
        flat = logits.flatten(2)
        own = logits.to(torch.float32, copy=True)
        F.softplus(own, out=own)  # type: ignore[call-arg]
        total = own.sum() - (flat[image, classes, cell].float() * score).sum() * (
            1 - smoothing
        )
        if smoothing:
            total = total - (flat[image, :, cell].float().mean(1) * score).sum() * smoothing
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, image, cell, classes, score = ctx.saved_tensors
        slope = logits.to(torch.float32, copy=True).sigmoid_()
        flat(slope).index_add_(0, flat_index(slope, image, classes, cell), score, alpha=ctx.smoothing - 1)
        if ctx.smoothing:
            slope.flatten(2)[image, :, cell] -= (score * (ctx.smoothing / slope.shape[1])).unsqueeze(1)
        return slope.mul_(grad).to(logits.dtype), None, None, None, None, None


class _TakeColumns(Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, image: Tensor, cell: Tensor) -> Tensor:
        ctx.save_for_backward(image, cell)
        ctx.shape, ctx.dtype = maps.shape, maps.dtype
        ctx.last = is_channels_last(maps)
        return columns(maps, image, cell).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        image, cell = ctx.saved_tensors
        layout = torch.channels_last if ctx.last else torch.contiguous_format
        full = torch.empty(ctx.shape, dtype=ctx.dtype, device=grad.device, memory_format=layout).zero_()
        full.flatten(2)[image, :, cell] = grad.to(full.dtype)
        return full, None, None
