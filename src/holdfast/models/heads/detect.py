"""Detection head: a box and a class tower on every level, and what else a task asks of every cell. Raw maps
only; decoding lives in post, the loss in losses.

Families differ in their towers, so they build these and hand them over.

Dimensions: B batch, C classes, R bins per box side, H W feature height and width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from holdfast.models.outputs import Branch
from holdfast.nn.recompute import Recomputing, thrifty


class Towers(Recomputing):
    """A module that runs towers: blocks and a last plain convolution."""

    def answer(self, tower: nn.Module, x: Tensor) -> Tensor:
        """Maps of one level: (B, C_in, H, W) to (B, C_out, H, W)."""
        *blocks, last = tower.children()
        return thrifty(last, self.stage(x, *blocks))


class DetectHead(Towers):
    """Box and class towers over every level.

    Args:
        box: per level a tower that ends in a convolution to 4R channels.
        cls: per level a tower that ends in a convolution to C channels.
        strides: input pixels per cell and level; only the start of the class biases depends on it.
        box_start: where box biases start.
        extra: maps the levels to what the branch says beyond boxes (`heads.extra`).
    """

    def __init__(
        self,
        box: Iterable[nn.Sequential],
        cls: Iterable[nn.Sequential],
        *,
        strides: Sequence[int],
        box_start: float,
        extra: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.box = nn.ModuleList(box)
        self.cls = nn.ModuleList(cls)
        self.extra = extra
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

    def forward(self, levels: Sequence[Tensor], *shared: Any) -> Branch:
        """Maps the levels, finest first, to raw box and class maps.

        Args:
            levels: maps of the neck.
            shared: what the model computes once for all branches and `extra` takes.
        """
        return Branch(
            boxes=tuple(self.answer(tower, x) for tower, x in zip(self.box, levels, strict=True)),
            scores=tuple(self.answer(tower, x) for tower, x in zip(self.cls, levels, strict=True)),
            extra=None if self.extra is None else self.extra(levels, *shared),
        )


def _last(tower: nn.Module) -> nn.Conv2d:
    conv = list(tower.children())[-1]
    assert isinstance(conv, nn.Conv2d)
    return conv
