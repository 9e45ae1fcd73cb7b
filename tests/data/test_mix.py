"""Two pictures in one: what is pasted is what is labelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from painted import mask

from holdfast.data.index import Index
from holdfast.data.mix import cutmix, fill_outlines, free_window, hidden_share, paste_objects
from holdfast.data.objects import Objects
from holdfast.data.random import draws
from holdfast.data.samples import TrainSamples

STILL = {"translate": 0.0, "scale": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "fliplr": 0.0}
GRAY = (60, 60, 60)


def outlined(classes: list[int], boxes: list[list[float]]) -> Objects:
    """Objects whose outline is their box."""
    array = np.array(boxes, np.float32).reshape(-1, 4)
    points = array[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    starts = np.arange(len(classes) + 1, dtype=np.int64) * 4
    return Objects(np.array(classes, np.int64), array, points, starts)


def with_outlines(index: Index) -> Index:
    """The same index with outlines: the borders of the boxes."""
    low, high = index.boxes[:, :2] - index.boxes[:, 2:] / 2, index.boxes[:, :2] + index.boxes[:, 2:] / 2
    points = np.concatenate([low, high], axis=1)[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    return replace(index, points=points, starts=np.arange(len(index.boxes) + 1, dtype=np.int32) * 4)


def test_hidden_shares_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    others = np.array([[5, 0, 15, 10], [0, 0, 40, 40]], np.float32)
    assert hidden_share(boxes, others).tolist() == pytest.approx(np.array([[0.5, 0.0625], [0, 0.0625]]))


def test_windows_touch_no_box() -> None:
    boxes = np.array([[0, 0, 40, 100], [60, 50, 100, 100]], np.float32)
    found = [free_window(draws(0, 0, i, 0), boxes, height=100, width=100) for i in range(300)]
    windows = np.array([window for window in found if window is not None], np.float32)
    assert 20 < len(windows) < 280
    assert hidden_share(windows, boxes).max() == 0
    assert (windows[:, :2] < windows[:, 2:]).all()
    assert windows.min() >= 0
    assert windows.max() <= 100
    whole = np.array([[0, 0, 100, 100]], np.float32)
    assert free_window(draws(0, 0, 0, 0), whole, height=100, width=100) is None
    nothing = np.zeros((0, 4), np.float32)
    assert free_window(draws(0, 0, 0, 0), nothing, height=100, width=100) is not None


def test_cutmix_shows_the_other_picture_in_the_window_only() -> None:
    image, other = np.full((100, 100, 3), 1, np.uint8), np.full((100, 100, 3), 2, np.uint8)
    objects = outlined([0], [[0, 0, 30, 30]])
    found = outlined([1, 2, 1], [[40, 40, 60, 60], [0, 0, 45, 45], [90, 90, 99, 99]])
    joined = cutmix(image, objects, other, found, (50, 40, 100, 80))
    assert (image[40:80, 50:] == 2).all()
    assert (image == 2).sum() == 40 * 50 * 3
    assert joined.classes.tolist() == [0, 1]
    assert joined.boxes.tolist() == [[0, 0, 30, 30], [50, 40, 60, 60]]


def test_pasted_are_those_that_hide_little_of_what_is_there() -> None:
    image, other = np.zeros((100, 100, 3), np.uint8), np.full((100, 100, 3), 9, np.uint8)
    objects = outlined([0], [[0, 0, 40, 40]])
    found = outlined([1, 2, 3], [[10, 10, 50, 50], [30, 30, 60, 60], [70, 70, 90, 90]])
    joined = paste_objects(image, objects, other, found, 1.0)
    assert joined.classes.tolist() == [0, 3, 2]  # least hiding first; the first hides 900 of 1600 pixels
    assert (image[70:90, 70:90] == 9).all()
    assert (image[30:60, 30:60] == 9).all()
    assert (image == 9).sum() <= (21 * 21 + 31 * 31) * 3  # OpenCV's polygons include their edge
    half = paste_objects(np.zeros_like(image), objects, other, found, 0.5)
    assert half.classes.tolist() == [0, 3]
    none = paste_objects(np.zeros_like(image), objects, other, found, 0.0)
    assert none.classes.tolist() == [0]


def test_objects_without_outline_are_not_pasted() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    found = Objects.of_boxes(np.array([1]), np.array([[0, 0, 9, 9]], np.float32))
    assert len(paste_objects(image, outlined([], []), np.ones_like(image), found, 1.0)) == 0
    assert not image.any()


def test_overlapping_outlines_leave_no_hole() -> None:
    both = outlined([0, 0], [[0, 0, 30, 30], [20, 20, 50, 50]])
    filled = fill_outlines(both, height=60, width=60) > 0
    assert filled[:30, :30].all()
    assert filled[20:50, 20:50].all()
    assert filled.sum() <= 31 * 31 * 2 - 10 * 10


@pytest.mark.parametrize("mode", ["flip", "mixup"])
def test_pasted_objects_lie_where_their_labels_say(painted: Callable[..., Index], mode: str) -> None:
    index = with_outlines(
        painted([((64, 64), [(0, (4, 4, 20, 28))]), ((64, 64), [(1, (40, 36, 56, 60))])])
    )
    made = TrainSamples(index, imgsz=64, epochs=1, mosaic=0, copy_paste=1.0, copy_paste_mode=mode, **STILL)
    seen = set()
    for seed in range(8):
        made.seed = seed
        sample = made.get(0, 0)
        seen.add(len(sample.objects))
        union = np.zeros((64, 64), bool)
        for label, box in zip(sample.classes.tolist(), np.rint(sample.boxes).astype(int), strict=True):
            x0, y0, x1, y1 = box.tolist()
            assert mask(sample.image, label)[y0:y1, x0:x1].all()
            union[y0:y1, x0:x1] = True
        assert (sample.image[~union] == GRAY).all()
    assert 2 in seen
    if mode == "flip":
        assert sample.boxes.tolist() == [[4, 4, 20, 28], [44, 4, 60, 28]]


@pytest.mark.parametrize("tiles", ["9", "auto"])
def test_nine_tiles_agree_with_their_pixels(painted: Callable[..., Index], tiles: str) -> None:
    sizes = [(96, 128), (128, 96), (128, 128), (64, 128)]
    index = painted(
        [
            (size, [(number % 3, (size[1] // 4, size[0] // 4, size[1] * 3 // 4, size[0] * 3 // 4))])
            for number, size in enumerate(sizes)
        ]
    )
    made = TrainSamples(index, imgsz=192, epochs=1, mosaic_tiles=tiles, **STILL)
    counts = set()
    for seed in range(30):
        made.seed = seed
        sample = made.get(0, seed % 4)
        counts.add(len(sample.boxes))
        for label, box in zip(sample.classes.tolist(), np.rint(sample.boxes).astype(int), strict=True):
            x0, y0, x1, y1 = box.tolist()
            if min(x1 - x0, y1 - y0) > 4:
                assert mask(sample.image, label)[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].all()
    assert max(counts) > 4


def test_what_cannot_act_is_said(painted: Callable[..., Index]) -> None:
    index = painted([((64, 64), [(0, (4, 4, 20, 28))])])

    def remarks(**options: object) -> list[str]:
        return TrainSamples(index, imgsz=64, **{"epochs": 2, **options}).remarks()  # type: ignore[arg-type]

    assert remarks() == []
    assert remarks(copy_paste=0.5) == ["copy_paste: off, the labels have no outlines to cut along"]
    assert remarks(mosaic=0, mixup=0.2) == ["mixup: off, it blends mosaics and mosaic is 0"]
    assert remarks(rect=True) == ["mosaic: off, rect keeps images whole"]
    assert remarks(rect=True, mosaic=0) == []
    assert remarks(close_mosaic=2, cutmix=0.1) == [
        "mosaic, cutmix: off from the start, close_mosaic covers all 2 epochs"
    ]


def test_with_outlines_copy_paste_has_nothing_to_say(painted: Callable[..., Index]) -> None:
    index = with_outlines(painted([((64, 64), [(0, (4, 4, 20, 28))])]))
    assert TrainSamples(index, imgsz=64, epochs=2, copy_paste=0.5).remarks() == []


def test_keypoints_are_flipped_only_with_a_flip_index(
    painted: Callable[..., Index],
) -> None:
    points = np.array([[[6, 10, 2], [18, 30, 1]]], np.float32)
    parts = points / np.array([64, 64, 1], np.float32)
    index = replace(painted([((64, 64), [(0, (4, 8, 20, 40))])]), keypoints=parts)
    options = {"imgsz": 64, "epochs": 1, "mosaic": 0, **STILL, "fliplr": 1.0}
    still = TrainSamples(index, **options)  # type: ignore[arg-type]
    assert still.remarks() == ["fliplr: off, there are keypoints but no flip_idx in data.yaml"]
    assert still.get(0, 0).objects.keypoints.tolist() == points.tolist()  # type: ignore[union-attr]
    flipped = TrainSamples(index, flip_index=[1, 0], **options)  # type: ignore[arg-type]
    assert flipped.remarks() == []
    sample = flipped.get(0, 0)
    assert sample.boxes.tolist() == [[44, 8, 60, 40]]
    assert sample.objects.keypoints.tolist() == [[[46, 30, 1], [58, 10, 2]]]  # type: ignore[union-attr]
