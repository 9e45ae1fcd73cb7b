"""Formats, clipping and area on hand-worked boxes."""

from __future__ import annotations

import torch

from holdfast.geometry.boxes import box_area, clip_boxes, cxcywh_to_xyxy, xyxy_to_cxcywh


def test_corners_and_centres_are_inverse_of_each_other() -> None:
    corners = torch.tensor([[1.0, 2.0, 5.0, 10.0], [0.0, 0.0, 0.0, 0.0]])
    centres = torch.tensor([[3.0, 6.0, 4.0, 8.0], [0.0, 0.0, 0.0, 0.0]])
    assert torch.equal(xyxy_to_cxcywh(corners), centres)
    assert torch.equal(cxcywh_to_xyxy(centres), corners)


def test_clipping_keeps_what_is_inside_and_empties_what_is_outside() -> None:
    boxes = torch.tensor([[-5.0, -5.0, 15.0, 8.0], [30.0, 2.0, 40.0, 6.0]])
    clipped = clip_boxes(boxes, 10, 20)
    assert clipped.tolist() == [[0, 0, 15, 8], [20, 2, 20, 6]]
    assert box_area(clipped).tolist() == [120, 0]


def test_area_of_inverted_boxes_is_zero() -> None:
    assert box_area(torch.tensor([[5.0, 5.0, 1.0, 9.0], [5.0, 5.0, 1.0, 1.0]])).tolist() == [0, 0]


def test_functions_accept_no_boxes_and_leading_dimensions() -> None:
    for function in (xyxy_to_cxcywh, cxcywh_to_xyxy, lambda t: clip_boxes(t, 4, 4)):
        assert function(torch.zeros(0, 4)).shape == (0, 4)
        assert function(torch.zeros(2, 3, 4)).shape == (2, 3, 4)
