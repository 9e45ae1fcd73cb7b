from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from painted import components, extent

from holdfast.data.augment import cut_boxes, flip, scaling, translation, warp_boxes
from holdfast.data.eval_samples import EvalSamples
from holdfast.data.image import FILL
from holdfast.data.index import Index
from holdfast.data.mosaic import outlines, paste, place_mosaic, place_single, reduction, windows_of
from holdfast.data.samples import TrainSamples

STILL = {"translate": 0.0, "scale": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "fliplr": 0.0}


def test_tiles_meet_at_the_centre_and_are_cut_at_the_canvas() -> None:
    # size 100, canvas 200, centre (60, 150): a 100 x 50 (h x w) and three 50 x 100 images, ratio 1
    sizes = [(100, 50), (50, 100), (50, 100), (50, 100)]
    top_left, top_right, bottom_left, bottom_right = place_mosaic(sizes, (60, 150), 100)
    assert (top_left.left, top_left.top, top_left.visible) == (10, 50, (0, 0, 50, 100))
    assert (top_right.left, top_right.top, top_right.visible) == (60, 100, (0, 0, 100, 50))
    # 100 wide, only 60 columns left of the centre: the left 40 are cut
    assert (bottom_left.left, bottom_left.top, bottom_left.visible) == (-40, 150, (40, 0, 100, 50))
    assert (bottom_right.left, bottom_right.top, bottom_right.visible) == (60, 150, (0, 0, 100, 50))


def test_long_sides_are_scaled_to_the_size() -> None:
    placed = place_single(200, 400, 100, 100)
    assert (placed.ratio, placed.left, placed.top, placed.visible) == (0.25, 0, 25, (0, 0, 400, 200))


def test_boxes_are_cut_to_their_tile() -> None:
    bottom_left = place_mosaic([(50, 100)] * 4, (60, 150), 100)[2]
    boxes = np.array([[0, 0, 30, 50], [30, 10, 60, 20]], np.float32)
    assert cut_boxes(boxes, bottom_left.visible).tolist() == [
        [40, 0, 40, 50],
        [40, 10, 60, 20],
    ]  # the first has no width left


@pytest.mark.parametrize(
    ("scale", "ratio", "expected"),
    [
        (1.0, 1.0, 1),
        (0.51, 1.0, 1),
        (0.5, 1.0, 2),
        (0.25, 0.5, 4),
        (0.1, 0.5, 8),
        (0.5, 0.5, 2),  # long side 640 to an output of 320
        (0.7, 0.5, 2),  # enlarged to 1.4 after halving: as the usual way would
        (0.8, 0.5, 1),  # 1.6 is too much
        (0.7, 0.6, 1),  # halving would be coarser than the usual way
        (1.0 / 3000, 1.0 / 3000, 1024),
    ],
)
def test_how_much_smaller_an_image_may_be_read(scale: float, ratio: float, expected: int) -> None:
    assert reduction(scaling(scale, scale), ratio) == expected


@pytest.mark.parametrize("turn", [0.0, 90.0, 33.0, -12.0])
@pytest.mark.parametrize("zoom", [0.45, 1.0, 1.7, 3.1])
@pytest.mark.parametrize("mirror", [False, True])
def test_pixels_land_where_boxes_say(turn: float, zoom: float, mirror: bool) -> None:
    pixels = np.full((120, 160, 3), 60, np.uint8)
    box = np.array([[70, 50, 94, 66]], np.float32)
    pixels[50:66, 70:94] = (255, 0, 0)
    angle = np.deg2rad(turn)
    cosine, sine = np.cos(angle) * zoom, np.sin(angle) * zoom
    rotate = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]]) if turn else scaling(zoom, zoom)
    matrix = translation(101.3, 97.8) @ rotate @ translation(-82, -58)
    if mirror:
        matrix = flip(200, 200, horizontal=True, vertical=False) @ matrix
    out = np.full((200, 200, 3), FILL, np.uint8)
    corners = np.array([[0, 0, 1], [160, 0, 1], [160, 120, 1], [0, 120, 1]]) @ matrix.T
    (window,) = windows_of(corners[None, :, :2], 200, 200)
    assert window is not None
    used = paste(out, pixels, matrix, corners[:, :2], window)
    expected = warp_boxes(box, used, width=200, height=200)[0]
    assert np.abs(expected - warp_boxes(box, matrix, width=200, height=200)[0]).max() <= zoom / 2 + 1e-3
    found = extent(out, 0)
    assert found is not None
    tolerance = 1.01 if turn in (0.0, 90.0) else 1.8  # the tip of a turned corner is thinner than a pixel
    assert np.abs(np.array(found) - expected).max() <= tolerance


def test_an_identity_map_copies_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    out = np.zeros_like(pixels)
    placed = place_single(64, 64, 64, 64)
    (corners,) = outlines([placed], np.eye(3)[None])
    used = paste(out, pixels, np.eye(3), corners, (0, 0, 64, 64))
    assert np.array_equal(out, pixels)
    assert np.array_equal(used, np.eye(3))


def test_a_sample_without_augmentation_is_the_letterboxed_image(painted: Callable[..., Index]) -> None:
    index = painted([((48, 64), [(0, (10, 8, 30, 40))])])
    sample = TrainSamples(index, imgsz=64, epochs=1, mosaic=0, **STILL).get(0, 0)
    assert np.allclose(sample.boxes, [[10, 16, 30, 48]], atol=1e-4)
    assert (sample.image[:8] == FILL).all()
    assert (sample.image[56:] == FILL).all()
    assert (sample.image[16:48, 10:30] == (255, 0, 0)).all()
    assert (sample.image[8:16] == 60).all()


