"""Rotated boxes: cx, cy, w, h and the angle in radians by which the box is turned, clockwise in an image.

A box is the same with its angle turned by pi, and with w and h swapped and the angle turned by pi / 2;
`normalised` picks one of these. Two measures of overlap: `rotated_iou` is exact (evaluation), `probiou`
compares the boxes as Gaussians (arXiv 2106.06072) and has useful gradients everywhere (loss, assignment and,
as published, suppression).

Dimensions: N, M boxes; "..." any broadcastable leading dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_EPS = 1e-7
_NMS_ROWS = 256  # boxes compared with all better ones at a time


def rotated_corners(boxes: Tensor) -> Tensor:
    """Corners (..., 4, 2) of boxes (..., 5): with half axes u and v they are +u+v, +u-v, -u-v, -u+v."""
    centre, w, h, angle = boxes[..., :2], boxes[..., 2:3], boxes[..., 3:4], boxes[..., 4:]
    cos, sin = angle.cos(), angle.sin()
    u = torch.cat((cos, sin), -1) * w / 2
    v = torch.cat((-sin, cos), -1) * h / 2
    return torch.stack((centre + u + v, centre + u - v, centre - u - v, centre - u + v), -2)


def rotated_hull(boxes: Tensor) -> Tensor:
    """Upright boxes (..., 4), xyxy, around boxes (..., 5)."""
    cos, sin = boxes[..., 4].cos().abs(), boxes[..., 4].sin().abs()
    w, h = boxes[..., 2], boxes[..., 3]
    half = torch.stack((w * cos + h * sin, w * sin + h * cos), -1) / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), -1)


def smallest_rotated(corners: Tensor) -> Tensor:
    """The rotated boxes (..., 5) of least area around four points (..., 4, 2), normalised.

    Such a box has a side along an edge of the points' hull, so the six directions between them are tried.
    """
    first, second = torch.triu_indices(4, 4, 1).unbind()
    along = corners[..., second, :] - corners[..., first, :]  # (..., 6, 2)
    angle = torch.atan2(along[..., 1], along[..., 0])
    cos, sin = angle.cos().unsqueeze(-1), angle.sin().unsqueeze(-1)
    x, y = (corners[..., None, :, i] for i in (0, 1))  # (..., 1, 4)
    u, v = x * cos + y * sin, y * cos - x * sin  # (..., 6, 4) in each frame
    low = torch.stack((u.amin(-1), v.amin(-1)), -1)
    high = torch.stack((u.amax(-1), v.amax(-1)), -1)
    size, middle = high - low, (low + high) / 2
    centre = torch.stack(
        (middle[..., 0] * cos[..., 0] - middle[..., 1] * sin[..., 0],
         middle[..., 0] * sin[..., 0] + middle[..., 1] * cos[..., 0]), -1,
    )  # fmt: skip
    boxes = torch.cat((centre, size, angle.unsqueeze(-1)), -1)
    best = size.prod(-1).argmin(-1)[..., None, None].expand(*boxes.shape[:-2], 1, 5)
    return normalised(boxes.gather(-2, best).squeeze(-2))


def normalised(boxes: Tensor) -> Tensor:
    """The same boxes (..., 5) with w >= h and the angle in [-pi / 4, 3 pi / 4)."""
    w, h, angle = boxes[..., 2], boxes[..., 3], boxes[..., 4]
    swap = w < h
    angle = torch.where(swap, angle + math.pi / 2, angle)
    angle = (angle + math.pi / 4).remainder(math.pi) - math.pi / 4
    return torch.stack(
        (boxes[..., 0], boxes[..., 1], torch.where(swap, h, w), torch.where(swap, w, h), angle), -1
    )


def inside_rotated(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points (..., 2) lie in boxes (..., 5), the border included."""
    offset = points - boxes[..., :2]
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    u = offset[..., 0] * cos + offset[..., 1] * sin
    v = offset[..., 1] * cos - offset[..., 0] * sin
    return (u.abs() <= boxes[..., 2] / 2) & (v.abs() <= boxes[..., 3] / 2)


def probiou(a: Tensor, b: Tensor, *, floor: float = 0.0) -> Tensor:
    """Overlap (...), in [0, 1), of boxes (..., 5) taken as Gaussians: 1 less their Hellinger distance.

    Args:
        floor: added to the variances along both sides, so that thin boxes keep gradients.
    """
    a1, b1, c1 = _covariance(a, floor)
    a2, b2, c2 = _covariance(b, floor)
    dx, dy = a[..., 0] - b[..., 0], a[..., 1] - b[..., 1]
    xx, yy, xy = a1 + a2, b1 + b2, c1 + c2
    determinant = xx * yy - xy**2
    distance = 0.25 * (xx * dy**2 + yy * dx**2 - 2 * xy * dx * dy) / (determinant + _EPS)
    spread = ((a1 * b1 - c1**2).clamp(min=0) * (a2 * b2 - c2**2).clamp(min=0)).sqrt()
    shape = 0.5 * (determinant / (4 * spread + _EPS) + _EPS).log()
    return 1 - (1 - (-(distance + shape).clamp(_EPS, 100)).exp() + _EPS).sqrt()


