"""Blocks that change or pool the map size: AConv, ADown, the spatial pyramids SPPELAN and SPPF, up-sampling.

AConv and ADown first average 2x2 neighbours with stride 1, so even sizes halve exactly. Inputs must have even
height and width. Dimensions: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.nn.conv import Conv
from holdfast.nn.join import join
from holdfast.nn.recompute import add_, derived, thrifty


class AConv(nn.Module):
    """Average pool, then Conv 3x3 stride 2: (B, c1, H, W) -> (B, c2, H/2, W/2)."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv1(_smooth(x))
        return out


class ADown(nn.Module):
    """Average pool, then half the channels by Conv 3x3 stride 2 and half by max pool and Conv 1x1.

    Maps (B, c1, H, W) to (B, c2, H/2, W/2).
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1 // 2, c2 // 2, 3, 2)
        self.cv2 = Conv(c1 // 2, c2 // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = _smooth(x)
        a, b = (derived(half, partial(_half, number=i), x) for i, half in enumerate(x.chunk(2, 1)))
        pooled = derived(thrifty(_max_pool, b), _max_pool, b)
        return join((self.cv1(a), self.cv2(pooled)))


class SPPELAN(nn.Module):
    """Three 5x5 max pools in a row, all four maps concatenated: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1: int, c2: int, *, split: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, split)
        self.cv5 = Conv(4 * split, c2)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        for _ in range(3):
            y.append(derived(thrifty(_widest, y[-1]), _widest, y[-1]))
        out: Tensor = self.cv5(join(y))
        return out


class SPPF(nn.Module):
    """Three 5x5 max pools in a row, all four maps concatenated, and the residual: (B, c, H, W) unchanged.

    Unlike its namesake in older families, the first convolution has no activation.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1 = Conv(c, c // 2, act=False)
        self.cv2 = Conv(4 * (c // 2), c)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        for _ in range(3):
            y.append(derived(thrifty(_widest, y[-1]), _widest, y[-1]))
        # SiLU keeps its input for backward, not its output, so this may overwrite.
        return add_(self.cv2(join(y)), x)


def upsample(x: Tensor) -> Tensor:
    """Nearest neighbour, factor two."""
    return derived(_doubled(x), _doubled, x)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _smooth(x: Tensor) -> Tensor:
    """Mean of 2x2 neighbours with stride 1."""
    return derived(thrifty(_mean, x), _mean, x)


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, 1)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, 1)


def _widest(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 5, 1, 2)


def _half(x: Tensor, *, number: int) -> Tensor:
    return x.chunk(2, 1)[number]
