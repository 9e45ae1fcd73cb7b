"""Convolution blocks: Conv and RepConvN of YOLOv9 (arXiv 2402.13616), with the published inner names.

Unusual: batch norm has eps 1e-3 and momentum 0.03 (new = 0.97 old + 0.03 batch); RepConvN has no
identity branch even where its widths agree. `nn.fuse.fold` merges batch norm (and both kernels of RepConvN)
into one convolution named `conv`; a folded Conv has `bn = None`.

Training saves the input of batch norm and the input of SiLU, never their outputs, so sums may be written in
place over a block's output; SiLU itself is in place only where autograd is off (in place under autograd it
copies its input first, which costs more than it saves).

Dimensions: B batch, C channels, H W feature height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.nn.recompute import Recomputing, add_, derived, thrifty
from holdfast.nn.recompute import batch_norm as recomputed_norm

BN_EPS = 1e-3
BN_MOMENTUM = 0.03
NARROW = 16


def batch_norm(width: int) -> nn.BatchNorm2d:
    """Batch norm with the constants of the published models."""
    return nn.BatchNorm2d(width, eps=BN_EPS, momentum=BN_MOMENTUM)


def silu(x: Tensor) -> Tensor:
    """SiLU that overwrites its input when no gradient is recorded. The caller must own `x`."""
    if not torch.is_grad_enabled():
        return F.silu(x, inplace=True)
    return derived(thrifty(F.silu, x), F.silu, x)


def _is_narrow(x: Tensor) -> bool:
    """Whether batch norm of a CPU would be slow on a map in channels-last order.

    Threads add up their sums of all channels side by side; those of fewer than 16 share a cache line, and
    backward takes twenty times as long.
    """
    return x.shape[1] < NARROW and x.device.type == "cpu" and not x.is_contiguous()


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


class Conv(Recomputing):
    """Convolution, batch norm, SiLU. Maps (B, c1, H, W) to (B, c2, H/stride, W/stride) with "same" padding.

    Args:
        c1: input channels.
        c2: output channels.
        kernel: side of the square kernel, odd.
        stride: step of the kernel.
        groups: channel groups.
        act: False leaves SiLU out.
    """

    def __init__(
        self, c1: int, c2: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, act: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.BatchNorm2d | None = batch_norm(c2)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = thrifty(self.conv, x)
        if self.bn is not None:
            x = self._normed(self.bn, x)
        return silu(x) if self.act else x

    def _normed(self, bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
        narrow = _is_narrow(x)
        if narrow:  # by way of the plain order
            x = x.contiguous()
        x = recomputed_norm(bn, x) if self.recomputes("norm") else bn(x)
        return derived(_channels_last(x), _channels_last, x) if narrow else x


class RepConvN(nn.Module):
    """SiLU(BN(conv 3x3) + BN(conv 1x1)): two branches in training, one 3x3 convolution once folded."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.conv1 = Conv(c1, c2, 3, act=False)
        self.conv2 = Conv(c1, c2, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return silu(add_(self.conv1(x), self.conv2(x)))
