"""Detection head: a box and a class tower on every level. Raw maps only; decoding lives in post, the loss in
losses.

Families differ in their towers, so they build these and hand them over.

Dimensions: B batch, C classes, R bins per box side, H W feature height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from holdfast.models.outputs import Branch
from holdfast.nn.recompute import Recomputing, thrifty


class DetectHead(Recomputing):
    """Box and class towers over every level.

    Args:
        box: per level a tower that ends in a convolution to 4R channels.
        cls: per level a tower that ends in a convolution to C channels.
        strides: input pixels per cell and level; only the start of the class biases depends on it.
        box_start: where box biases start.
    """

    def __init__(
        self,
        box: Iterable[nn.Sequential],
        cls: Iterable[nn.Sequential],
        *,
        strides: Sequence[int],
        box_start: float,
    ) -> None:
        super().__init__()
        self.box = nn.ModuleList(box)
        self.cls = nn.ModuleList(cls)
        for tower in self.box:
            nn.init.constant_(_last(tower).bias, box_start)  # type: ignore[arg-type]
        for tower, stride in zip(self.cls, strides, strict=True):
            last = _last(tower)  # starts at about five objects per 640 pixel image
            nn.init.constant_(last.bias, math.log(5 / last.out_channels / (640 / stride) ** 2))  # type: ignore[arg-type]

    @property
    def reg_max(self) -> int:
        """R, bins per box side."""
        return _last(self.box[0]).out_channels // 4

    @property
    def class_width(self) -> int:
        """Hidden width of the class towers."""
        return _last(self.cls[0]).in_channels

    @property
    def box_groups(self) -> int:
        """Groups of the last convolutions of the box towers."""
        return _last(self.box[0]).groups

    @property
    def class_rows(self) -> tuple[str, ...]:
        """Names, below `cls`, of the tensors that have one row per class: those of the last convolutions."""
        last = len(self.cls[0]) - 1  # type: ignore[arg-type]
        levels = range(len(self.cls))
        return tuple(f"{level}.{last}.{part}" for level in levels for part in ("weight", "bias"))

    def forward(self, levels: Sequence[Tensor]) -> Branch:
        """Maps the levels, finest first, to raw box and class maps."""
        return Branch(
            boxes=tuple(self._answer(tower, x) for tower, x in zip(self.box, levels, strict=True)),
            scores=tuple(self._answer(tower, x) for tower, x in zip(self.cls, levels, strict=True)),
        )

    def _answer(self, tower: nn.Module, x: Tensor) -> Tensor:
        *blocks, last = tower.children()
        return thrifty(last, self.stage(x, *blocks))


def _last(tower: nn.Module) -> nn.Conv2d:
    conv = list(tower.children())[-1]
    assert isinstance(conv, nn.Conv2d)
    return conv
