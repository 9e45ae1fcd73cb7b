"""Boxes come back in original pixels, in the order of the source, whatever the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from holdfast.errors import DataError
from holdfast.models.registry import build
from holdfast.predict.run import Found, Predictor
from holdfast.predict.source import Source, Unreadable

RED, BLUE = (0, 0, 255), (255, 0, 0)  # BGR


def picture(
    height: int, width: int, box: tuple[int, int, int, int], colour: tuple[int, int, int] = RED
) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = colour
    return image


def found(predictor: Predictor, source: Any) -> list[Found]:
    items = list(predictor(Source(source)))
    assert not any(isinstance(item, Unreadable) for item in items)
    return items  # type: ignore[return-value]


def hull(item: Found) -> list[float]:
    boxes = item.result.boxes.xyxy
    return [*boxes[:, :2].amin(0).tolist(), *boxes[:, 2:].amax(0).tolist()]


@pytest.mark.parametrize(
    ("size", "box", "shape"),
    [
        ((64, 64), (16, 8, 40, 32), (64, 64)),
        ((128, 64), (0, 0, 32, 64), (64, 32)),
        ((64, 256), (64, 0, 128, 64), (32, 64)),  # 16 rows of picture in the middle of 32
        ((32, 32), (8, 8, 24, 32), (64, 64)),  # enlarged
    ],
)
def test_a_red_square_is_found_where_it_is(
    detector: Any, size: tuple[int, int], box: tuple[int, int, int, int], shape: tuple[int, int]
) -> None:
    (item,) = found(Predictor(detector, imgsz=64), picture(*size, box))
    assert detector.shapes == [(1, 3, *shape)]
    cell = 8 * max(size) / 64  # one cell of the network in original pixels
    np.testing.assert_allclose(hull(item), box, atol=cell)
    assert set(item.result.boxes.cls.tolist()) == {0.0}
    assert item.result.orig_shape == size


def test_arrays_are_bgr_and_tensors_rgb(detector: Any) -> None:
    blue = picture(64, 64, (0, 0, 32, 32), BLUE)
    tensor = torch.from_numpy(blue[:, :, ::-1].copy()).permute(2, 0, 1).float() / 255
    by_array, by_tensor = found(Predictor(detector, imgsz=64), [blue, tensor])
    for item in (by_array, by_tensor):
        assert set(item.result.boxes.cls.tolist()) == {1.0}
        np.testing.assert_array_equal(item.result.orig_img, blue)
    torch.testing.assert_close(by_array.result.boxes.data, by_tensor.result.boxes.data)


@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_batch_and_company_change_nothing(detector: Any, batch: int) -> None:
    sizes = [(64, 64), (128, 64), (64, 64), (48, 256), (64, 64), (128, 64), (100, 90)]
    pictures = [picture(h, w, (8 * i, 0, 8 * i + 24, 24)) for i, (h, w) in enumerate(sizes)]
    alone = [found(Predictor(detector, imgsz=64), p)[0].result.boxes.data for p in pictures]
    together = found(Predictor(detector, imgsz=64, batch=batch), pictures)
    assert [item.frame.path for item in together] == [f"image{i}.jpg" for i in range(len(sizes))]
    for one, item in zip(alone, together, strict=True):
        torch.testing.assert_close(item.result.boxes.data, one)
        assert item.result.speed["inference"] > 0


def test_batches_of_one_shape_go_through_the_network_together(detector: Any) -> None:
    found(Predictor(detector, imgsz=64, batch=4), [picture(64, 64, (0, 0, 8, 8))] * 6)
    assert [shape[0] for shape in detector.shapes] == [4, 2]


def test_unreadable_sources_keep_their_place(detector: Any) -> None:
    whole = picture(64, 64, (0, 0, 8, 8))
    for batch in (1, 2):
        items = list(
            Predictor(detector, imgsz=64, batch=batch)(Source([b"junk", whole, b"junk", whole, b""]))
        )
        assert [isinstance(item, Unreadable) for item in items] == [True, False, True, False, True]


def test_classes_thresholds_and_limits_are_obeyed(detector: Any) -> None:
    both = picture(64, 64, (0, 0, 32, 32))
    both[32:, 32:] = BLUE
    count = len(found(Predictor(detector, imgsz=64), both)[0].result)
    assert count == 32
    assert len(found(Predictor(detector, imgsz=64, classes=[1]), both)[0].result) == 16
    assert len(found(Predictor(detector, imgsz=64, max_det=5), both)[0].result) == 5
    assert len(found(Predictor(detector, imgsz=64, conf=0.999), both)[0].result) == 0
    with pytest.raises(DataError, match="no class 7"):
        Predictor(detector, classes=[7])


def test_full_squares_and_odd_sizes_are_possible(detector: Any) -> None:
    found(Predictor(detector, imgsz=50, rect=False), picture(20, 100, (0, 0, 20, 20)))
    assert detector.shapes == [(1, 3, 64, 64)]


def test_a_tensor_that_does_not_fit_says_what_to_do(detector: Any) -> None:
    with pytest.raises(DataError, match="multiples of 32"):
        found(Predictor(detector), torch.zeros(3, 64, 50))


def test_users_may_change_what_they_get(detector: Any) -> None:
    (item,) = found(Predictor(detector, imgsz=64), picture(64, 64, (0, 0, 8, 8)))
    item.result.boxes.data.mul_(2).requires_grad_().sum().backward()


def test_the_model_that_was_given_stays_as_it_is() -> None:
    model = build("gelan-t", classes=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for dtype in (torch.float32, torch.bfloat16):
        found(Predictor(model, dtype=dtype, imgsz=64), picture(64, 64, (0, 0, 8, 8)))
    assert model.training
    after = model.state_dict()
    assert all(
        torch.equal(after[key], value) and after[key].dtype == value.dtype for key, value in before.items()
    )


def test_a_deployed_model_is_not_turned_into_halves_behind_the_users_back() -> None:
    deployed = build("gelan-t", classes=2).deploy()
    Predictor(deployed, dtype=torch.bfloat16)
    assert all(p.dtype == torch.float32 for p in deployed.parameters())


def test_memory_that_runs_out_makes_smaller_batches_and_the_same_boxes(detector: Any) -> None:
    pictures = [picture(64, 64, (8 * i, 0, 8 * i + 16, 16)) for i in range(5)]
    alone = [item.result.boxes.data for item in found(Predictor(detector, imgsz=64, batch=5), pictures)]
    said: list[str] = []

    def meter(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 2:
            raise MemoryError

    hook = detector.register_forward_pre_hook(meter)
    items = found(Predictor(detector, imgsz=64, batch=5, say=said.append), pictures)
    hook.remove()
    assert said == ["out of memory with 5 images at a time (MemoryError); going on with 2"]
    for item, want in zip(items, alone, strict=True):
        assert torch.equal(item.result.boxes.data, want)
