"""Layer-aggregation blocks of GELAN: ELAN1 (plain 3x3) and RepNCSPELAN4 (CSP inside).

Both split the output of `cv1` into halves, run the second half through two stages and concatenate everything.
The two halves stand next to each other in memory already, so the concatenation takes `cv1`'s output as one
piece.

Dimensions: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from torch import Tensor, nn

from holdfast.nn.conv import Conv
from holdfast.nn.csp import RepNCSP
from holdfast.nn.join import fork, join


class _Aggregation(nn.Module):
    """The shared frame: `cv1`, two stages on its second half, everything into `cv4`."""

    def __init__(
        self, c1: int, c2: int, *, split: int, branch: int, stages: tuple[nn.Module, nn.Module]
    ) -> None:
        super().__init__()
        self.kept = split // 2  # channels that pass by both stages
        self.cv1 = Conv(c1, split)
        self.cv2, self.cv3 = stages
        self.cv4 = Conv(split + 2 * branch, c2)

    def forward(self, x: Tensor) -> Tensor:
        y, rest = fork(self.cv1(x), self.kept)  # (B, split, H, W)
        a = self.cv2(rest)  # (B, branch, H, W)
        out: Tensor = self.cv4(join((y, a, self.cv3(a))))
        return out


class ELAN1(_Aggregation):
    """Two 3x3 stages of width `branch` over a split of width `split`: (B, c1, H, W) -> (B, c2, H, W)."""

    def __init__(self, c1: int, c2: int, *, split: int, branch: int) -> None:
        stages = Conv(split // 2, branch, 3), Conv(branch, branch, 3)
        super().__init__(c1, c2, split=split, branch=branch, stages=stages)


class RepNCSPELAN4(_Aggregation):
    """ELAN1 whose stages are each RepNCSP with `depth` bottlenecks followed by Conv 3x3."""

    def __init__(self, c1: int, c2: int, *, split: int, branch: int, depth: int) -> None:
        def stage(width: int) -> nn.Sequential:
            return nn.Sequential(RepNCSP(width, branch, depth=depth), Conv(branch, branch, 3))

        super().__init__(c1, c2, split=split, branch=branch, stages=(stage(split // 2), stage(branch)))
