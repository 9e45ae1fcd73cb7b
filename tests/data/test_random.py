from __future__ import annotations

import numpy as np
import pytest

from holdfast.data.random import Draw, Place, draws, epoch_order


def test_the_same_place_gives_the_same_numbers_whatever_was_drawn_before() -> None:
    first = draws(7, 3, 11, Draw.COLOR).random(4)
    draws(7, 3, 12, Draw.COLOR).random(1000)
    assert np.array_equal(first, draws(7, 3, 11, Draw.COLOR).random(4))


@pytest.mark.parametrize(
    "other", [(8, 3, 11, Draw.COLOR), (7, 4, 11, Draw.COLOR), (7, 3, 12, Draw.COLOR), (7, 3, 11, Draw.FLIP)]
)
def test_every_part_of_a_place_counts(other: tuple[int, int, int, Draw]) -> None:
    assert not np.array_equal(draws(7, 3, 11, Draw.COLOR).random(4), draws(*other).random(4))


def test_neighbouring_places_do_not_overlap() -> None:
    long = draws(0, 0, 0, Draw.ORDER).random(4096)
    assert not np.isin(draws(0, 0, 1, Draw.ORDER).random(64), long).any()
    assert not np.isin(draws(0, 0, 0, Draw.MOSAIC).random(64), long).any()


def test_numbers_are_pinned() -> None:
    # A change here changes every run: Philox-4x64-10 with key (1, "holdfast") and counter (0, 5, 3, 2).
    raw = draws(1, 2, 3, 5).bit_generator.random_raw(2)
    assert raw.tolist() == [10755416941392249322, 15258440334690150049]


def test_negative_and_huge_seeds_are_places_too() -> None:
    assert draws(-1, 0, 0, 0).random() != draws(1, 0, 0, 0).random()
    assert draws(2**70, 0, 0, 0).random() == draws(0, 0, 0, 0).random()


def test_order_is_a_permutation_that_changes_with_the_epoch() -> None:
    first, second = epoch_order(100, seed=0, epoch=0), epoch_order(100, seed=0, epoch=1)
    assert sorted(first.tolist()) == list(range(100))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, epoch_order(100, seed=0, epoch=0))


def test_numbers_of_a_place_are_those_of_its_generators_in_any_order() -> None:
    place = Place(7, 3, 11)
    assert np.array_equal(place.numbers(Draw.COLOR, 3), place.draws(Draw.COLOR).random(3))
    assert np.array_equal(place.numbers(Draw.MOSAIC, 9), draws(7, 3, 11, Draw.MOSAIC).random(9))
    assert np.array_equal(place.numbers(Draw.COLOR, 3), draws(7, 3, 11, Draw.COLOR).random(3))
