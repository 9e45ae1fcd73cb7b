"""A step shared by two ranks is the step of one process over all images; a rank in trouble hangs nobody."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from crew import together
from holdfast.nn.recompute import Level
from holdfast.nn.sync_norm import synchronise
from holdfast.train.dist import Ranks
from holdfast.train.guard import is_finite
from holdfast.train.step import Stepper
from steps import build, distance, drawn_batch, gradients, has_white, spoil, stepper

IMAGES = 16
SLOW = pytest.mark.slow


def shared(
    ranks: Ranks, name: str, share: tuple[int, int, int], synced: bool, micro: int | None = None
) -> tuple[Stepper, tuple[Tensor, Any]]:
    """This rank's stepper and its images."""
    step = stepper(build(name), micro=micro, exact=True, frozen=not synced, ranks=ranks)
    if synced:
        step.turns.exchange = synchronise(step.model, ranks.sum_)
    images, targets = drawn_batch(IMAGES)
    start, stop = share[ranks.rank : ranks.rank + 2]
    return step, (images[start:stop], targets.of_images(start, stop))


def learned(
    ranks: Ranks, name: str, share: tuple[int, int, int], synced: bool, micro: int | None, level: Level
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    step, batch = shared(ranks, name, share, synced, micro if ranks.rank else None)
    step.model.recompute(level)
    found = gradients(step, *batch)
    return found, {key: value.clone() for key, value in step.model.named_buffers()}


@pytest.mark.parametrize(
    ("name", "share", "synced", "micro", "level"),
    [
        ("yolo26n", (0, 8, 16), False, None, "none"),
        ("gelan-t", (0, 8, 16), True, None, "stages"),
        pytest.param("yolov9-t", (0, 8, 16), False, 3, "none", marks=SLOW),  # ranks cut differently
        pytest.param("yolov9-t", (0, 5, 16), True, None, "norm", marks=SLOW),
        pytest.param("gelan-t", (0, 16, 16), True, None, "none", marks=SLOW),  # the second has none
        pytest.param("gelan-t", (0, 16, 16), False, None, "none", marks=SLOW),
    ],
)
def test_two_ranks_have_the_gradient_of_one_process(
    name: str, share: tuple[int, int, int], synced: bool, micro: int | None, level: Level
) -> None:
    """Rounding grows in a deep network whose statistics are measured on noise: with torch's layer its last
    maps are 1e-4 from those of float64. tests/nn holds synchronised layers to 1e-4 of a shallow one.
    """
    whole = stepper(build(name), frozen=not synced)
    expected = gradients(whole, *drawn_batch(IMAGES))
    near = 5e-3 if synced else 1e-5
    for found, buffers in together(learned, name, share, synced, micro, level):
        assert distance(expected, found) < near
        for key, value in whole.model.named_buffers():
            if value.is_floating_point():  # a rank without images counts no batches
                torch.testing.assert_close(buffers[key], value, rtol=near, atol=near, msg=key)


def troubled(ranks: Ranks, synced: bool, steps: int) -> tuple[list[str], dict[str, Tensor]]:
    """The second rank runs out of memory in backward, in every other step, with more than two images."""
    said: list[str] = []
    step, batch = shared(ranks, "gelan-t", (0, 8, 16), synced)
    step.say = step.room.say = said.append
    trouble = [False]

    def fail(grad: Tensor) -> Tensor:
        if ranks.rank and trouble[0] and len(grad) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return grad

    step.model.backbone.stage3.register_forward_hook(
        lambda _m, _a, out: out.register_hook(fail) and None if out.requires_grad else None
    )
    for number in range(steps):
        trouble[0] = number % 2 == 0
        step.micro.size = None
        step.run(*batch)
    return said, {key: value.detach().clone() for key, value in step.model.named_parameters()}


@pytest.mark.parametrize("synced", [pytest.param(False, marks=SLOW), True])
@pytest.mark.parametrize("steps", [2, pytest.param(20, marks=SLOW)])  # twenty: ten troubles
def test_a_rank_out_of_memory_in_backward_hangs_nobody_and_all_keep_the_same_weights(
    synced: bool, steps: int
) -> None:
    first, second = together(troubled, synced, steps)
    assert first[0] == []
    assert len([line for line in second[0] if "with 8 images at a time" in line]) == (steps + 1) // 2
    for key, value in first[1].items():
        assert torch.equal(value, second[1][key]), key


def statistics(ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Running mean of the first layer after a step of its own and after one with the others."""
    images, targets = drawn_batch(IMAGES)
    start, stop = (0, 4, 16)[ranks.rank : ranks.rank + 2]
    batch = images[start:stop], targets.of_images(start, stop)
    alone, step = (stepper(build("gelan-t"), frozen=False, ranks=r) for r in (Ranks.alone(), ranks))
    alone.run(*batch)
    step.run(*batch)
    return tuple(dict(s.model.named_buffers())["backbone.stem1.bn.running_mean"] for s in (alone, step))


def test_running_statistics_are_the_mean_over_the_images_of_all_ranks() -> None:
    (a, first), (b, second) = together(statistics)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, (4 * a + 12 * b) / 16)


def refused(ranks: Ranks, synced: bool) -> tuple[list[str], list[dict[str, Tensor]], list[tuple[int, bool]]]:
    """In the second of three steps the second rank has a white image, which spoils what the model answers."""
    step, (images, targets) = shared(ranks, "gelan-t", (0, 8, 16), synced)
    step.model.register_forward_hook(lambda _, args, out: spoil(out) if has_white(args[0]) else None)
    reasons: list[str] = []
    weights: list[dict[str, Tensor]] = []
    tried: list[tuple[int, bool]] = []
    for number in range(3):
        pixels = images.clone()
        if ranks.rank and number == 1:
            pixels[3] = 255
        outcome = step.run(pixels, targets)
        reasons.append(outcome.refused)
        if outcome.refused:
            for row in (2, 3):
                norm, items = step.trial(pixels[[row]], targets.of_numbers(torch.tensor([row])))
                tried.append((row, is_finite(norm, items)))
        weights.append({key: value.detach().clone() for key, value in step.model.named_parameters()})
    return reasons, weights, tried


@pytest.mark.parametrize("synced", [False, True])
def test_what_is_not_finite_on_one_rank_is_refused_by_all(synced: bool) -> None:
    first, second = together(refused, synced)
    assert first[0] == second[0] == ["", "the loss is not finite", ""]
    assert first[2] == [(2, True), (3, True)]
    assert second[2] == [(2, True), (3, False)]
    for a, b in zip(first[1], second[1], strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert all(torch.equal(first[1][0][key], first[1][1][key]) for key in first[1][0])
