"""Anchor points: the centres of the cells of every level, row by row, finest level first.

Dimensions: L levels, A anchors over all levels (sum of height * width), G boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


def constant(values: Any, *, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A few numbers on a device. Unlike `torch.tensor(..., device=...)` it does not wait until a GPU has done
    what it was told before.
    """
    return torch.as_tensor(values, dtype=dtype).to(device, non_blocking=True)


def anchor_points(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], *, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """Lists the anchors of a feature pyramid.

    Args:
        shapes: (height, width) of each level in cells.
        strides: input pixels per cell of each level.
        device: where to put the result.

    Returns:
        Points (A, 2) float32 x, y in cells of their own level (centre of the first cell is 0.5, 0.5), and the
        stride (A,) float32 of each anchor.
    """
    points, steps = [], []
    for (height, width), stride in zip(shapes, strides, strict=True):
        y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
        x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
        points.append(
            torch.stack((x.expand(height, width), y.unsqueeze(1).expand(height, width)), -1).view(-1, 2)
        )
        steps.append(torch.full((height * width,), float(stride), device=device))
    return torch.cat(points), torch.cat(steps)


class CellRanges(NamedTuple):
    """Rectangles of cells of boxes: columns [x, x + width), rows [y, y + height); all (G, L) int64."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor


def cells_inside(
    boxes: Tensor, shapes: Sequence[tuple[int, int]], strides: Sequence[int], *, margin: float = 1e-9
) -> CellRanges:
    """Finds the anchors that lie strictly inside boxes, without testing every anchor.

    Args:
        boxes: (G, 4) float32 xyxy in input pixels, finite.
        shapes: (height, width) of each level in cells.
        strides: input pixels per cell of each level.
        margin: an anchor is inside when its distance to every edge is greater than this, in pixels.
    """
    step = constant(list(strides), dtype=boxes.dtype, device=boxes.device)
    size = constant([(w, h) for h, w in shapes], device=boxes.device).T.unsqueeze(1)  # (2, 1, L)
    low = boxes[:, :2].T.unsqueeze(-1)  # (2, G, 1)
    high = boxes[:, 2:].T.unsqueeze(-1)
    # The division can be off by one cell for an edge next to a centre, so the neighbours are tried in exactly
    # the arithmetic of the definition: centre - edge > margin.
    first = torch.floor(low / step - 0.5)
    for _ in range(2):
        first = first + ((first + 0.5) * step - low <= margin).to(first.dtype)
    last = torch.ceil(high / step - 0.5)
    for _ in range(2):
        last = last - (high - (last + 0.5) * step <= margin).to(last.dtype)
    first = torch.minimum(first.clamp(min=0), size).long()
    last = torch.minimum(last.clamp(min=-1), size - 1).long()
    count = (last - first + 1).clamp_(min=0)
    return CellRanges(first[0], first[1], count[0], count[1])
