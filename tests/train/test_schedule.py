"""Learning rate and momentum: pure functions of the step, with hand-worked values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.train.schedule import Schedule

LINEAR = Schedule(
    shape="linear",
    epochs=11,
    steps_per_epoch=10,
    lr0=0.1,
    lrf=0.01,
    momentum=0.9,
    warmup_epochs=2.0,
    warmup_momentum=0.8,
    warmup_bias_lr=0.5,
)


def test_linear_runs_from_one_to_lrf_in_the_last_epoch() -> None:
    assert LINEAR.factor(0) == 1.0
    assert LINEAR.factor(5) == pytest.approx(0.505)
    assert LINEAR.factor(10) == pytest.approx(0.01)


def test_cosine_and_flat_cosine_meet_their_corners() -> None:
    cosine, flat = replace(LINEAR, shape="cosine"), replace(LINEAR, shape="flat-cosine")
    assert [cosine.factor(e) for e in (0, 5, 10)] == pytest.approx([1.0, 0.505, 0.01])
    assert [flat.factor(e) for e in (0, 5, 10)] == pytest.approx([1.0, 1.0, 0.01])
    assert flat.factor(8) < 1.0


def test_warm_up_ramps_weights_from_zero_and_biases_from_their_own_rate() -> None:
    assert LINEAR.warmup_steps == 20
    assert LINEAR.at(0, bias=False) == (0.0, 0.8)
    assert LINEAR.at(0, bias=True) == (0.5, 0.8)
    lr, momentum = LINEAR.at(10, bias=False)  # half way, epoch 1: factor 0.901
    assert lr == pytest.approx(0.5 * 0.1 * LINEAR.factor(1))
    assert momentum == pytest.approx(0.85)
    assert LINEAR.at(20, bias=True) == LINEAR.at(20, bias=False)


def test_warm_up_is_shorter_than_the_run() -> None:
    assert replace(LINEAR, epochs=1).warmup_steps == 0
    assert replace(LINEAR, epochs=1).at(0, bias=False) == (0.1, 0.9)
    assert replace(LINEAR, warmup_epochs=0.5).warmup_steps == 5


def test_a_group_with_a_scale_learns_faster_and_its_biases_start_where_all_start() -> None:
    assert LINEAR.at(30, bias=False, scale=3.0)[0] == pytest.approx(3 * LINEAR.at(30, bias=False)[0])
    assert LINEAR.at(0, bias=True, scale=3.0) == LINEAR.at(0, bias=True)


def test_progress_goes_from_nothing_to_everything_in_the_last_epoch() -> None:
    assert [LINEAR.progress(e) for e in (0, 5, 10)] == [0.0, 0.5, 1.0]
    assert replace(LINEAR, epochs=1).progress(0) == 0.0
