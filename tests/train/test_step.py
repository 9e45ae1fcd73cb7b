"""Micro-batches give the step of the whole batch, and memory that runs out costs nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from holdfast.devices import Precision, compile_fault
from holdfast.errors import OutOfMemory
from holdfast.geometry.targets import Targets
from holdfast.train.guard import is_finite
from holdfast.train.micro import MicroBatch
from holdfast.train.step import Stepper
from steps import SIDE, build, distance, drawn_batch, drawn_classes, gradients, has_white, spoil, stepper

CASES = {
    "even": drawn_batch(8),
    "uneven": drawn_batch(7),
    "background": drawn_batch(8, boxes=dict.fromkeys(range(3), 0)),
    "all background": drawn_batch(8, boxes=dict.fromkeys(range(8), 0)),
    "crowded": drawn_batch(6, boxes={4: 1000}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["gelan-t", "yolo26n", "yolov9-t"])
def test_micro_batches_give_the_gradient_of_the_whole_batch(name: str, case: str) -> None:
    model = build(name)
    whole = gradients(stepper(model), *CASES[case])
    for micro in (1, 3):
        cut = gradients(stepper(model, micro=micro, exact=True), *CASES[case])
        assert distance(whole, cut) < 1e-5, micro


@pytest.mark.parametrize("case", ["even", "background", "all background"])
@pytest.mark.parametrize("task", ["seg", "pose", "obb"])
def test_micro_batches_give_the_gradient_of_the_whole_batch_of_every_task(task: str, case: str) -> None:
    model = build(f"yolo26n-{task}")
    whole = gradients(stepper(model), *CASES[case])
    cut = gradients(stepper(model, micro=3, exact=True), *CASES[case])
    assert distance(whole, cut) < 1e-5


def test_micro_batches_give_the_gradient_of_the_whole_batch_of_a_classifier() -> None:
    model = build("yolo26n-cls")
    whole = gradients(stepper(model), *drawn_classes(7))
    for micro in (1, 3):
        assert distance(whole, gradients(stepper(model, micro=micro), *drawn_classes(7))) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # by the compiler
def test_a_compiled_model_gives_the_gradient_of_the_plain_one() -> None:
    fault = compile_fault(torch.device("cpu"))
    if fault:
        pytest.skip(f"torch.compile cannot be used here: {fault}")
    plain, compiled = stepper(build("gelan-t")), stepper(build("gelan-t"))
    compiled.model.compile()
    assert distance(gradients(plain, *CASES["even"]), gradients(compiled, *CASES["even"])) < 1e-5


@pytest.mark.parametrize("task", ["seg", "pose"])
def test_guessed_ratios_of_the_sums_of_a_task_lag_behind_by_a_few_steps(task: str) -> None:
    """Masks and keypoints are divided by counts, boxes by scores; their ratio comes from earlier steps.

    In the first steps of a drawn model the sums of scores grow by a third from one to the next.
    """
    whole, cut = (stepper(build(f"yolo26n-{task}"), micro=micro) for micro in (None, 4))
    for seed in range(4):
        batch = drawn_batch(16, seed=seed)
        assert distance(gradients(whole, *batch), gradients(cut, *batch)) < (1e-5 if seed == 0 else 0.45)
        cut.model.load_state_dict(whole.model.state_dict())


def test_a_guessed_ratio_of_two_sums_moves_the_gradient_by_less_than_a_hundredth() -> None:
    """The trunk of YOLOv9 takes gradients of two losses; their ratio comes from earlier steps."""
    whole, cut = (stepper(build("yolov9-t"), micro=micro) for micro in (None, 2))
    for seed in range(6):
        batch = drawn_batch(16, seed=seed)
        a, b = gradients(whole, *batch), gradients(cut, *batch)
        assert distance(a, b) < 0.01
        own = {k for k in a if not k.startswith("backbone.")}
        assert distance({k: a[k] for k in own}, {k: b[k] for k in own}) < (1e-4 if seed == 0 else 0.01)
        cut.model.load_state_dict(whole.model.state_dict())  # both go on from the same weights


def out_of_memory_above(limit: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Plays an allocator that holds `limit` images of the test's size."""

    def meter(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        count, _, height, width = args[0].shape
        if count * height * width > limit * SIDE * SIDE:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {count} images.")

    return meter


@pytest.mark.parametrize("name", ["gelan-t", "yolo26n"])
def test_a_batch_of_64_gives_the_same_weights_however_little_fits(name: str) -> None:
    model = build(name)
    whole = stepper(model)
    cut = {limit: stepper(model) for limit in (32, 8, 3, 1)}
    for limit, step in cut.items():
        step.model.register_forward_pre_hook(out_of_memory_above(limit))
    for seed in range(5):
        batch = drawn_batch(64, seed=seed)
        items = whole.run(*batch).items
        for step in cut.values():
            torch.testing.assert_close(step.run(*batch).items, items, rtol=1e-4, atol=1e-5)
    for limit, step in cut.items():
        assert step.micro.size == {32: 32, 8: 8, 3: 2, 1: 1}[limit]
        for key, want in whole.model.state_dict().items():
            torch.testing.assert_close(step.model.state_dict()[key], want, rtol=1e-5, atol=1e-5, msg=key)
        for key, want in whole.ema.model.state_dict().items():  # type: ignore[union-attr]
            torch.testing.assert_close(step.ema.model.state_dict()[key], want, rtol=1e-5, atol=1e-5)  # type: ignore[union-attr]


@pytest.mark.parametrize("task", ["seg", "pose", "obb", "cls"])
def test_memory_that_runs_out_changes_no_step_of_any_task(task: str) -> None:
    model = build(f"yolo26n-{task}")
    batch = drawn_classes(8) if task == "cls" else drawn_batch(8)
    whole, cut = stepper(model, exact=True), stepper(model, exact=True)
    cut.model.register_forward_pre_hook(out_of_memory_above(3))
    assert distance(gradients(whole, *batch), gradients(cut, *batch)) < 1e-5
    assert cut.micro.size == 2


def same(a: Stepper, b: Stepper) -> None:
    for key, value in a.model.state_dict().items():
        assert torch.equal(value, b.model.state_dict()[key]), key


def test_memory_that_runs_out_in_backward_costs_nothing() -> None:
    """The step is done again from the start: weights and statistics are those of a run that was cut so from
    the beginning.
    """
    model = build("gelan-t")
    said: list[str] = []
    smooth = stepper(model, micro=4, frozen=False)
    rough = stepper(model, micro=8, frozen=False, say=said.append)
    calls = []

    def fail(grad: Tensor) -> Tensor:
        calls.append(len(calls))
        if len(grad) > 4:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return grad

    inner = rough.model.backbone.stage3
    inner.register_forward_hook(lambda _m, _a, out: out.register_hook(fail) and None)
    for seed in range(3):
        smooth.run(*drawn_batch(8, seed=seed))
        rough.run(*drawn_batch(8, seed=seed))
    # The guess that a step is cut with cancels, but not to the last bit.
    for key, value in smooth.model.state_dict().items():
        torch.testing.assert_close(rough.model.state_dict()[key], value, rtol=1e-4, atol=1e-5, msg=key)
    tracked = [b for k, b in rough.model.named_buffers() if k.endswith("num_batches_tracked")]
    assert {int(b) for b in tracked} == {6}
    assert len(calls) == 7
    assert said == [
        "out of memory with 8 images at a time (cuDNN error: CUDNN_STATUS_ALLOC_FAILED); doing the step "
        "again with 4, the batch stays as it is"
    ]


def test_memory_that_runs_out_in_the_optimizer_costs_nothing() -> None:
    model = build("gelan-t")
    smooth, rough = stepper(model), stepper(model)
    failures = iter([True, False, True, True, False])

    def fail(*_: Any) -> None:
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    rough.optimizer.register_step_pre_hook(fail)
    for seed in range(3):
        for step in (smooth, rough):
            step.run(*drawn_batch(4, seed=seed))
    same(smooth, rough)


def test_when_nothing_fits_the_run_ends_with_weights_and_statistics_untouched() -> None:
    step = stepper(build("gelan-t"), frozen=False)
    before = copy.deepcopy(step.model.state_dict())
    step.model.head.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(OutOfMemory, match="one image at a time"):
        step.run(*drawn_batch(4))
    for key, value in step.model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in step.model.parameters())


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    step = stepper(build("gelan-t"))
    with pytest.raises(RuntimeError, match="size"):
        step.run(torch.zeros(1, 4, SIDE, SIDE, dtype=torch.uint8), Targets.empty())


