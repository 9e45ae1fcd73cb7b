"""A step shared by two ranks is the step of one process over all images; a rank in trouble hangs nobody."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from crew import together
from holdfast.nn.sync_norm import synchronise
from holdfast.train.dist import Ranks
from holdfast.train.statistics import average_statistics
from holdfast.train.step import Stepper
from steps import build, distance, drawn_batch, gradients, stepper

IMAGES = 16


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
    ranks: Ranks, name: str, share: tuple[int, int, int], synced: bool, micro: int | None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    step, batch = shared(ranks, name, share, synced, micro if ranks.rank else None)
    found = gradients(step, *batch)
    return found, {key: value.clone() for key, value in step.model.named_buffers()}


@pytest.mark.parametrize(
    ("name", "share", "synced", "micro"),
    [
        ("yolo26n", (0, 8, 16), False, None),
        ("gelan-t", (0, 8, 16), True, None),
        pytest.param("yolov9-t", (0, 8, 16), False, 3, marks=pytest.mark.slow),  # ranks cut differently
        pytest.param("yolov9-t", (0, 5, 16), True, None, marks=pytest.mark.slow),
        pytest.param("gelan-t", (0, 16, 16), True, None, marks=pytest.mark.slow),  # the second has none
        pytest.param("gelan-t", (0, 16, 16), False, None, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_have_the_gradient_of_one_process(
    name: str, share: tuple[int, int, int], synced: bool, micro: int | None
) -> None:
    """Rounding grows in a deep network whose statistics are measured on noise: with torch's own layer its last
    maps are 1e-4 from those of float64. tests/nn holds synchronised layers to 1e-4 of a shallow one. A rank
    without images keeps its running statistics; they are averaged after the epoch.
    """
    whole = stepper(build(name), frozen=not synced)
    expected = gradients(whole, *drawn_batch(IMAGES))
    near = 5e-3 if synced else 1e-5
    for rank, (found, buffers) in enumerate(together(learned, name, share, synced, micro)):
        assert distance(expected, found) < near
        for key, value in whole.model.named_buffers() if share[rank] < share[rank + 1] else ():
            torch.testing.assert_close(buffers[key], value, rtol=near, atol=near, msg=key)


def troubled(ranks: Ranks, synced: bool, steps: int) -> tuple[list[str], dict[str, Tensor]]:
    """The second rank runs out of memory in backward, in every other step, with more than two images."""
    said: list[str] = []
    step, batch = shared(ranks, "gelan-t", (0, 8, 16), synced)
    step.say = said.append
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


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("steps", [2, pytest.param(20, marks=pytest.mark.slow)])  # twenty: ten troubles
def test_a_rank_out_of_memory_in_backward_hangs_nobody_and_all_keep_the_same_weights(
    synced: bool, steps: int
) -> None:
    first, second = together(troubled, synced, steps)
    assert first[0] == []
    assert len([line for line in second[0] if "with 8 images at a time" in line]) == (steps + 1) // 2
    for key, value in first[1].items():
        assert torch.equal(value, second[1][key]), key


def averaged(ranks: Ranks) -> tuple[float, int]:
    norm = torch.nn.BatchNorm2d(2)
    assert norm.running_mean is not None
    assert norm.num_batches_tracked is not None
    norm.running_mean.fill_(ranks.rank + 1)
    norm.num_batches_tracked.fill_(5)
    average_statistics(ranks, norm)
    return float(norm.running_mean[0]), int(norm.num_batches_tracked)


def test_ranks_average_their_running_statistics() -> None:
    assert together(averaged) == [(1.5, 5)] * 2
