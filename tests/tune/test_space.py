"""What is searched, and where."""

from __future__ import annotations

import pytest

from holdfast.errors import SettingsError
from holdfast.settings import TrainSettings
from holdfast.tune.space import ON_REQUEST, USUAL, from_plain, rounded, space, to_plain


def test_every_range_lies_within_what_a_training_takes() -> None:
    for key, r in {**USUAL, **ON_REQUEST}.items():
        for value in (r.low, r.high):
            assert getattr(TrainSettings(**{key: value}), key) == value


def test_keys_given_by_hand_are_not_searched_unless_named() -> None:
    assert "box" not in space((), given={"box", "data"}, optimizer="SGD")
    assert list(space(("box",), given={"box"}, optimizer="SGD")) == ["box"]
    assert list(space((), given=set(), optimizer="SGD")) == list(USUAL)


def test_learning_rates_go_with_the_optimizer() -> None:
    assert space(("lr0",), given=(), optimizer="SGD")["lr0"].high == 0.1
    assert space(("lr0",), given=(), optimizer="AdamW")["lr0"].high == 0.01


@pytest.mark.parametrize(
    ("search", "optimizer", "message"),
    [
        (("boxx",), "SGD", "does not know the key 'boxx'. Did you mean 'box'"),
        (("lr0",), "auto", "optimizer=auto chooses lr0 by itself"),
    ],
)
def test_what_would_have_no_effect_is_refused(search: tuple[str, ...], optimizer: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        space(search, given=(), optimizer=optimizer)


def test_ranges_survive_a_file() -> None:
    found = space((), given=(), optimizer="SGD")
    assert from_plain(to_plain(found)) == found


def test_values_have_six_digits() -> None:
    assert [rounded(x) for x in (0.0, 0.00123456789, 12.3456789)] == [0.0, 0.00123457, 12.3457]
