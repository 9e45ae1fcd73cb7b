"""Detection head of YOLOv9 (DDetect): raw maps only; decoding lives in post, the loss in losses.

Traps kept from the published models: both hidden widths follow the finest level's width for all three levels,
and the last two box convolutions have four groups, so each group owns one side of the box.

Dimensions: B batch, C classes, R bins per box side, H W feature height and width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from holdfast.models.outputs import Branch
from holdfast.nn.conv import Conv


class DetectHead(nn.Module):
    """Box and class branch over every level.

    Args:
        widths: input channels per level, finest first.
        classes: number of classes.
        strides: input pixels per cell and level; only the bias start depends on it.
        reg_max: bins per box side.
        class_width: hidden width of the class branch; the published rule when None.
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        classes: int,
        strides: Sequence[int],
        reg_max: int,
        class_width: int | None = None,
    ) -> None:
        super().__init__()
        self.reg_max = reg_max
        box_width = math.ceil(max(widths[0] // 4, 4 * reg_max, 16) / 4) * 4
        self.class_width = class_width or max(widths[0], min(2 * classes, 128))
        self.box = nn.ModuleList(_tower(w, box_width, 4 * reg_max, groups=4) for w in widths)
        self.cls = nn.ModuleList(_tower(w, self.class_width, classes, groups=1) for w in widths)
        self._start_biases(classes, strides)

    def forward(self, levels: Sequence[Tensor]) -> Branch:
        """Maps the levels (B, widths[i], H, W) to raw box and class maps."""
        return Branch(
            boxes=tuple(tower(x) for tower, x in zip(self.box, levels, strict=True)),
            scores=tuple(tower(x) for tower, x in zip(self.cls, levels, strict=True)),
        )

    def _start_biases(self, classes: int, strides: Sequence[int]) -> None:
        """Boxes start at 1; classes at about five objects per 640 pixel image."""
        for box, cls, stride in zip(self.box, self.cls, strides, strict=True):
            nn.init.constant_(box[-1].bias, 1.0)  # type: ignore[index]
            nn.init.constant_(cls[-1].bias, math.log(5 / classes / (640 / stride) ** 2))  # type: ignore[index]


def _tower(c1: int, hidden: int, out: int, *, groups: int) -> nn.Sequential:
    return nn.Sequential(
        Conv(c1, hidden, 3), Conv(hidden, hidden, 3, groups=groups), nn.Conv2d(hidden, out, 1, groups=groups)
    )
