"""Plans are made from lines: what fits is taken, recompute before small micro-batches, the batch as asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.memory.budget import Budget
from holdfast.nn import recompute
from holdfast.train.plan import CLEARLY, ENOUGH, LEVELS, Fixed, MemoryPlan, choose, given, narrowed, tightest
from holdfast.train.probe import Cost, Line, Measured, fit

GIB = 2**30
FIXED = Fixed(held=GIB // 2, gradients=GIB // 8, state=GIB // 4, average=GIB // 8)  # 1 GiB in training
COSTS = {  # bytes of an image, seconds of an image
    "none": Cost(Line(0, GIB / 4), Line(0.01, 0.1)),
    "norm": Cost(Line(0, GIB / 8), Line(0.01, 0.11)),
    "stages": Cost(Line(0, GIB / 16), Line(0.01, 0.14)),
}


def plan(gib: float, *, batch: int = 64, tried: list[str] | None = None, **keys: Any) -> MemoryPlan:
    """Plans within so many GiB, without headroom; `tried` collects the levels that were measured."""

    def cost(level: str) -> Cost | None:
        if tried is not None and level not in tried:
            tried.append(level)
        found: dict[Any, Cost | None] = keys.get("costs", COSTS)
        return found[level]

    rest = {key: value for key, value in keys.items() if key != "costs"}
    allowed = Budget(int(gib * GIB), 0, "so much")
    return choose(cost, fixed=FIXED, budget=allowed, batch=batch, precision="float32", **rest)


def test_a_batch_that_fits_is_not_cut_and_nothing_else_is_measured() -> None:
    tried: list[str] = []
    made = plan(17, tried=tried)
    assert (made.micro_batch, made.parts, made.recompute, made.fits) == (64, 1, "none", True)
    assert made.peak == 17 * GIB
    assert tried == ["none"]


def test_sixteen_images_at_a_time_need_no_recompute() -> None:
    tried: list[str] = []
    made = plan(5, tried=tried)  # 16 of 64 images; a cut costs 10 ms of 1.6 s
    assert (made.micro_batch, made.parts, made.recompute) == (16, 4, "none")
    assert tried == ["none"]


def with_overhead(seconds: float) -> dict[str, Cost]:
    """The same levels where each micro-batch takes so long beside its images."""
    return {level: Cost(cost.bytes, Line(seconds, cost.seconds.each)) for level, cost in COSTS.items()}


def test_recompute_is_taken_where_its_larger_micro_batches_are_predicted_faster() -> None:
    tried: list[str] = []
    made = plan(5, costs=with_overhead(4.0), tried=tried)
    # none: 4 x 16 in 16 + 6.4 s; norm: 2 x 32 in 8 + 7.04 s; stages: all 64 in 4 + 8.96 s
    assert (made.recompute, made.parts, tried) == ("stages", 1, list(LEVELS))
    assert made.images_per_second == pytest.approx(64 / 12.96)
    assert any("recompute of stages is predicted the fastest" in reason for reason in made.reasons)
    assert any("16 of 64 images with no recompute (2.86 images/s)" in reason for reason in made.reasons)
    some = plan(5, costs=with_overhead(1.0))  # 10.4, 9.04 and 9.96 s
    assert (some.recompute, some.parts) == ("norm", 2)


def test_speeds_that_a_probe_cannot_tell_apart_leave_the_cheaper_level() -> None:
    near = with_overhead(0.4)  # none 8.0 s, norm 7.84 s
    assert CLEARLY > 8.0 / 7.84
    assert plan(5, costs=near).recompute == "none"


def test_speed_is_no_reason_for_fewer_images_than_batch_norm_wants() -> None:
    slow = {**COSTS, "norm": Cost(COSTS["norm"].bytes, Line(0.01, 0.5))}
    made = plan(4.9, costs=slow)
    assert (made.recompute, made.micro_batch) == ("norm", 22)  # 15 fit with none, five times as fast
    assert made.images_per_second == pytest.approx(64 / (3 * 0.01 + 64 * 0.5))


@pytest.mark.parametrize("overhead", [0.0, 0.01, 0.3, 3.0])
@pytest.mark.parametrize("gib", [2, 3, 4.9, 5, 7, 9, 12, 17])
def test_no_measured_level_is_clearly_faster_than_the_one_taken(gib: float, overhead: float) -> None:
    costs = with_overhead(overhead)
    made = plan(gib, costs=costs)
    alone = [plan(gib, costs=costs, levels=(level,)) for level in LEVELS]
    able = [one for one in alone if one.micro_batch >= ENOUGH]
    assert made.micro_batch >= ENOUGH or not able
    assert made.images_per_second is not None
    assert all((one.images_per_second or 0) <= CLEARLY * made.images_per_second for one in able)


def test_recompute_comes_before_micro_batches_under_sixteen() -> None:
    made = plan(4.9)
    assert (made.micro_batch, made.parts, made.recompute) == (22, 3, "norm")  # 31 fit; three even parts
    assert any("recompute is preferred" in reason for reason in made.reasons)
    assert plan(2.5).recompute == "stages"


def test_where_no_level_reaches_sixteen_the_largest_micro_batch_is_taken() -> None:
    made = plan(1.5)
    assert (made.recompute, made.micro_batch, made.parts) == ("stages", 8, 8)
    assert any("statistics over 8 images" in reason for reason in made.reasons)


def test_parts_are_even() -> None:
    made = plan(1 + 24 / 4, batch=64)
    assert (made.micro_batch, made.parts) == (22, 3)


@pytest.mark.parametrize("gib", [1.25, 1.5, 2, 3, 5, 9, 17, 40])
@pytest.mark.parametrize("batch", [1, 3, 16, 64, 100])
def test_the_batch_stays_and_what_is_said_to_fit_does(gib: float, batch: int) -> None:
    made = plan(gib, batch=batch)
    assert made.batch == batch
    assert made.micro_batch * made.parts >= batch
    assert made.fits
    assert made.peak is not None
    assert made.peak <= gib * GIB


def test_an_image_that_does_not_fit_is_said_and_tried_all_the_same() -> None:
    made = plan(1.01)
    assert (made.micro_batch, made.recompute, made.fits) == (1, "stages", False)
    assert "even one image at a time" in made.reasons[-1]
    nothing = plan(1.01, costs=dict.fromkeys(COSTS))
    assert (nothing.micro_batch, nothing.fits, nothing.peak) == (1, False, None)


def test_a_level_that_cannot_be_tried_is_passed_over() -> None:
    made = plan(4, costs={**COSTS, "none": None})
    assert (made.recompute, made.micro_batch) == ("norm", 22)


def test_a_micro_batch_that_is_asked_for_is_taken() -> None:
    made = plan(17, micro_batch=10)
    assert (made.micro_batch, made.parts, made.recompute) == (10, 7, "none")
    recomputed = plan(2.3, micro_batch=10)  # 5 fit as they are, 10 with norm
    assert (recomputed.micro_batch, recomputed.recompute) == (10, "norm")
    over = plan(1.5, micro_batch=64)
    assert (over.micro_batch, over.fits) == (64, False)


def test_only_allowed_levels_are_taken() -> None:
    assert plan(1.5, levels=("none",)).micro_batch == 2
    assert plan(17, levels=("stages",)).recompute == "stages"


def test_a_micro_batch_is_at_most_the_batch_that_is_accumulated() -> None:
    made = plan(40, batch=64, most=16)
    assert (made.batch, made.micro_batch, made.parts) == (64, 16, 4)


def test_batch_minus_one_is_the_most_that_needs_no_cut() -> None:
    made = plan(11, batch=-1)
    assert (made.batch, made.parts, made.recompute) == (40, 1, "none")
    assert plan(11, batch=-1, largest_batch=12).batch == 12
    assert plan(11, batch=-1, levels=("stages",)).batch == 160
    assert plan(0.5, batch=-1).batch == 1


def test_prediction_counts_every_part() -> None:
    made = plan(5)
    assert made.images_per_second == pytest.approx(64 / (4 * (0.01 + 1.6)))


def test_validation_gets_what_fits() -> None:
    validation = Cost(Line(GIB, GIB / 32), Line(0, 0.01))
    assert plan(17, validation=validation).val_batch == 128
    assert plan(3, validation=validation).val_batch == 36  # of 3 GiB, 7/8 are fixed and 1 is the model's
    assert plan(1.25, validation=validation).val_batch == 1


def test_what_the_loader_holds_is_not_free() -> None:
    fixed = Fixed(held=0, gradients=0, state=0, average=0, loader=Line(GIB, GIB / 64))
    allowed = Budget(6 * GIB, 0, "so much")
    made = choose(COSTS.__getitem__, fixed=fixed, budget=allowed, batch=64, precision="")
    assert made.micro_batch == 16  # 1 + 1 GiB are the loader's
    assert made.peak == 6 * GIB


def test_memory_that_an_allocator_keeps_is_counted_or_given_back() -> None:
    loose = plan(9, retained=0.25)  # 32 images at a time take 8 GiB, or 10 with what is kept
    assert (loose.micro_batch, loose.trim, loose.peak) == (32, True, 9 * GIB)
    with_room = plan(21, retained=0.25)
    assert (with_room.micro_batch, with_room.trim, with_room.peak) == (64, False, 21 * GIB)
    assert plan(21, retained=0.25, levels=("norm",)).trim
    assert not plan(9).trim


def test_a_plan_reads_as_sentences_and_plain_values() -> None:
    made = plan(4.9)
    first, second, *rest = made.lines()
    assert first.startswith("64 images a step in 3 micro-batches of 22, recompute of batch norm")
    assert second == "predicted peak 3.8 GiB of 4.9 GiB"
    assert rest == list(made.reasons)
    assert made.as_dict()["micro_batch"] == 22


def test_a_user_who_says_everything_is_not_measured() -> None:
    made = given(batch=64, micro_batch=24, recompute="norm", precision="float32")
    assert (made.micro_batch, made.parts, made.recompute, made.peak) == (22, 3, "norm", None)


def test_lines_go_through_what_was_measured() -> None:
    cost = fit([Measured(1, 150, 1.0), Measured(2, 250, 1.5), Measured(4, 450, 2.5)])
    assert cost.bytes == Line(50, 100)
    assert cost.seconds == Line(0.5, 0.5)
    assert cost.bytes.most(449) == 3
    noise = fit([Measured(1, 300, 1.0), Measured(2, 290, 0.9)])
    assert noise.bytes.each == pytest.approx(72.5)
    assert noise.bytes.at(2) == 290
    assert fit([Measured(1, 300, 1.0)]).bytes == Line(0, 300)


def test_one_plan_for_all_ranks_fits_on_each() -> None:
    made = tightest([plan(5), plan(4.9), plan(17)])  # 16 at a time; 22 with norm; all
    assert (made.batch, made.micro_batch, made.parts, made.recompute) == (64, 16, 4, "norm")


def test_sixteen_bits_are_taken_only_where_they_may_be_and_help() -> None:
    hopeless, narrow = plan(1.01), replace(plan(1.1), precision="bfloat16")
    taken = narrowed(hopeless, narrow, take=True)
    assert (taken.narrowed, taken.fits) == (True, True)
    assert taken.precision == "bfloat16, because not even one image fits in float32"
    assert taken.precision in taken.reasons[-1]
    refused = narrowed(hopeless, narrow, take=False)
    assert (refused.narrowed, refused.precision, refused.fits) == (False, "float32", False)
    assert refused.reasons[-1] == "in bfloat16 the same takes 1.1 GiB, and leaving --no-amp out would take it"
    useless = narrowed(hopeless, replace(hopeless, precision="bfloat16"), take=True)
    assert (useless.narrowed, useless.precision) == (False, "float32")
    assert useless.reasons[-1].endswith("which does not fit either")


def test_ranks_take_one_number_format_and_the_smallest_share_of_memory() -> None:
    one = replace(plan(5), assigner=300, ahead=True)
    other = replace(plan(17), narrowed=True, precision="bfloat16", assigner=200)
    made = tightest([one, other])
    assert (made.micro_batch, made.narrowed, made.precision) == (16, True, "bfloat16")
    assert (made.assigner, made.ahead) == (200, False)


def test_a_plan_comes_back_from_a_checkpoint_and_an_older_one_too() -> None:
    made = replace(plan(5), assigner=300)
    assert MemoryPlan.from_dict(made.as_dict()) == made
    new = ("narrowed", "ahead", "assigner")
    older = {key: value for key, value in made.as_dict().items() if key not in new}
    assert MemoryPlan.from_dict(older) == replace(made, assigner=None)


def test_numbers_and_levels_are_those_of_the_texts() -> None:
    assert ENOUGH == 16
    assert LEVELS == recompute.LEVELS
