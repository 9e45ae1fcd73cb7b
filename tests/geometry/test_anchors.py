"""Anchor points, and the cells inside boxes against the test of every anchor."""

from __future__ import annotations

import torch

from holdfast.geometry.anchors import anchor_points, cells_inside

SHAPES, STRIDES = [(5, 7), (3, 4), (2, 2)], (8, 16, 32)


def test_points_run_row_by_row_from_half_a_cell() -> None:
    points, strides = anchor_points([(2, 3), (1, 1)], (8, 16))
    assert points.tolist() == [
        [0.5, 0.5],
        [1.5, 0.5],
        [2.5, 0.5],
        [0.5, 1.5],
        [1.5, 1.5],
        [2.5, 1.5],
        [0.5, 0.5],
    ]
    assert strides.tolist() == [8] * 6 + [16]


def test_cells_inside_are_the_anchors_strictly_inside() -> None:
    points, strides = anchor_points(SHAPES, STRIDES)
    points = points * strides.unsqueeze(1)
    corners = torch.rand(400, 2, 2) * 80 - 12
    boxes = torch.cat((corners.amin(1), corners.amax(1)), 1)
    # Edges on, and one float beside, anchor centres; and boxes without area.
    exact = torch.randint(-1, 10, (200, 4)).float() * 4
    nudged = torch.nextafter(exact, torch.full_like(exact, 1e9))
    boxes = torch.cat((boxes, exact, nudged, torch.tensor([[1e9, 1e9, 2e9, 2e9], [-1e9, -1e9, 1e9, 1e9]])))
    ranges = cells_inside(boxes, SHAPES, STRIDES)

    gap = torch.minimum(points - boxes[:, None, :2], boxes[:, None, 2:] - points).amin(-1)  # (G, A)
    start = 0
    for level, (height, width) in enumerate(SHAPES):
        dense = (gap[:, start : start + height * width] > 1e-9).view(-1, height, width)
        x, y, w, h = (field[:, level, None, None] for field in ranges)
        column, row = torch.arange(width), torch.arange(height).unsqueeze(1)
        assert torch.equal(dense, (column >= x) & (column < x + w) & (row >= y) & (row < y + h))
        start += height * width
