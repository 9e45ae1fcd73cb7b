"""Rotated boxes against brute force: polygons by pixels, Gaussians by integration."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.geometry.iou import iou
from holdfast.geometry.rotated import (
    inside_rotated,
    normalised,
    probiou,
    rotated_corners,
    rotated_hull,
    rotated_iou,
    rotated_nms,
    smallest_rotated,
)


def drawn(count: int, *, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    r = torch.rand(count, 5, generator=g, dtype=torch.float64)
    return r * torch.tensor([30, 30, 40, 40, 2 * math.pi]) + torch.tensor([35, 35, 2, 2, -math.pi])


def grid(step: float) -> torch.Tensor:
    side = torch.arange(0, 100, step, dtype=torch.float64) + step / 2
    return torch.cartesian_prod(side, side)


def test_iou_is_that_of_the_pixels() -> None:
    a, b = drawn(40), drawn(40, seed=1)
    b[:6], b[6:12, 4] = a[:6], a[6:12, 4]  # equal boxes, parallel edges
    b[12:18, :4] = a[12:18, :4]  # same centre and size
    points = grid(0.1)
    want = []
    for left, right in zip(a, b, strict=True):
        one, two = inside_rotated(points, left), inside_rotated(points, right)
        want.append((one & two).sum() / (one | two).sum())
    torch.testing.assert_close(rotated_iou(a, b), torch.stack(want).double(), atol=8e-3, rtol=0)


def test_iou_of_upright_boxes_is_the_plain_one_and_forms_of_a_box_are_equal() -> None:
    a, b = drawn(60), drawn(60, seed=1)
    a[:, 4], b[:, 4] = 0.0, math.pi / 2
    b[:, 2:4] = b[:, [3, 2]]
    torch.testing.assert_close(rotated_iou(a, b), iou(rotated_hull(a), rotated_hull(b)), atol=1e-5, rtol=0)
    a, b = drawn(60, seed=2), drawn(60, seed=3)
    torch.testing.assert_close(rotated_iou(a, b), rotated_iou(b, a), atol=1e-9, rtol=0)
    torch.testing.assert_close(rotated_iou(normalised(a), b), rotated_iou(a, b), atol=1e-9, rtol=0)
    torch.testing.assert_close(rotated_iou(a, a), torch.ones(60).double(), atol=1e-9, rtol=0)
    far = torch.tensor([1e6, 1e6, 0, 0, 0])
    torch.testing.assert_close(rotated_iou(a + far, b + far), rotated_iou(a, b), atol=1e-8, rtol=0)


def test_iou_of_empty_and_distant_boxes_is_zero() -> None:
    a = torch.tensor([[5.0, 5, 4, 4, 0.3]]).expand(3, 5)
    b = torch.tensor([[50.0, 5, 4, 4, 0.1], [5, 5, 0, 0, 0], [5, 5, 4, 0, 1.0]])
    assert rotated_iou(a, b).tolist() == [0, 0, 0]
    assert rotated_iou(b[1:], b[1:]).tolist() == [0, 0]


def test_corners_lead_back_to_the_box() -> None:
    boxes = normalised(drawn(50))
    torch.testing.assert_close(smallest_rotated(rotated_corners(boxes)), boxes, atol=1e-6, rtol=0)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        smallest_rotated(rotated_corners(boxes)[:, order]), boxes, atol=1e-6, rtol=0
    )
    assert (boxes[:, 2] >= boxes[:, 3]).all()
    assert ((boxes[:, 4] >= -math.pi / 4) & (boxes[:, 4] < 3 * math.pi / 4)).all()
    hull = rotated_hull(boxes)
    corners = rotated_corners(boxes)
    torch.testing.assert_close(hull[:, :2], corners.amin(1))
    torch.testing.assert_close(hull[:, 2:], corners.amax(1))


def test_smallest_box_holds_any_four_points_and_is_not_beaten() -> None:
    points = torch.rand(30, 4, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 50
    boxes = smallest_rotated(points)
    grown = boxes + torch.tensor([0, 0, 1e-6, 1e-6, 0])
    assert inside_rotated(points, grown.unsqueeze(1)).all()
    for turn in torch.linspace(0, math.pi, 181, dtype=torch.float64):
        cos, sin = turn.cos(), turn.sin()
        u, v = points[..., 0] * cos + points[..., 1] * sin, points[..., 1] * cos - points[..., 0] * sin
        area = (u.amax(1) - u.amin(1)) * (v.amax(1) - v.amin(1))
        assert (boxes[:, 2] * boxes[:, 3] <= area + 1e-6).all()


def test_probiou_is_one_less_the_hellinger_distance_of_gaussians() -> None:
    a, b = drawn(12), drawn(12, seed=1)
    points = torch.cartesian_prod(*[torch.arange(-60, 160, 0.5, dtype=torch.float64)] * 2)

    def density(box: torch.Tensor) -> torch.Tensor:
        cos, sin = box[4].cos(), box[4].sin()
        x, y = (points - box[:2]).unbind(1)
        u, v = x * cos + y * sin, y * cos - x * sin
        s, t = box[2] / math.sqrt(12), box[3] / math.sqrt(12)
        return torch.exp(-0.5 * ((u / s) ** 2 + (v / t) ** 2)) / (2 * math.pi * s * t)

    wide = torch.tensor([1.0, 1, 1, 1, 1]).double()
    for left, right in zip(a * wide, b * wide, strict=True):
        left[2:4] += 8  # wide beside the grid
        right[2:4] += 8
        mass = (density(left) * density(right)).sqrt().sum() * 0.25
        want = 1 - (1 - mass).clamp(min=0).sqrt()
        torch.testing.assert_close(probiou(left, right), want, atol=2e-3, rtol=0)


def test_probiou_of_equal_boxes_and_its_gradient() -> None:
    boxes = drawn(20).requires_grad_()
    assert (probiou(boxes, boxes.detach()) > 0.999).all()
    probiou(boxes, drawn(20, seed=1)).sum().backward()
    assert boxes.grad.isfinite().all()
    flat = torch.tensor([[10.0, 10, 0, 0, 0]], requires_grad=True)
    probiou(flat, drawn(1).float(), floor=0.01).sum().backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("groups", [None, 3])
def test_suppression_drops_what_any_better_box_of_its_group_overlaps(groups: int | None) -> None:
    boxes = drawn(80, seed=5)
    g = torch.Generator().manual_seed(6)
    scores = torch.rand(80, generator=g)
    group = None if groups is None else torch.randint(0, groups, (80,), generator=g)
    order = scores.argsort(descending=True).tolist()
    want = []
    for place, i in enumerate(order):
        rivals = [j for j in order[:place] if group is None or group[i] == group[j]]
        if not any(probiou(boxes[i], boxes[j]) > 0.3 for j in rivals):
            want.append(i)
    assert rotated_nms(boxes, scores, 0.3, max_keep=200, groups=group).tolist() == want
    assert rotated_nms(boxes, scores, 0.3, max_keep=4, groups=group).tolist() == want[:4]
    assert rotated_nms(boxes[:0], scores[:0], 0.3, max_keep=4).tolist() == []
