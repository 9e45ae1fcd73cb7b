"""Probing tells the memory of larger batches, and leaves no trace in what it probes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from holdfast.devices import choose_precision, narrower_precision
from holdfast.losses.detect import criterion
from holdfast.memory.budget import Limit, held
from holdfast.models.detector import Detector
from holdfast.models.registry import build
from holdfast.train.optim import build_optimizer, choose_optimizer
from holdfast.train.plan import LEVELS, MemoryPlan
from holdfast.train.planner import LEAST_ASSIGNER, plan_run, plan_step
from holdfast.train.probe import Probe, worst_batch

CPU = torch.device("cpu")
MIB = 2**20


def probe(model: Detector, *, side: int, boxes: int = 50, amp: bool = False) -> Probe:
    loss = criterion(
        model.outputs, strides=model.strides, reg_max=model.reg_max, box=7.5, cls=0.5, dfl=1.5,
        label_smoothing=0.0,
    )  # fmt: skip
    precision = choose_precision(CPU, amp=amp, amp_dtype="auto")
    return Probe(
        model, loss, precision=precision, channels_last=True, side=side, boxes=boxes,
        recompute=model.recompute,
    )  # fmt: skip


def planned(model: Detector, **keys: Any) -> MemoryPlan:
    def make(of: torch.nn.Module) -> torch.optim.Optimizer:
        choice = choose_optimizer(
            "AdamW", steps=1, classes=4, lr0=0.01, momentum=0.9, warmup_bias_lr=0.1
        )
        return build_optimizer(of, choice, weight_decay=0.0)

    values: dict[str, Any] = {
        "make_optimizer": make,
        "limit": None,
        "headroom": 0.08,
        "average": True,
        "batch": 8,
        "levels": LEVELS,
        "micro_batch": None,
        "conf": 0.001,
        "iou": 0.7,
        "max_det": 300,
        "nms": None,
    }
    side = keys.pop("side", 64)
    return plan_step(probe(model, side=side), **{**values, **keys})


@pytest.fixture(params=["gelan-t", "yolo26n"])
def model(request: pytest.FixtureRequest) -> Detector:
    torch.manual_seed(0)
    return build(request.param, classes=4)


def everything(model: Detector) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_planning_leaves_model_modes_gradients_and_random_state_untouched(model: Detector) -> None:
    model.train()
    model.heads[next(iter(model.heads))].eval()
    modes = [module.training for module in model.modules()]
    first = next(model.parameters())
    first.grad = torch.full_like(first, 3.0)
    before, random = everything(model), torch.get_rng_state()
    planned(model, limit=Limit(bytes=held(CPU) + 60 * MIB))  # small, so that validation is measured too
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert first.grad is not None
    assert torch.equal(first.grad, torch.full_like(first, 3.0))
    assert all(p.grad is None for p in list(model.parameters())[1:])


def test_a_step_after_planning_is_the_step_without_planning(model: Detector) -> None:
    def step() -> list[Tensor]:
        model.train()
        tool = probe(model, side=64)
        pixels, targets = worst_batch(2, side=64, boxes=5, classes=4)
        tool._pass(pixels, targets)
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad(set_to_none=True)
        return gradients

    before = everything(model)
    plain = step()
    model.load_state_dict(before)
    planned(model)
    assert all(torch.equal(a, b) for a, b in zip(plain, step(), strict=True))


def test_memory_of_a_larger_batch_is_predicted_from_two_small_ones() -> None:
    """The aim is 15 % of all resident memory; here activations alone, 8 images from 1 and 2."""
    tool = probe(build("gelan-t", classes=4), side=256)
    tool.warm_up()
    cost = tool.cost("none", room=2**40)
    seen = tool.measure("none", 8)
    assert cost is not None
    assert seen is not None
    assert cost.bytes.at(8) == pytest.approx(seen.bytes, rel=0.15)


def test_a_limit_cuts_the_batch_and_no_limit_does_not() -> None:
    model = build("gelan-t", classes=4)
    whole = planned(model, side=256)
    assert (whole.batch, whole.parts, whole.val_batch, whole.fits) == (8, 1, 16, True)
    assert whole.peak is not None
    tight = planned(model, side=256, headroom=0.0, limit=Limit(bytes=held(CPU) + 200 * MIB))
    assert tight.batch == 8
    assert tight.parts > 1
    assert tight.val_batch <= 16
    hopeless = planned(model, side=64, limit=Limit(bytes=MIB))
    assert (hopeless.batch, hopeless.micro_batch, hopeless.fits, hopeless.val_batch) == (8, 1, False, 1)


def test_a_plan_gives_the_assigner_a_share_and_says_what_sixteen_bits_would_need() -> None:
    model = build("gelan-t", classes=4)
    tool = probe(model, side=64)

    def make(of: Detector, batch: int) -> torch.optim.Optimizer:
        return torch.optim.SGD(of.parameters(), lr=0.1)

    def run(limit: str, headroom: float, micro: int) -> MemoryPlan:
        return plan_run(
            model, tool.loss, make_optimizer=make, precision=tool.precision, channels_last=True, side=64,
            boxes=20, images=100, batch=4, accumulate=1, ranks=1, micro_batch=micro, ckpt="off",
            memory_limit=limit, headroom=headroom, average=True, host_images=0, sharing=1, conf=0.001,
            iou=0.7, max_det=300, nms=None, narrow=narrower_precision(CPU, tool.precision),
        )  # fmt: skip

    plan = run("1MB", 0.1, 0)
    assert tool.loss.assigner_bytes == plan.assigner == LEAST_ASSIGNER
    assert not plan.fits
    assert plan.reasons[-1].startswith("in bfloat16 the same takes")
    roomy = run("1GB", 0.2, 2)
    assert tool.loss.assigner_bytes == roomy.assigner == 10**8
    assert all("bfloat16" not in reason for reason in roomy.reasons)


def test_no_image_is_tried_where_a_pass_would_exceed_the_room() -> None:
    tool = probe(build("gelan-t", classes=4), side=64)
    cost = tool.cost("none", room=1.0)
    assert cost is not None
    assert cost.bytes.base == 0  # one image was tried, and a line through the origin says the rest


def test_optimizer_state_is_counted_without_making_it() -> None:
    model = build("gelan-t", classes=4)
    trained = sum(p.numel() for p in model.parameters())
    tool = probe(model, side=64)
    for name, copies in (("SGD", 1), ("AdamW", 2)):
        choice = choose_optimizer(name, steps=1, classes=4, lr0=0.01, momentum=0.9, warmup_bias_lr=0.1)
        counted = tool.optimizer_bytes(lambda of: build_optimizer(of, choice, weight_decay=0.0))  # noqa: B023
        assert counted == pytest.approx(copies * 4 * trained, rel=0.001)


def test_the_worst_batch_is_always_the_same_and_full() -> None:
    pixels, targets = worst_batch(3, side=64, boxes=20, classes=4)
    again, same = worst_batch(3, side=64, boxes=20, classes=4)
    assert torch.equal(pixels, again)
    assert torch.equal(targets.boxes, same.boxes)
    assert targets.image.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert (targets.boxes[:, 2:] - targets.boxes[:, :2]).amax() <= 33
    assert int(targets.classes.max()) < 4
