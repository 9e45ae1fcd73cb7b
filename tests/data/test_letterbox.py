from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.data.image import FILL
from holdfast.data.letterbox import Letterbox, apply, batch_shape, fit, place, smallest_shape


@pytest.mark.parametrize(
    ("size", "out", "enlarge", "expected"),
    [
        ((480, 640), (640, 640), True, Letterbox(1.0, 1.0, 0, 80, 480, 640)),
        ((480, 640), (320, 320), True, Letterbox(0.5, 0.5, 0, 40, 480, 640)),
        ((100, 50), (320, 320), True, Letterbox(3.2, 3.2, 80, 0, 100, 50)),
        ((100, 50), (320, 320), False, Letterbox(1.0, 1.0, 135, 110, 100, 50)),
        # 427 * 0.5 = 213.5 rounds to 214 (even): the axes differ; an odd rest of 107 puts 53 above
        ((427, 640), (321, 320), True, Letterbox(0.5, 214 / 427, 0, 53, 427, 640)),
        ((1, 2000), (640, 640), True, Letterbox(0.32, 1.0, 0, 319, 1, 2000)),
    ],
)
def test_geometry_by_hand(
    size: tuple[int, int], out: tuple[int, int], enlarge: bool, expected: Letterbox
) -> None:
    assert fit(*size, *out, enlarge=enlarge) == pytest.approx(expected)


def test_geometry_is_the_published_one(shared: Path) -> None:
    cases = json.loads((shared / "fixtures/yolo26/letterbox.json").read_text())
    for case in cases:
        height, width = case["image_hw"]
        target = case["new_shape"]
        out = (target, target) if isinstance(target, int) else tuple(target)
        if case["auto"]:
            out = smallest_shape(height, width, out, enlarge=case["scaleup"])
        box = fit(height, width, *out, enlarge=case["scaleup"])
        resized = [round(height * box.scale_y), round(width * box.scale_x)]
        top, bottom, left, right = case["pad_tblr"]
        assert resized == case["resized_hw"], case
        assert [box.top, box.left] == [top, left], case
        assert [out[0] - resized[0] - box.top, out[1] - resized[1] - box.left] == [bottom, right], case


def test_boxes_come_back_where_they_were() -> None:
    box = fit(427, 640, 320, 320)
    original = np.array([[0, 0, 640, 427], [10.5, 20.25, 300, 400]], dtype=np.float32)
    assert np.allclose(box.to_original(box.to_input(original)), original, atol=1e-3)
    tensor = torch.from_numpy(original)
    assert torch.allclose(box.to_original(box.to_input(tensor)), tensor, atol=1e-3)


def test_boxes_outside_the_image_are_clipped_on_the_way_back() -> None:
    box = fit(480, 640, 320, 320)  # 40 rows of padding above, scale 0.5
    back = box.to_original(np.array([[-5, 0, 330, 320]], dtype=np.float32))
    assert back.tolist() == [[0, 0, 640, 480]]


def test_empty_boxes_stay_empty() -> None:
    box = fit(480, 640, 320, 320)
    assert box.to_original(torch.zeros(0, 4)).shape == (0, 4)
    assert box.to_input(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_pixels_lie_where_the_geometry_says() -> None:
    image = np.full((480, 640, 3), 10, dtype=np.uint8)
    image[100:200, 300:400] = 250
    out = np.zeros((352, 352, 3), dtype=np.uint8)
    box = place(480, 640, 240, 320, 352, 352)
    apply(image, box, out)
    assert (box.left, box.top) == (16, 56)
    rows, columns = np.nonzero(out[:, :, 0] == 250)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (166, 106, 216, 156)
    assert box.to_input(np.array([[300, 100, 400, 200]], np.float32)).tolist() == [[166, 106, 216, 156]]
    assert (out[:56] == FILL).all()
    assert (out[296:] == FILL).all()
    assert (out[:, :16] == FILL).all()


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(apply(image, fit(64, 64, 64, 64), np.empty_like(image)), image)


@pytest.mark.parametrize(
    ("ratios", "size", "pad", "expected"),
    [
        ([0.75], 640, 0.5, (512, 672)),  # 15 + 0.5 -> 16, 20 + 0.5 -> 21 strides
        ([0.75], 640, 0.0, (480, 640)),
        ([0.5, 0.75], 320, 0.5, (256, 352)),  # the taller one decides
        ([1.5, 2.0], 640, 0.5, (672, 448)),  # 640 / 1.5 = 426.7 -> 13.3 + 0.5 -> 14
        ([0.75, 1.5], 640, 0.5, (672, 672)),
        ([1.0], 640, 0.5, (672, 672)),
    ],
)
def test_batch_shapes_by_hand(ratios: list[float], size: int, pad: float, expected: tuple[int, int]) -> None:
    assert batch_shape(ratios, size, stride=32, pad=pad) == expected
