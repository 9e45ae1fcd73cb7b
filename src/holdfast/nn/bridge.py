"""Bridges between two backbones: CBLinear offers a map to several levels, `cb_fuse` gathers them.

The gathering sums coarse to fine: because every level is twice the size of the next, resizing the running sum
by two at each level equals resizing every map to the finest size, at a fraction of the work.

Dimensions: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.nn.recompute import thrifty


class CBLinear(nn.Module):
    """Plain 1x1 convolution with bias, no batch norm, no activation; its output is cut into `widths`.

    Maps (B, c1, H, W) to a tuple of (B, widths[i], H, W).
    """

    def __init__(self, c1: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.conv = nn.Conv2d(c1, sum(widths), 1, bias=True)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(thrifty(self.conv, x), list(self.widths), 1)


def cb_fuse(x: Tensor, offers: Sequence[Tensor]) -> Tensor:
    """Adds to `x` every offer, nearest-resized to its size.

    Args:
        x: (B, C, H, W), overwritten.
        offers: maps (B, C, h, w), finest first, each size dividing the one before; the first may have
            `x`'s size.

    Returns:
        (B, C, H, W).
    """
    total: Tensor | None = None
    for offer in reversed(offers):
        total = offer if total is None else _resized(total, offer).add_(offer)
    return x if total is None else x.add_(_resized(total, x))


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size=like.shape[2:], mode="nearest")
