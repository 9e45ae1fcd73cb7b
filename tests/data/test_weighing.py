"""Rare and poorly found classes are shown more often, and any number of workers shows the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from holdfast.data.index import Index
from holdfast.data.loader import TrainLoader
from holdfast.data.neighbours import Neighbours
from holdfast.data.samples import TrainSamples
from holdfast.data.weighing import class_weights, drawn_order, weights_of

BOX = (4, 4, 18, 28)
COMMON, RARE, BOTH, NOTHING = range(4)


@pytest.fixture
def index(painted: Callable[..., Index]) -> Index:
    """Four kinds of images: eight with a common class, one with a rare one, with both, with none."""
    labels = [*[[(0, BOX)]] * 8, [(1, BOX)], [(0, BOX), (1, BOX)], []]
    return painted([((48, 64), rows) for rows in labels])


def test_a_class_weighs_by_its_rarity_and_its_error() -> None:
    counts = np.array([30, 10, 0])
    assert class_weights(counts, ()) == pytest.approx(
        3 * np.array([1 / 30, 1 / 10, 1]) / (1 / 30 + 1 / 10 + 1)
    )
    found = class_weights(counts, (0.0, 0.5, 1.0)) / class_weights(counts, ())
    assert found == pytest.approx([1.0, 0.25, 0.0])


def test_an_image_weighs_what_its_objects_weigh_and_the_average_without_any(index: Index) -> None:
    weights = weights_of(index, ())
    common, rare = weights[0], weights[8]
    assert weights[:8] == pytest.approx(common)
    assert rare == pytest.approx(common * 9 / 2)  # nine objects against two
    assert weights[9] == pytest.approx(common + rare)
    assert weights[10] == pytest.approx(weights[:10].mean())
    better = weights_of(index, (0.0, 0.9))
    assert better[8] / better[0] == pytest.approx(0.01 * 9 / 2)
    assert (weights_of(index, (1.0, 1.0)) == 1).all()  # nothing is left to learn: all alike


def test_an_epoch_shows_images_by_their_weights() -> None:
    weights = np.array([1.0, 0.0, 2.0, 5.0])
    shown = np.concatenate([drawn_order(weights, seed=1, epoch=epoch) for epoch in range(3000)])
    shares = np.bincount(shown % 4, minlength=4) / len(shown)
    assert shares == pytest.approx(weights / 8, abs=0.02)
    assert shares[1] == 0


def test_each_appearance_of_an_image_is_a_sample_of_its_own() -> None:
    weights = np.random.default_rng(0).random(200) ** 4
    order = drawn_order(weights, seed=0, epoch=3)
    assert len(set(order.tolist())) == len(order) == 200
    for image in set((order % 200).tolist()):
        times = sorted((order[order % 200 == image] // 200).tolist())
        assert times == list(range(len(times)))


def test_partners_of_a_mosaic_come_from_what_is_shown() -> None:
    near = Neighbours(500, seed=1)
    weights = np.zeros(500)
    weights[:9] = 1
    near.weigh(weights)
    for sample in near.order(2).tolist():
        assert set(near.pick(2, sample, np.linspace(0, 0.999, 30))) <= set(range(9))
    assert sorted(near.after(2, 7)) == [number for number in range(500) if number != 7]


@pytest.mark.parametrize("rect", [False, True])
def test_workers_and_processes_show_the_same_after_a_validation(index: Index, rect: bool) -> None:
    made = []
    for workers, processes in [(0, False), (2, False), (2, True)]:
        samples = TrainSamples(index, imgsz=64, epochs=9, rect=rect, image_weights=True)
        found = []
        with TrainLoader(samples, batch=4, workers=workers, processes=processes) as loader:
            for epoch, quality in enumerate([(), (0.9, 0.1), (0.1, 0.9)]):
                samples.weigh(quality)
                found += [
                    (batch.images.numpy().tobytes(), batch.indices.tolist()) for batch in loader.epoch(epoch)
                ]
        made.append(found)
    assert made[0] == made[1] == made[2]
    images = [number for _, numbers in made[0] for number in numbers]
    assert len(images) == 3 * len(index)
    assert max(images) < len(index)


def test_an_image_that_is_shown_twice_is_augmented_anew(index: Index) -> None:
    samples = TrainSamples(index, imgsz=64, epochs=9, image_weights=True)
    once, again = samples.get(1, RARE), samples.get(1, RARE + len(index))
    assert once.index == again.index == RARE
    assert (once.image != again.image).any()