@pytest.mark.parametrize("seed", range(8))
def test_training_without_augmentation_sees_what_validation_sees(
    painted: Callable[..., Index], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    sides = [tuple(draw.integers(64, 200, 2).tolist()) for _ in range(8)] + [(111, 118), (73, 128), (51, 200)]
    index = painted([(size, [(0, (10, 8, 30, 40)), (1, (33, 11, 47, 44))]) for size in sides])
    training = TrainSamples(index, imgsz=128, epochs=1, mosaic=0, **STILL)
    validation = EvalSamples(index, imgsz=128, rect=False, pad=0.0, batch=len(index))
    for number, size in enumerate(sides):
        seen, shown = training.get(0, number), validation.get(number)
        assert np.allclose(seen.boxes, shown.boxes, atol=1e-3), size
        frame = [(sample.image == FILL).all(axis=2) for sample in (seen, shown)]
        assert np.array_equal(*frame), size
        if max(size) <= 128:  # larger ones are shrunk faster in training
            assert np.array_equal(seen.image, shown.image), size


def test_flips_move_boxes_and_pixels_alike(painted: Callable[..., Index]) -> None:
    index = painted([((64, 64), [(0, (4, 8, 20, 40))])])
    sample = TrainSamples(index, imgsz=64, epochs=1, mosaic=0, flipud=1.0, **{**STILL, "fliplr": 1.0}).get(
        0, 0
    )
    assert sample.boxes.tolist() == [[44, 24, 60, 56]]
    assert extent(sample.image, 0) == (44, 24, 60, 56)


@pytest.mark.parametrize("degrees", [0.0, 5.0])
def test_tiles_leave_no_seam(painted: Callable[..., Index], degrees: float) -> None:
    index = painted([((64, 64), [(0, (0, 0, 64, 64))])])
    samples = TrainSamples(index, imgsz=64, epochs=1, degrees=degrees, **STILL)
    for seed in range(20):
        samples.seed = seed
        # Square tiles cover at least the middle of the output, wherever they meet.
        assert (samples.get(0, 0).image[24:40, 24:40] == (255, 0, 0)).all()


@pytest.mark.parametrize("degrees", [0.0, 15.0])
def test_mosaic_boxes_agree_with_the_pixels(painted: Callable[..., Index], degrees: float) -> None:
    # One rectangle in the middle of each image, so rectangles of neighbouring tiles never touch.
    sizes = [(96, 128), (128, 96), (128, 128), (64, 128), (150, 200)]
    images = [
        (size, [(number % 3, (size[1] // 4, size[0] // 4, size[1] * 3 // 4, size[0] * 3 // 4))])
        for number, size in enumerate(sizes)
    ]
    index = painted(images)
    samples = TrainSamples(index, imgsz=128, epochs=1, degrees=degrees, scale=0.4, hsv_h=0, hsv_s=0, hsv_v=0)
    checked = 0
    for seed in range(60):
        samples.seed = seed
        sample = samples.get(0, seed % len(sizes))
        for label, box in zip(sample.classes.tolist(), sample.boxes, strict=True):
            if (box[2:] - box[:2]).min() < 8:
                continue
            islands = components(sample.image, label)
            if degrees:  # the hull of a turned and cut rectangle holds its pixels
                inside = [(i[:2] >= box[:2] - 1.5).all() and (i[2:] <= box[2:] + 1.5).all() for i in islands]
                assert any(inside)
            else:
                assert min(np.abs(island - box).max() for island in islands) <= 1.5
            checked += 1
    assert checked > 100


def test_labels_are_always_fit_for_the_loss(painted: Callable[..., Index]) -> None:
    index = painted([((96, 128), [(1, (0, 0, 128, 96)), (2, (60, 40, 70, 50))]), ((64, 64), [])])
    samples = TrainSamples(
        index, imgsz=96, epochs=1, mixup=0.5, degrees=45, shear=20, perspective=0.002, scale=0.9, flipud=0.5
    )
    for seed in range(80):
        samples.seed = seed
        sample = samples.get(0, seed % 2)
        assert sample.image.shape == (96, 96, 3)
        assert sample.image.dtype == np.uint8
        assert sample.boxes.dtype == np.float32
        assert sample.classes.dtype == np.int64
        assert len(sample.boxes) == len(sample.classes)
        if len(sample.boxes):
            assert sample.boxes.min() >= 0
            assert sample.boxes.max() <= 96
            assert (sample.boxes[:, 2:] - sample.boxes[:, :2]).min() > 2
            assert set(sample.classes.tolist()) <= {1, 2}


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_boxes_of_all_tiles_at_once_are_those_of_each_tile(
    painted: Callable[..., Index], degrees: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = painted(
        [
            ((60, 80), [(0, (5, 5, 60, 50)), (1, (30, 20, 70, 58))]),
            ((80, 50), []),
            ((40, 40), [(2, (0, 0, 9, 39))]),
        ]
    )
    samples = TrainSamples(index, imgsz=64, epochs=9, degrees=degrees, flipud=0.5)
    together = [samples.get(epoch, i).objects for epoch in range(9) for i in range(3)]
    monkeypatch.setattr(Index, "only_boxes", False)
    apart = [samples.get(epoch, i).objects for epoch in range(9) for i in range(3)]
    assert sum(len(objects) for objects in together) > 20
    for one, other in zip(together, apart, strict=True):
        assert np.array_equal(one.classes, other.classes)
        assert np.array_equal(one.boxes, other.boxes)