def rotated_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (...), in [0, 1], of boxes (..., 5): the area that both polygons cover, exactly; 0 for empty boxes.

    Computed in float64 around the centre of `a`, so that far positions cost no digits.
    """
    a, b = torch.broadcast_tensors(a.double(), b.double())  # type: ignore[no-untyped-call]
    origin = torch.cat((a[..., :2], torch.zeros_like(a[..., 2:])), -1)
    a, b = a - origin, b - origin
    inter = _intersection(a, b)
    union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - inter
    return torch.where(union > 0, inter / union.clamp(min=1e-300), 0.0).clamp(0, 1)


def _covariance(boxes: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """xx, yy and xy of the covariance of a uniform density over each box."""
    along, across = boxes[..., 2] ** 2 / 12 + floor, boxes[..., 3] ** 2 / 12 + floor
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    return (
        along * cos**2 + across * sin**2,
        along * sin**2 + across * cos**2,
        (along - across) * cos * sin,
    )


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Area (...) common to boxes (..., 5), float64.

    The common polygon's corners are corners of one box inside the other, and crossings of edges; in the order
    of their direction from their mean they go around it.
    """
    p, q = rotated_corners(a), rotated_corners(b)  # (..., 4, 2)
    slack = 1e-12 * (1 + a[..., 2:4].abs().amax(-1) + b[..., 2:4].abs().amax(-1))
    grow = torch.stack((*[torch.zeros_like(slack)] * 2, slack, slack, torch.zeros_like(slack)), -1)
    in_b = inside_rotated(p, (b + grow).unsqueeze(-2))
    in_a = inside_rotated(q, (a + grow).unsqueeze(-2))
    d, e = p.roll(-1, -2) - p, q.roll(-1, -2) - q
    start = q[..., None, :, :] - p[..., :, None, :]  # (..., 4, 4, 2)
    d, e = d[..., :, None, :], e[..., None, :, :]
    cross = d[..., 0] * e[..., 1] - d[..., 1] * e[..., 0]
    safe = torch.where(cross == 0, 1.0, cross)
    t = (start[..., 0] * e[..., 1] - start[..., 1] * e[..., 0]) / safe
    s = (start[..., 0] * d[..., 1] - start[..., 1] * d[..., 0]) / safe
    crosses = (cross != 0) & (t >= 0) & (t <= 1) & (s >= 0) & (s <= 1)
    crossing = p[..., :, None, :] + t.unsqueeze(-1) * d
    points = torch.cat((p, q, crossing.flatten(-3, -2)), -2)  # (..., 24, 2)
    real = torch.cat((in_b, in_a, crosses.flatten(-2)), -1)
    count = real.sum(-1, keepdim=True)
    middle = (points * real.unsqueeze(-1)).sum(-2, keepdim=True) / count.clamp(min=1).unsqueeze(-1)
    points = torch.where(real.unsqueeze(-1), points - middle, 0.0)
    direction = torch.where(real, torch.atan2(points[..., 1], points[..., 0]), math.inf)
    order = direction.argsort(-1)
    points = points.gather(-2, order.unsqueeze(-1).expand_as(points))
    # Places without a point take the first one, which adds nothing.
    kept = torch.arange(points.shape[-2], device=points.device) < count
    points = torch.where(kept.unsqueeze(-1), points, points[..., :1, :])
    following = points.roll(-1, -2)
    twice = points[..., 0] * following[..., 1] - points[..., 1] * following[..., 0]
    return torch.where(count.squeeze(-1) > 2, twice.sum(-1).abs() / 2, 0.0)


def rotated_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    *,
    max_keep: int | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Drops boxes that overlap any better box, even one that is dropped itself (the published rule).

    Args:
        boxes: (N, 5).
        scores: (N,); equal scores are taken in index order.
        threshold: a box falls when its `probiou` with a better one is greater than this.
        max_keep: stop after this many kept boxes.
        groups: (N,) integers; boxes of different groups never suppress each other. None means one group.

    Returns:
        Indices int64 of the kept boxes, falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    limit = len(order) if max_keep is None else max_keep
    kept, count = [order[:0]], 0
    sorted_boxes = boxes[order]
    label = None if groups is None else groups[order]
    for start in range(0, len(order), _NMS_ROWS):
        rows = torch.arange(start, min(start + _NMS_ROWS, len(order)), device=boxes.device)
        better = torch.arange(int(rows[-1]), device=boxes.device)
        hit = probiou(sorted_boxes[rows, None], sorted_boxes[better]) > threshold
        hit &= better < rows.unsqueeze(1)
        if label is not None:
            hit &= label[rows, None] == label[better]
        kept.append(order[rows[~hit.any(1)]])
        count += len(kept[-1])
        if count >= limit:
            break
    return torch.cat(kept)[:limit]
