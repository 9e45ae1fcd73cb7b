"""Maps and cuts treat boxes, outlines, keypoints and corners alike."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data.augment import flip, random_affine, scaling, translation
from holdfast.data.mix import fill_outlines
from holdfast.data.objects import Objects
from holdfast.data.random import draws
from holdfast.data.warp import clip_polygon, cut_objects, keep_objects, move_objects, warp_objects

SIZE = 200
FLIP_INDEX = np.array([0, 2, 1])


def full(seed: int, count: int = 4, *, corners: bool = True) -> Objects:
    """Objects with an outline (a regular polygon), three keypoints and turned corners each."""
    rng = np.random.default_rng(seed)
    centres, radius = rng.random((count, 2)) * SIZE, rng.random(count) * 40 + 5
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    points = np.clip(centres[:, None] + radius[:, None, None] * circle, 0, SIZE).astype(np.float32)
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    places = centres[:, None] + (rng.random((count, 3, 2)) - 0.5) * radius[:, None, None]
    seen = rng.integers(0, 3, (count, 3, 1))
    keypoints = np.concatenate([np.clip(places, 0, SIZE) * (seen > 0), seen], axis=2).astype(np.float32)
    turned = centres[:, None] + radius[:, None, None] * circle[[3, 17, 23, 37]]
    starts = np.arange(count + 1, dtype=np.int64) * 40
    return Objects(
        np.arange(count, dtype=np.int64),
        boxes.astype(np.float32),
        points.reshape(-1, 2),
        starts,
        keypoints,
        turned.astype(np.float32) if corners else None,
    )


def only_boxes(objects: Objects) -> Objects:
    return Objects.of_boxes(objects.classes, objects.boxes)


def some_map(seed: int, *, perspective: float = 0.0) -> np.ndarray:
    matrix, _ = random_affine(
        draws(seed, 0, 0, 0).random(8),
        canvas=(SIZE, SIZE),
        size=(SIZE, SIZE),
        degrees=60,
        translate=0.3,
        scale=0.6,
        shear=15,
        perspective=perspective,
    )
    return matrix


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_identity_changes_nothing(seed: int) -> None:
    for objects in (only_boxes(full(seed)), full(seed, corners=False)):
        same = warp_objects(objects, np.eye(3), width=SIZE, height=SIZE, flip_index=FLIP_INDEX)
        np.testing.assert_allclose(same.boxes, objects.boxes, atol=1e-4)
        np.testing.assert_array_equal(same.points, objects.points)
        np.testing.assert_array_equal(same.starts, objects.starts)
        if objects.keypoints is not None:
            np.testing.assert_array_equal(same.keypoints, objects.keypoints)
    inside = full(seed)
    moved = move_objects(inside, np.eye(3))
    np.testing.assert_array_equal(moved.corners, inside.corners)


@given(seed=st.integers(0, 10_000), perspective=st.sampled_from([0.0, 0.0005, 0.004]))
@settings(max_examples=150, deadline=None)
def test_boxes_stay_boxes_and_everything_stays_inside(seed: int, perspective: float) -> None:
    objects = full(seed)
    warped = warp_objects(objects, some_map(seed, perspective=perspective), width=SIZE, height=150)
    assert warped.classes.tolist() == objects.classes.tolist()
    limit = np.array([SIZE, 150], np.float32)
    assert np.isfinite(warped.boxes).all()
    assert (warped.boxes[:, :2] <= warped.boxes[:, 2:]).all()
    assert (warped.boxes >= 0).all()
    assert (warped.boxes.reshape(-1, 2) <= limit).all()
    assert (warped.points >= 0).all()
    assert (warped.points <= limit).all()
    assert warped.starts[0] == 0
    assert warped.starts[-1] == len(warped.points)
    assert (np.diff(warped.starts) >= 0).all()
    assert warped.keypoints is not None
    assert warped.corners is not None
    assert np.isfinite(warped.corners).all()
    seen = warped.keypoints[:, :, 2] > 0
    assert (warped.keypoints[seen][:, :2] <= limit).all()
    assert (warped.keypoints[~seen] == 0).all()
    for number in range(len(warped)):  # the box is the hull of the outline
        outline = warped.outline(number)
        if len(outline):
            np.testing.assert_array_equal(warped.boxes[number, :2], outline.min(axis=0))
            np.testing.assert_array_equal(warped.boxes[number, 2:], outline.max(axis=0))
        else:
            assert (warped.boxes[number, :2] == warped.boxes[number, 2:]).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_outlines_and_pixels_agree(seed: int) -> None:
    objects, matrix = full(seed, 1), some_map(seed)
    mask = fill_outlines(objects, height=SIZE, width=SIZE)
    shifted = translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5)
    expected = cv2.warpAffine(mask, shifted[:2], (SIZE, SIZE), flags=cv2.INTER_LINEAR) > 127
    warped = warp_objects(objects, matrix, width=SIZE, height=SIZE)
    found = fill_outlines(warped, height=SIZE, width=SIZE) > 0
    if len(warped.points) == 0:
        assert expected.sum() < 20
        return
    edge = 4 * math.sqrt(max(expected.sum(), 1)) * 2 + 40  # pixels a boundary may differ by
    assert (expected != found).sum() <= edge
    ys, xs = np.nonzero(found)
    if len(xs):
        box = warped.boxes[0]
        assert abs(xs.min() - box[0]) <= 2
        assert abs(xs.max() + 1 - box[2]) <= 2
        assert abs(ys.min() - box[1]) <= 2
        assert abs(ys.max() + 1 - box[3]) <= 2


@given(seed=st.integers(0, 10_000), perspective=st.sampled_from([0.0, 0.0005]))
@settings(max_examples=60, deadline=None)
def test_keypoints_do_not_change_what_becomes_of_boxes(seed: int, perspective: float) -> None:
    matrix = some_map(seed, perspective=perspective) if seed % 2 else translation(30, -40) @ scaling(1.3, 0.8)
    plain = only_boxes(full(seed))
    with_points = plain.replace(keypoints=full(seed).keypoints)
    boxes = warp_objects(plain, matrix, width=SIZE, height=SIZE).boxes
    same = warp_objects(with_points, matrix, width=SIZE, height=SIZE).boxes
    np.testing.assert_allclose(same, boxes, atol=1e-3)


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True)])
def test_mirrors_exchange_keypoints_and_half_turns_do_not(horizontal: bool, vertical: bool) -> None:
    objects = full(5)
    matrix = flip(SIZE, SIZE, horizontal=horizontal, vertical=vertical)
    flipped = warp_objects(objects, matrix, width=SIZE, height=SIZE, flip_index=FLIP_INDEX)
    order = FLIP_INDEX if horizontal != vertical else np.arange(3)
    assert flipped.keypoints is not None
    assert objects.keypoints is not None
    np.testing.assert_array_equal(flipped.keypoints[:, :, 2], objects.keypoints[:, order, 2])
    again = warp_objects(flipped, matrix, width=SIZE, height=SIZE, flip_index=FLIP_INDEX)
    np.testing.assert_allclose(again.keypoints, objects.keypoints, atol=1e-4)
    np.testing.assert_allclose(again.points, objects.points, atol=1e-4)


def test_keypoints_that_leave_the_picture_are_not_labelled() -> None:
    objects = Objects.of_boxes(np.array([0]), np.array([[10, 10, 90, 90]], np.float32))
    points = np.array([[[20, 50, 2], [80, 50, 1], [0, 0, 0]]], np.float32)
    objects = objects.replace(keypoints=points)
    moved = warp_objects(objects, translation(-40, 0), width=100, height=100)
    assert moved.keypoints is not None
    assert moved.keypoints.tolist() == [[[0, 0, 0], [40, 50, 1], [0, 0, 0]]]
    assert moved.boxes.tolist() == [[0, 10, 50, 90]]


def test_corners_turn_with_the_picture() -> None:
    corners = np.array([[[20, 20], [60, 20], [60, 40], [20, 40]]], np.float32)
    objects = Objects.of_boxes(np.array([0]), np.array([[20, 20, 60, 40]], np.float32)).replace(
        corners=corners
    )
    quarter = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 100.0], [0.0, 0.0, 1.0]])  # (x, y) -> (y, 100 - x)
    turned = warp_objects(objects, quarter, width=100, height=100)
    assert turned.corners is not None
    assert turned.corners[0].tolist() == [[20, 80], [20, 40], [40, 40], [40, 80]]
    assert turned.boxes.tolist() == [[20, 40, 40, 80]]


def test_cut_corners_are_fitted_again() -> None:
    corners = np.array([[[-20, 20], [60, 20], [60, 40], [-20, 40]]], np.float32)
    objects = Objects.of_boxes(np.array([0]), np.array([[-20, 20, 60, 40]], np.float32))
    cut = cut_objects(objects.replace(corners=corners), (0.0, 0.0, 100.0, 100.0))
    assert cut.boxes.tolist() == [[0, 20, 60, 40]]
    assert cut.corners is not None
    assert sorted(np.rint(cut.corners[0]).tolist()) == [[0, 20], [0, 40], [60, 20], [60, 40]]


def test_sheared_corners_are_rectangles_again() -> None:
    objects = full(1)
    sheared = move_objects(objects, np.array([[1.0, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert sheared.corners is not None
    for four in sheared.corners:
        sides = np.roll(four, -1, axis=0) - four
        assert np.abs((sides * np.roll(sides, -1, axis=0)).sum(axis=1)).max() < 0.1
        np.testing.assert_allclose(sides[0], -sides[2], atol=1e-2)


def test_polygons_are_cut_exactly() -> None:
    triangle = np.array([[-10, 0], [10, 0], [10, 20]], np.float32)  # the hypotenuse crosses x = 0 at y = 10
    assert clip_polygon(triangle, (0, 0, 20, 20)).tolist() == [[0, 0], [10, 0], [10, 20], [0, 10]]
    assert len(clip_polygon(triangle, (30, 30, 40, 40))) == 0
    around = clip_polygon(np.array([[-9, -9], [99, -9], [99, 99], [-9, 99]], np.float32), (0, 0, 20, 30))
    assert sorted(around.tolist()) == [[0, 0], [0, 30], [20, 0], [20, 30]]


def test_a_sliver_with_an_outline_is_kept_and_a_plain_one_is_not() -> None:
    square = np.array([[0, 0], [100, 0], [100, 100], [0, 100]], np.float32)
    outlined = Objects(np.array([1]), np.array([[0, 0, 100, 100]], np.float32), square, np.array([0, 4]))
    for objects, kept in ((outlined, 1), (only_boxes(outlined), 0)):
        cut = cut_objects(objects, (95.0, 0.0, 200.0, 100.0))
        assert len(keep_objects(objects.boxes, cut, zoom=1.0)) == kept


def test_objects_behind_the_viewer_vanish_as_a_whole() -> None:
    objects = full(2)
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0], [-0.05, 0, 1.0]])  # depth is negative beyond x = 20
    warped = warp_objects(objects, matrix, width=SIZE, height=SIZE)
    gone = objects.boxes[:, 2] > 20
    assert gone.any()
    assert (warped.boxes[gone] == 0).all()
    assert (np.diff(warped.starts)[gone] == 0).all()
    assert warped.keypoints is not None
    assert (warped.keypoints[gone] == 0).all()
