"""Cross-stage-partial blocks of plain 3x3 bottlenecks: Bottleneck, C3k, C3k2 (YOLO26), with the published
inner names.

Unusual: the bottleneck inside C3k2 narrows to half its width, the one inside C3k does not narrow. A
bottleneck adds its input over the output of its last SiLU, which autograd does not keep.

Dimensions: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from holdfast.nn.conv import Conv
from holdfast.nn.join import fork, join
from holdfast.nn.recompute import add_


class Bottleneck(nn.Module):
    """Two 3x3 convolutions and the residual: (B, c, H, W) -> (B, c, H, W).

    Args:
        c: channels.
        hidden: channels between the two.
    """

    def __init__(self, c: int, *, hidden: int) -> None:
        super().__init__()
        self.cv1 = Conv(c, hidden, 3)
        self.cv2 = Conv(hidden, c, 3)

    def forward(self, x: Tensor) -> Tensor:
        return add_(self.cv2(self.cv1(x)), x)


class C3k(nn.Module):
    """Half the width through two bottlenecks, half past them: (B, c, H, W) -> (B, c, H, W)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        half = c // 2
        self.cv1 = Conv(c, half)
        self.cv2 = Conv(c, half)
        self.cv3 = Conv(2 * half, c)
        self.m = nn.Sequential(*(Bottleneck(half, hidden=half) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cv3(join((self.m(self.cv1(x)), self.cv2(x))))
        return out


class C3k2(nn.Module):
    """Halves y0 and y1 of a 1x1 convolution; y1 runs through `depth` inner blocks, and all maps are joined.

    Maps (B, c1, H, W) to (B, c2, H, W).

    Args:
        c1: input channels.
        c2: output channels.
        hidden: channels of a half.
        depth: inner blocks.
        inner: makes an inner block of that many channels.
    """

    def __init__(
        self, c1: int, c2: int, *, hidden: int, depth: int, inner: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.cv1 = Conv(c1, 2 * hidden)
        self.cv2 = Conv((2 + depth) * hidden, c2)
        self.m = nn.ModuleList(inner(hidden) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        halves = self.cv1(x)  # (B, 2 hidden, H, W)
        halves, last = fork(halves, halves.shape[1] // 2)
        y = [halves]
        for block in self.m:
            last = block(last)
            y.append(last)
        out: Tensor = self.cv2(join(y))
        return out
