"""Measures what is needed, and no more, and has a step planned: the probe's numbers meet the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.optim import Optimizer

from holdfast.data.host_memory import free_memory
from holdfast.train.memory import Budget, Limit, budget, give_back, held
from holdfast.train.plan import Fixed, MemoryPlan, choose
from holdfast.train.probe import Cost, Line, Probe

# Rough share of the memory of a pass that each level leaves. Only decides whether one image may be tried.
_SHARES = {"none": 1.0, "norm": 0.7, "stages": 0.4}
_LIVE_BATCHES = 4  # on the host: two being made, one in use, one spare


def plan_step(
    probe: Probe,
    *,
    make_optimizer: Callable[[nn.Module], Optimizer],
    limit: Limit | None,
    headroom: float,
    average: bool,
    host_images: int = 0,
    batch: int,
    most: int | None = None,
    levels: Sequence[str],
    micro_batch: int | None,
    sharing: int = 1,
    largest_batch: int = 1024,
    conf: float,
    iou: float,
    max_det: int,
    nms: bool | None,
) -> MemoryPlan:
    """Plans how a step over the batch fits into memory.

    On a CUDA device the chosen micro-batch is tried once; what it takes there, and how long, stands in the
    plan, and where it is over the budget the plan is made again with that knowledge.

    Args:
        probe: of the model, which is on its device.
        make_optimizer: builds the run's optimizer over a model.
        limit: what the user allows.
        headroom: share of the budget that stays free.
        average: whether the run will keep a moving average, which is not there yet.
        host_images: bytes of decoded images that the loader will hold; counts on a CPU only.
        batch, most, levels, micro_batch, largest_batch: as in `plan.choose`.
        sharing: processes of this run on the same device or, on a CPU, the same machine.
        conf, iou, max_det, nms: of the run's validation.
    """
    device = probe.device
    on_host = device.type == "cpu"
    full = probe.warm_up()
    state = probe.optimizer_bytes(make_optimizer)
    give_back(device)
    allowed = budget(device, limit=limit, headroom=headroom, sharing=sharing)
    per_image = 3.0 * probe.side**2
    fixed = Fixed(
        held=held(device),
        gradients=probe.gradients,
        state=state,
        average=_bytes(probe.model) if average else 0,
        loader=Line(host_images, _LIVE_BATCHES * per_image) if on_host else Line(0, 0),
    )
    costs: dict[str, Cost | None] = {}

    def cost(level: str) -> Cost | None:
        if level not in costs:
            dangerous = on_host and (full is None or full * _SHARES[level] / 2 > free_memory())
            room = allowed.usable - fixed.training(max(batch, 1))
            costs[level] = None if dangerous else probe.cost(level, room)
        return costs[level]

    def choice(validation: Cost | None = None) -> MemoryPlan:
        return choose(
            cost,
            fixed=fixed,
            budget=allowed,
            batch=batch,
            most=most,
            precision=probe.precision.note,
            levels=levels,
            micro_batch=micro_batch,
            validation=validation,
            largest_batch=largest_batch,
        )

    cost(levels[0])
    give_back(device)
    fixed = replace(fixed, held=max(held(device), fixed.held))  # libraries have loaded what passes need
    plan = choice()
    if device.type == "cuda":
        plan = _confirmed(plan, probe, choice, costs, fixed, allowed)
    if plan.parts == 1 and plan.recompute == "none" and plan.fits:
        return replace(plan, val_batch=2 * plan.batch)  # an image takes less than half without gradients
    validation = probe.validation(
        conf=conf, iou=iou, max_det=max_det, nms=nms, room=allowed.usable - fixed.validation(plan.batch)
    )
    return replace(plan, val_batch=choice(validation).val_batch)


def _confirmed(
    plan: MemoryPlan,
    probe: Probe,
    choice: Callable[[], MemoryPlan],
    costs: dict[str, Cost | None],
    fixed: Fixed,
    allowed: Budget,
) -> MemoryPlan:
    """Tries the micro-batch that was chosen, and chooses again while it takes more than it may."""
    for _ in range(4):
        known = costs.get(plan.recompute)
        if known is None:
            return plan
        seen = probe.measure(plan.recompute, plan.micro_batch)
        if seen is not None and fixed.training(plan.batch) + seen.bytes <= allowed.usable:
            line, time = Line(0, seen.bytes / seen.images), Line(0, seen.seconds / seen.images)
            return replace(
                plan,
                peak=int(fixed.training(plan.batch) + line.at(plan.micro_batch)),
                images_per_second=1 / time.each,
            )
        took = 1.25 * known.bytes.at(plan.micro_batch) if seen is None else seen.bytes
        costs[plan.recompute] = replace(known, bytes=Line(0, took / plan.micro_batch))
        again = choice()
        if again.micro_batch == plan.micro_batch and again.recompute == plan.recompute:
            return again
        plan = again
    return plan


def _bytes(model: nn.Module) -> int:
    """Bytes of a model's state."""
    tensors: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)
