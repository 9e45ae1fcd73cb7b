"""Cross-stage-partial blocks built from RepConvN (YOLOv9).

Dimensions: B batch, C channels, H W feature height and width.
"""

from __future__ import annotations

from torch import Tensor, nn

from holdfast.nn.conv import Conv, RepConvN
from holdfast.nn.join import join
from holdfast.nn.recompute import add_


class RepNBottleneck(nn.Module):
    """RepConvN, Conv 3x3 and the residual: (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1 = RepConvN(c, c)
        self.cv2 = Conv(c, c, 3)

    def forward(self, x: Tensor) -> Tensor:
        # SiLU keeps its input for backward, not its output, so this may overwrite.
        return add_(self.cv2(self.cv1(x)), x)


class RepNCSP(nn.Module):
    """Half the width through `depth` bottlenecks, half past them: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1: int, c2: int, *, depth: int) -> None:
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half)
        self.cv2 = Conv(c1, half)
        self.cv3 = Conv(2 * half, c2)
        self.m = nn.Sequential(*(RepNBottleneck(half) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv3(join((self.m(self.cv1(x)), self.cv2(x))))
        return out