def test_a_micro_batch_grows_back_and_waits_longer_after_each_failure() -> None:
    micro = MicroBatch(quiet=3)
    assert micro.parts(64) == [(0, 64)]
    micro.shrink(64)
    assert micro.size == 32
    assert [micro.calm() for _ in range(3)] == [None, None, 48]
    micro.shrink(48)  # that was too many: back to what worked, and six quiet steps
    assert micro.size == 32
    assert [micro.calm() for _ in range(6)][-1] == 48
    sizes = [size for _ in range(60) if (size := micro.calm())]
    assert sizes[-1] == 64
    assert micro.calm() is None


@pytest.mark.parametrize(("count", "most"), [(64, 24), (7, 3), (5, 8), (1, 1)])
def test_parts_cover_every_image_once_and_differ_by_one_at_most(count: int, most: int) -> None:
    parts = MicroBatch(most).parts(count)
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("name", ["yolov9-t", "yolo26n-seg", "yolo26n-pose", "yolo26n-obb"])
def test_a_refused_step_changes_nothing(name: str) -> None:
    step = stepper(build(name), micro=3, frozen=False)
    step.run(*drawn_batch(7, seed=1))
    before = copy.deepcopy(everything(step))
    step.model.register_forward_hook(lambda _, args, out: spoil(out) if has_white(args[0]) else None)
    images, targets = drawn_batch(7, seed=2)
    images[5] = 255
    outcome = step.run(images, targets)
    assert outcome.refused == "the loss is not finite"
    torch.testing.assert_close(everything(step), before, rtol=0, atol=0)
    assert not step.run(*drawn_batch(7, seed=3)).refused


