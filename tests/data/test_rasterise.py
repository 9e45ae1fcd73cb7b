"""Masks say which object is seen where, to the pixel, and the smaller one where several are."""

from __future__ import annotations

import numpy as np

from holdfast.data.objects import Objects
from holdfast.data.rasterise import numbered


def objects(*outlines: list[tuple[float, float]]) -> Objects:
    points = [np.array(outline, np.float32).reshape(-1, 2) for outline in outlines]
    boxes = [(*p.min(0), *p.max(0)) if len(p) else (0, 0, 8, 16) for p in points]
    return Objects(
        np.zeros(len(points), np.int64), np.array(boxes, np.float32), np.concatenate(points),
        np.cumsum([0, *map(len, points)], dtype=np.int64),
    )  # fmt: skip


SQUARE = [(8, 8), (40, 8), (40, 40), (8, 40)]
SMALL = [(16, 16), (24, 16), (24, 24), (16, 24)]


def test_a_square_covers_exactly_its_pixels() -> None:
    (masks,) = numbered(objects(SQUARE), 64, 48, stride=4)
    expected = np.zeros((16, 12), np.int16)
    expected[2:10, 2:10] = 1
    assert (masks == expected).all()


def test_the_smaller_object_is_seen_whatever_the_order() -> None:
    for outlines, own in (((SQUARE, SMALL), (1, 2)), ((SMALL, SQUARE), (2, 1))):
        (masks,) = numbered(objects(*outlines), 64, 64, stride=4)
        assert (masks[4:6, 4:6] == own[1]).all()
        assert (masks == own[0]).sum() == 64 - 4


def test_what_is_hidden_is_kept_in_layers_where_asked_for() -> None:
    aside = [(48, 48), (60, 48), (60, 60), (48, 60)]
    for outlines in ((SQUARE, SMALL, aside), (SMALL, aside, SQUARE)):
        layers = numbered(objects(*outlines), 64, 64, stride=4, hidden=True)
        square, small, other = (outlines.index(outline) + 1 for outline in (SQUARE, SMALL, aside))
        assert layers.shape == (2, 16, 16)
        assert (layers[0, 2:10, 2:10] == square).all()  # whole
        assert (layers[1, 4:6, 4:6] == small).all()  # above it
        assert (layers[0, 12:15, 12:15] == other).all()
        assert (layers > 0).sum() == 64 + 4 + 9
        (seen,) = numbered(objects(*outlines), 64, 64, stride=4)
        assert (np.where(layers[1] > 0, layers[1], layers[0]) == seen).all()


def test_an_object_without_outline_is_its_box_and_one_outside_is_nothing() -> None:
    outside = [(-40.0, 3.0), (-20.0, 3.0), (-20.0, 30.0)]
    (masks,) = numbered(objects([], outside), 64, 64, stride=4)
    assert (masks[:4, :2] == 1).all()
    assert (masks > 0).sum() == 8


def test_a_part_beyond_the_border_does_not_move_the_rest() -> None:
    (masks,) = numbered(objects([(-20, -20), (20, -20), (20, 20), (-20, 20)]), 64, 64, stride=4)
    assert (masks[:5, :5] == 1).all()
    assert (masks > 0).sum() == 25


def test_the_area_of_a_disc_is_kept() -> None:
    angle = np.arange(200) * 2 * np.pi / 200
    disc = [(64 + 50 * np.cos(a), 60 + 50 * np.sin(a)) for a in angle]
    area = (numbered(objects(disc), 128, 128, stride=4) > 0).sum() * 16
    assert abs(area / (np.pi * 50**2) - 1) < 0.03  # pixels that the border touches belong to it
