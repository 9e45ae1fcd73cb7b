"""What heads say beyond boxes: mask coefficients, keypoints, angles; one tower more on every level.

Dimensions: B batch, M prototypes, K keypoints with D numbers each, H W feature height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from holdfast.models.heads.detect import Towers
from holdfast.models.outputs import Angles, Keypoints, Masks
from holdfast.nn.conv import Conv
from holdfast.nn.recompute import thrifty


class MaskTowers(Towers):
    """Coefficients of every cell's mask.

    Args:
        widths: channels of the levels.
        hidden: width inside the towers.
        masks: M.
    """

    def __init__(self, widths: Sequence[int], *, hidden: int, masks: int) -> None:
        super().__init__()
        self.towers = _towers(widths, hidden, masks)

    def forward(self, levels: Sequence[Tensor], prototypes: Tensor, semantic: Tensor | None) -> Masks:
        coefficients = (self.answer(tower, x) for tower, x in zip(self.towers, levels, strict=True))
        return Masks(tuple(coefficients), prototypes, semantic)


class AngleTowers(Towers):
    """The angle of every cell's box, in radians.

    Args:
        widths: channels of the levels.
        hidden: width inside the towers.
    """

    def __init__(self, widths: Sequence[int], *, hidden: int) -> None:
        super().__init__()
        self.towers = _towers(widths, hidden, 1)

    def forward(self, levels: Sequence[Tensor]) -> Angles:
        return Angles(tuple(self.answer(tower, x) for tower, x in zip(self.towers, levels, strict=True)))


class KeypointTowers(Towers):
    """Keypoints of every cell's object and, while training, the errors to expect.

    Args:
        widths: channels of the levels.
        hidden: width inside the towers.
        keypoints: K and D.
    """

    def __init__(self, widths: Sequence[int], *, hidden: int, keypoints: tuple[int, int]) -> None:
        super().__init__()
        count, self.dims = keypoints
        self.towers = nn.ModuleList(
            nn.Sequential(Conv(w, hidden, 3), Conv(hidden, hidden, 3)) for w in widths
        )
        self.points = nn.ModuleList(nn.Conv2d(hidden, count * self.dims, 1) for _ in widths)
        self.sigmas: nn.ModuleList | None = nn.ModuleList(nn.Conv2d(hidden, count * 2, 1) for _ in widths)

    def forward(self, levels: Sequence[Tensor], density: Callable[[Tensor], Tensor] | None) -> Keypoints:
        maps = [self.stage(x, *tower) for tower, x in zip(self.towers, levels, strict=True)]  # type: ignore[misc]
        points = _each(self.points, maps)
        if self.sigmas is None or not self.training:
            return Keypoints(points, dims=self.dims)
        return Keypoints(points, _each(self.sigmas, maps), density, self.dims)


def _each(layers: Iterable[nn.Module], maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(thrifty(layer, x) for layer, x in zip(layers, maps, strict=True))


def _towers(widths: Sequence[int], hidden: int, out: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(Conv(w, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, out, 1)) for w in widths
    )
