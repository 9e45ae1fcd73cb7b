"""Lists of objects: taking and joining keep every array with its object."""

from __future__ import annotations

import numpy as np

from holdfast.data.objects import Objects


def some(*, full: bool) -> Objects:
    points = np.arange(14, dtype=np.float32).reshape(7, 2)
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    keypoints = np.arange(18, dtype=np.float32).reshape(3, 2, 3) if full else None
    corners = np.arange(24, dtype=np.float32).reshape(3, 4, 2) if full else None
    return Objects(np.array([5, 6, 7]), boxes, points, np.array([0, 3, 3, 7]), keypoints, corners)


def test_outlines_belong_to_their_objects() -> None:
    objects = some(full=False)
    assert [len(objects.outline(i)) for i in range(3)] == [3, 0, 4]
    assert objects.outline(2)[0].tolist() == [6, 7]


def test_taking_by_mask_and_by_index_keeps_everything_together() -> None:
    objects = some(full=True)
    by_mask, by_index = objects.take(np.array([True, False, True])), objects.take(np.array([2, 0]))
    assert by_mask.classes.tolist() == [5, 7]
    assert by_index.classes.tolist() == [7, 5]
    np.testing.assert_array_equal(by_index.outline(0), objects.outline(2))
    np.testing.assert_array_equal(by_index.outline(1), objects.outline(0))
    np.testing.assert_array_equal(by_index.keypoints, objects.keypoints[[2, 0]])
    np.testing.assert_array_equal(by_mask.corners, objects.corners[[0, 2]])
    assert len(objects.take(np.zeros(3, dtype=bool))) == 0


def test_joining_the_parts_gives_the_whole() -> None:
    objects = some(full=True)
    parts = [objects.take(np.array([i])) for i in range(3)]
    again = Objects.join(parts)
    for name in ("classes", "boxes", "points", "starts", "keypoints", "corners"):
        np.testing.assert_array_equal(getattr(again, name), getattr(objects, name))


def test_boxes_alone_have_no_outlines() -> None:
    objects = Objects.of_boxes(np.array([1, 2]), np.zeros((2, 4), np.float32))
    assert len(objects.outline(1)) == 0
    assert len(Objects.join([objects, objects])) == 4
