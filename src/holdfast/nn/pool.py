"""Blocks with pooling: the down-sampling AConv and ADown, and the spatial pyramid SPPELAN.

AConv and ADown first average 2x2 neighbours with stride 1, so even sizes halve exactly. Inputs must have even
height and width. Dimensions: B batch, C channels, H W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.nn.conv import Conv


class AConv(nn.Module):
    """Average pool, then Conv 3x3 stride 2: (B, c1, H, W) -> (B, c2, H/2, W/2)."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv1(F.avg_pool2d(x, 2, 1))
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
        a, b = F.avg_pool2d(x, 2, 1).chunk(2, 1)
        return torch.cat((self.cv1(a), self.cv2(F.max_pool2d(b, 3, 2, 1))), 1)


class SPPELAN(nn.Module):
    """Three 5x5 max pools in a row, all four maps concatenated: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1: int, c2: int, *, split: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, split)
        self.cv5 = Conv(4 * split, c2)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        for _ in range(3):
            y.append(F.max_pool2d(y[-1], 5, 1, 2))
        out: Tensor = self.cv5(torch.cat(y, 1))
        return out
