"""Images at fault are found by halving."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.train.culprits import find_culprits


@given(st.integers(1, 64), st.sets(st.integers(0, 63)))
def test_exactly_the_images_that_fail_alone_are_found(images: int, bad: set[int]) -> None:
    bad = {number for number in bad if number < images}
    assert find_culprits(images, lambda group: bool(bad & set(group))) == sorted(bad)


def test_one_in_64_takes_two_tries_a_level() -> None:
    tried: list[int] = []

    def fails(group: list[int]) -> bool:
        tried.append(len(group))
        return 17 in group

    assert find_culprits(64, fails) == [17]
    assert sum(tried) == 64 + 64 + 32 + 16 + 8 + 4 + 2


@pytest.mark.parametrize("images", [0, 1, 7])
def test_a_batch_that_does_not_fail_any_more_has_none(images: int) -> None:
    assert find_culprits(images, lambda group: False) == []


def test_what_fails_only_together_is_nobodys_fault() -> None:
    assert find_culprits(8, lambda group: len(group) > 2) == []
