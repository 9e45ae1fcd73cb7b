"""Sizes and members of batches are functions of seed, epoch and number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.data.batches import batch_side, similar_order
from holdfast.data.index import Index
from holdfast.data.loader import TrainLoader
from holdfast.data.random import epoch_order
from holdfast.data.samples import TrainSamples


@given(
    strides=st.integers(2, 40), spread=st.floats(0, 0.99), seed=st.integers(0, 99), number=st.integers(0, 999)
)
def test_sides_are_multiples_within_the_spread(strides: int, spread: float, seed: int, number: int) -> None:
    side = batch_side(strides * 32, spread, stride=32, seed=seed, epoch=1, number=number)
    assert side % 32 == 0
    assert side >= 64
    assert strides * 32 * (1 - spread) - 1e-3 <= side <= strides * 32 * (1 + spread) + 1e-3


def test_all_sides_occur_and_none_without_a_spread() -> None:
    sides = [batch_side(320, 0.5, stride=32, seed=0, epoch=0, number=i) for i in range(400)]
    assert sorted(set(sides)) == list(range(160, 481, 32))
    assert {batch_side(320, 0.0, stride=32, seed=0, epoch=0, number=i) for i in range(9)} == {320}


@given(count=st.integers(1, 60), batch=st.integers(1, 9), epoch=st.integers(0, 5))
def test_similar_orders_are_permutations(count: int, batch: int, epoch: int) -> None:
    ratios = np.exp(np.random.default_rng(count).normal(0, 0.5, count))
    drawn = epoch_order(count, seed=3, epoch=epoch)
    order = similar_order(drawn, ratios, batch=batch, seed=3, epoch=epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, similar_order(drawn, ratios, batch=batch, seed=3, epoch=epoch))


def test_full_batches_hold_similar_shapes() -> None:
    ratios = np.tile([0.5, 1.0, 2.0], 20)
    order = similar_order(epoch_order(60, seed=0, epoch=0), ratios, batch=5, seed=0, epoch=0)
    rows = ratios[order].reshape(-1, 5)
    assert (rows == rows[:, :1]).all()
    assert len(set(rows[:6, 0])) > 1  # not sorted
    other = similar_order(epoch_order(60, seed=0, epoch=1), ratios, batch=5, seed=0, epoch=1)
    assert {frozenset(row) for row in order.reshape(-1, 5)} != {
        frozenset(row) for row in other.reshape(-1, 5)
    }


ALL = {
    "mixup": 0.5, "cutmix": 0.5, "copy_paste": 0.5, "copy_paste_mode": "mixup", "mosaic": 0.7,
    "mosaic_tiles": "auto", "degrees": 5.0, "bgr": 0.3, "autoaugment": "randaugment", "multi_scale": 0.5,
}  # fmt: skip


@pytest.fixture
def index(painted: Callable[..., Index]) -> Index:
    sizes = [(48, 64), (64, 48), (64, 64), (40, 80), (96, 72), (50, 51), (33, 90)]
    return painted([(size, [(number % 3, (4, 4, 20, 28))]) for number, size in enumerate(sizes)])


@pytest.mark.parametrize("options", [ALL, {**ALL, "autoaugment": "autoaugment", "rect": True}])
def test_everything_at_once_does_not_depend_on_workers_or_the_point_of_resumption(
    index: Index, options: dict[str, object]
) -> None:
    def batches(workers: int, start: int) -> list[tuple[bytes, ...]]:
        source = TrainSamples(index, imgsz=96, seed=3, epochs=4, **options)  # type: ignore[arg-type]
        with TrainLoader(source, batch=2, workers=workers) as loader:
            found = list(loader.epoch(1, start=start))
        assert all(batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0 for batch in found)
        return [(b.images.numpy().tobytes(), *(t.numpy().tobytes() for t in b.targets[:3])) for b in found]

    whole = batches(0, 0)
    assert batches(3, 0) == whole
    assert batches(2, 2) == whole[2:]


def test_batches_of_many_sizes(index: Index) -> None:
    source = TrainSamples(index, imgsz=128, seed=3, epochs=40, multi_scale=0.5)
    with TrainLoader(source, batch=3, workers=0) as loader:
        shapes = {batch.images.shape[2:] for epoch in range(6) for batch in loader.epoch(epoch)}
    assert all(height == width for height, width in shapes)
    assert len(shapes) > 2


def test_rectangles_show_whole_images_in_little_gray(painted: Callable[..., Index]) -> None:
    index = painted([((32, 64), [(0, (8, 8, 24, 24))])] * 3 + [((64, 32), [(1, (8, 8, 24, 24))])] * 3)
    still = {"translate": 0.0, "scale": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "fliplr": 0.0}
    source = TrainSamples(index, imgsz=128, epochs=4, rect=True, **still)  # type: ignore[arg-type]
    with TrainLoader(source, batch=3, workers=0) as loader:
        found = list(loader.epoch(0))
    assert sorted(tuple(batch.images.shape[2:]) for batch in found) == [(64, 128), (128, 64)]
    for batch in found:
        assert batch.targets.boxes.tolist() == [[16, 16, 48, 48]] * 3
        assert not (batch.images == 114).all(dim=1).any()
