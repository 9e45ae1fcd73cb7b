from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest

from holdfast.data.augment import flip, keep_boxes, random_affine, scaling, translation, warp_boxes
from holdfast.data.color import apply_hsv, hsv_gains
from holdfast.data.mix import mixup
from holdfast.data.random import draws

BOX = np.array([[10, 20, 30, 60]], dtype=np.float32)
NOTHING = {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "shear": 0.0, "perspective": 0.0}


def quarter_turn() -> np.ndarray:
    return np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 100.0], [0.0, 0.0, 1.0]])  # (x, y) -> (y, 100 - x)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.eye(3), [10, 20, 30, 60]),
        (translation(5, -30), [15, 0, 35, 30]),  # top cut
        (scaling(2, 0.5), [20, 10, 60, 30]),
        (flip(100, 100, horizontal=True, vertical=False), [70, 20, 90, 60]),
        (flip(100, 100, horizontal=False, vertical=True), [10, 40, 30, 80]),
        (flip(100, 100, horizontal=True, vertical=True), [70, 40, 90, 80]),
        (quarter_turn(), [20, 70, 60, 90]),
        # shear x by half of y: x from 10 + 10 to 30 + 30
        (np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1.0]]), [20, 20, 60, 60]),
        # perspective: corners divided by 1 + x / 100: 10/1.1, 20/1.3, 30/1.3, 60/1.1
        (np.array([[1, 0, 0], [0, 1, 0], [0.01, 0, 1.0]]), [10 / 1.1, 20 / 1.3, 30 / 1.3, 60 / 1.1]),
        (translation(200, 0), [100, 20, 100, 60]),  # gone: no width
    ],
)
def test_boxes_by_hand(matrix: np.ndarray, expected: list[float]) -> None:
    assert warp_boxes(BOX, matrix, width=100, height=100)[0] == pytest.approx(expected, abs=1e-4)


def test_a_box_behind_the_viewer_vanishes() -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.05, 0, 1.0]])  # depth 1 - 0.05 x is negative at x = 30
    assert warp_boxes(BOX, matrix, width=100, height=100).tolist() == [[0, 0, 0, 0]]


def test_no_boxes_stay_no_boxes() -> None:
    assert warp_boxes(np.zeros((0, 4), np.float32), quarter_turn(), width=9, height=9).shape == (0, 4)


@pytest.mark.parametrize(
    ("after", "zoom", "kept"),
    [
        ([0, 0, 20, 40], 1.0, True),
        ([0, 0, 2, 40], 1.0, False),  # not over 2 pixels
        ([0, 0, 2.1, 40], 1.0, True),  # 84 of 800: just over a tenth
        ([0, 0, 8, 10], 1.0, False),  # exactly a tenth is not more
        ([0, 0, 8, 10], 0.5, True),  # 80 of 800 / 4
        ([0, 0, 20, 40], 4.0, False),  # 800 of 12800
        ([0, 0, 3, 300], 1.0, False),  # thinner than 1 to 100 (here exactly)
    ],
)
def test_which_boxes_survive(after: list[float], zoom: float, kept: bool) -> None:
    before = np.array([[10, 20, 30, 60]], np.float32)  # 20 x 40
    assert keep_boxes(before, np.array([after], np.float32), zoom=zoom).tolist() == [kept]


def test_without_settings_the_map_is_centre_to_centre() -> None:
    matrix, zoom = random_affine(draws(0, 0, 0, 0).random(8), canvas=(640, 640), size=(320, 320), **NOTHING)
    assert zoom == 1.0
    assert np.allclose(matrix, translation(-160, -160))


def test_random_maps_stay_within_their_ranges() -> None:
    for index in range(300):
        matrix, zoom = random_affine(
            draws(0, 0, index, 0).random(8),
            canvas=(320, 320),
            size=(320, 320),
            degrees=30,
            translate=0.1,
            scale=0.9,
            shear=0,
            perspective=0,
        )
        assert 0.1 <= zoom <= 1.9
        assert np.linalg.det(matrix[:2, :2]) == pytest.approx(zoom**2)
        assert abs(math.degrees(math.atan2(matrix[0, 1], matrix[0, 0]))) <= 30
        centre = matrix @ (160, 160, 1)
        assert np.abs(centre[:2] - 160).max() <= 32 + 1e-9


def test_a_setting_does_not_shift_the_draws_of_the_others() -> None:
    square = {"canvas": (64, 64), "size": (64, 64), **NOTHING, "translate": 0.1}
    some, _ = random_affine(draws(0, 0, 1, 0).random(8), **square)
    both, _ = random_affine(draws(0, 0, 1, 0).random(8), **{**square, "degrees": 20})
    assert (some @ (32, 32, 1))[:2] == pytest.approx((both @ (32, 32, 1))[:2])


def test_mixup_weighs_pixels() -> None:
    image, other = np.full((4, 4, 3), 200, np.uint8), np.full((4, 4, 3), 100, np.uint8)
    mixup(image, other, 0.25)
    assert (image == 125).all()


def test_hsv_with_unit_gains_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    before = image.copy()
    apply_hsv(image, hsv_gains(draws(0, 0, 0, 4).random(3), hue=0, saturation=0, value=0))
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    ("gains", "colour", "expected"),
    [
        ((0.0, 1.0, 0.5), (200, 100, 50), (100, 50, 25)),  # value halves every channel
        ((0.0, 0.0, 1.0), (200, 100, 50), (200, 200, 200)),  # no saturation leaves the largest channel
        ((0.0, 2.0, 1.0), (90, 90, 90), (90, 90, 90)),  # gray has no saturation to raise
        ((1 / 3, 1.0, 1.0), (255, 0, 0), (0, 255, 0)),  # a third of the circle: red to green
        ((-1 / 3, 1.0, 1.0), (255, 0, 0), (0, 0, 255)),  # and to blue the other way
        ((0.0, 1.0, 2.0), (200, 200, 200), (255, 255, 255)),
    ],
)
def test_hsv_by_hand(
    gains: tuple[float, float, float], colour: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    image = np.full((300, 7, 3), colour, dtype=np.uint8)
    apply_hsv(image, gains)
    assert np.abs(image.astype(int) - expected).max() <= 2  # 8-bit hue and saturation


@pytest.mark.parametrize("gains", [(0.07, 1.2, 0.9), (-0.013, 0.7, 1.3), (0.33, 1.0, 1.0)])
def test_hsv_is_near_the_exact_colour_for_any_colour(gains: tuple[float, float, float]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 3000, 3), dtype=np.uint8)
    exact = []
    for colour in image[0] / 255:
        hue, saturation, value = colorsys.rgb_to_hsv(*colour.tolist())
        moved = (hue + gains[0]) % 1, min(saturation * gains[1], 1), min(value * gains[2], 1)
        exact.append(colorsys.hsv_to_rgb(*moved))
    apply_hsv(image, gains)
    difference = np.abs(image[0] - np.array(exact) * 255)
    assert difference.mean() < 0.7  # levels of 255; hues in 180 steps, the usual way, give up to 1.2
    assert difference.max() < 9.0
