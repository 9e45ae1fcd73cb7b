"""Which steps count."""

from __future__ import annotations

import math
import random

import pytest

from holdfast.train.guard import FEWEST, IN_A_ROW, Guard


def noisy(steps: int, *, seed: int = 0, level: float = 5.0, spread: float = 0.1) -> list[float]:
    source = random.Random(seed)
    return [level * math.exp(source.gauss(0.0, spread)) for _ in range(steps)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_never_counts_from_the_first_step_on(value: float) -> None:
    guard = Guard()
    assert "gradient" in guard.judge(value, [1.0, 1.0, 1.0])
    assert "loss" in guard.judge(1.0, [1.0, value, 1.0])
    assert guard.judge(1.0, [1.0, 1.0, 1.0]) == ""


def test_a_spike_is_refused_and_leaves_no_trace() -> None:
    guard = Guard()
    for loss in noisy(60):
        assert guard.judge(1.0, [loss]) == ""
    before = guard.state()
    assert "jumped" in guard.judge(1.0, [100.0])
    assert guard.in_a_row == 1
    assert guard.judge(1.0, [5.0]) == ""
    assert guard.state()[:-2] == before[:-1]


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.3, 0.6])
def test_noise_and_slow_changes_are_no_spikes(spread: float) -> None:
    guard = Guard()
    for at, loss in enumerate(noisy(600, spread=spread)):
        level = 1.0 if at < 200 else 1.9 if at < 400 else 0.5  # mosaics end, sizes change
        assert guard.judge(1.0, [loss * level]) == "", at


def test_a_level_that_stays_is_learned() -> None:
    guard = Guard()
    for loss in noisy(60):
        guard.judge(1.0, [loss])
    judged = [guard.judge(1.0, [loss]) for loss in noisy(100, level=80.0)]
    assert all(judged[:IN_A_ROW])
    assert not any(judged[IN_A_ROW:])


def test_few_steps_tell_nothing_and_spikes_may_be_let_pass() -> None:
    young, tolerant = Guard(), Guard(spikes=False)
    for loss in noisy(FEWEST - 1):
        young.judge(1.0, [loss])
    assert young.judge(1.0, [1000.0]) == ""
    for loss in [*noisy(60), 1000.0]:
        assert tolerant.judge(1.0, [loss]) == ""


def test_a_restored_guard_judges_like_the_first() -> None:
    first, second = Guard(), Guard()
    for loss in noisy(60):
        first.judge(1.0, [loss])
    first.judge(1.0, [100.0])
    second.load_state(first.state())
    assert second.state() == first.state()
    for loss in [90.0, 110.0, 95.0, 5.0]:
        assert first.judge(1.0, [loss]) == second.judge(1.0, [loss])
