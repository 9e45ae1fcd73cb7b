"""Outlines are cut and joined without a change of the area they fill."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data.outlines import Point, clip_outline, join_outlines

SIDE = 40


def filled(points: list[Point], shift: int = 0) -> np.ndarray:
    """A picture of three times the image's side with the image in the middle, the outline filled."""
    canvas = np.zeros((3 * SIDE, 3 * SIDE), np.uint8)
    if points:
        cv2.fillPoly(canvas, [np.rint(np.array(points) * SIDE + SIDE).astype(np.int32)], 255)
    return canvas


def area(points: list[Point]) -> float:
    x, y = np.array(points).reshape(-1, 2).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def test_inside_nothing_changes() -> None:
    points = [(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)]
    assert clip_outline(points) == points


def test_outside_nothing_is_left() -> None:
    assert clip_outline([(1.2, 0.2), (1.8, 0.2), (1.5, 0.6)]) == []


def test_a_shape_larger_than_the_image_becomes_the_image() -> None:
    points = clip_outline([(-1.0, -1.0), (2.0, -1.0), (2.0, 2.0), (-1.0, 2.0)])
    assert area(points) == pytest.approx(1.0)
    assert len(points) == 4


def test_width_and_height_may_be_pixels() -> None:
    assert area(clip_outline([(-5, -5), (50, -5), (50, 50), (-5, 50)], 20, 10)) == pytest.approx(200)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-40, 80), st.integers(-40, 80)), min_size=3, max_size=8))
def test_clipping_keeps_the_pixels_inside_and_no_other(corners: list[tuple[int, int]]) -> None:
    points = [(x / SIDE, y / SIDE) for x, y in corners]
    kept = clip_outline(points)
    assert all(0 <= value <= 1 for point in kept for value in point)
    inner = (slice(SIDE + 2, 2 * SIDE - 2),) * 2
    wrong = cv2.morphologyEx(filled(points) ^ filled(kept), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    assert not wrong[inner].any()  # a pixel's width at slanted borders is rounding


def test_joined_parts_fill_what_each_fills() -> None:
    parts = [
        [(0.1, 0.1), (0.3, 0.1), (0.3, 0.3), (0.1, 0.3)],
        [(0.6, 0.6), (0.9, 0.6), (0.75, 0.9)],
        [(0.1, 0.7), (0.2, 0.7), (0.15, 0.9)],
    ]
    whole = join_outlines(parts)
    assert area(whole) == pytest.approx(sum(area(part) for part in parts))
    assert {point for part in parts for point in part} == set(whole)
    assert len(whole) == 10 + 4  # each bridge goes there and back


def test_one_part_stays_as_it_is() -> None:
    assert join_outlines([[(0, 0), (1, 0), (1, 1)]]) == [(0, 0), (1, 0), (1, 1)]