def test_a_trial_tells_which_images_fail_and_changes_nothing() -> None:
    step = stepper(build("yolo26n"), frozen=False)
    step.run(*drawn_batch(4, seed=1))
    before = copy.deepcopy(everything(step))
    step.model.register_forward_hook(lambda _, args, out: spoil(out) if has_white(args[0]) else None)
    images, targets = drawn_batch(4, seed=2)
    images[2] = 255
    for rows, good in (([0, 1, 2, 3], False), ([2], False), ([0, 1, 3], True)):
        norm, items = step.trial(images[rows], targets.of_numbers(torch.tensor(rows)))
        assert is_finite(norm, items) == good
    torch.testing.assert_close(everything(step), before, rtol=0, atol=0)


def test_an_overflow_under_a_loss_scale_lowers_it_and_loses_no_step() -> None:
    said: list[str] = []
    half = Precision(torch.float16, True, "float16")
    assert half.scale_loss
    step = stepper(build("yolo26n"), say=said.append)
    step.precision = half
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    start = copy.deepcopy(step.model.state_dict())
    outcome = step.run(*drawn_batch(4))
    assert not outcome.refused
    assert math.isfinite(outcome.norm)
    assert "doing the step again" in said[0]
    assert step.scaler.get_scale() < 2.0**30
    assert any(not torch.equal(value, start[key]) for key, value in step.model.state_dict().items())


def everything(step: Stepper) -> dict[str, Any]:
    """All that a step may change."""
    assert step.ema is not None
    return {
        "weights": step.model.state_dict(), "average": step.ema.state_dict(), "updates": step.ema.updates,
        "optimizer": step.optimizer.state_dict()["state"], "state": step.state(),
        "gradients": [p.grad for p in step.model.parameters() if p.grad is not None],
    }  # fmt: skip
