"""Measures what is needed, and no more, and has a step planned: the probe's numbers meet the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim import Optimizer

from holdfast.data.host_memory import free_memory
from holdfast.devices import Precision
from holdfast.memory.budget import Budget, Limit, budget, give_back, held, parse_limit
from holdfast.models.detector import Detector
from holdfast.nn.recompute import Level
from holdfast.train.plan import LEVELS, Fixed, MemoryPlan, choose, given, narrowed
from holdfast.train.probe import Cost, Line, Loss, Probe

LARGEST = 1024  # images of a batch that is chosen
# Rough share of the memory of a pass that each level leaves. Only decides whether one image may be tried.
_SHARES: dict[Level, float] = {"none": 1.0, "norm": 0.7, "stages": 0.4}
RETAINED = 0.2  # glibc: passes of 16 images held 573 MiB once, 690 in a row
ASSIGNER = 0.5  # share of the headroom; activations of every size are measured, its pairs depend on the data
LEAST_ASSIGNER = 4 * 2**20
_LIVE_COPIES = 2  # of a run's state: one to go back to, and the next or the one that is being saved
_LIVE_BATCHES = 4  # on the host: two being made, one in use, one spare


def plan_run(
    model: Detector,
    loss: Loss,
    *,
    make_optimizer: Callable[[Detector, int], Optimizer],
    precision: Precision,
    channels_last: bool,
    side: int,
    boxes: int,
    images: int,
    batch: int,
    accumulate: int,
    ranks: int,
    micro_batch: int,
    ckpt: str,
    memory_limit: str,
    headroom: float,
    average: bool,
    host_images: int,
    sharing: int,
    conf: float,
    iou: float,
    max_det: int,
    nms: bool | None,
    narrow: Precision | None = None,
    may_narrow: bool = False,
) -> MemoryPlan:
    """Plans how the steps of a run fit into memory; the model is as before afterwards.

    The loss is told how much memory its assignment may take.

    Args:
        model: training form, on its device.
        loss: as in training.
        make_optimizer: builds the run's optimizer over a model, for a batch of so many images.
        precision, channels_last: as in training.
        side: largest side of the input, pixels.
        boxes: most boxes that an image may show.
        images: images of the data set, which no batch exceeds.
        batch: images at a time as the user sees it; -1 takes the most that need no splitting.
        accumulate: such batches per optimizer step; micro-batches have at most one of them.
        ranks: processes that share a batch; the plan is for this one's part.
        micro_batch: images at a time; 0 decides.
        ckpt: "auto", "off", or the level of recompute.
        memory_limit: as in `memory.parse_limit`.
        headroom: share of the budget that stays free.
        average: whether the run keeps a moving average.
        host_images: bytes of decoded images that the loader will hold.
        sharing: processes of this run on the same device or, on a CPU, the same machine.
        conf, iou, max_det, nms: of the run's validation.
        narrow: format of 16 bits to look at where not even one image fits; None where there is none.
        may_narrow: whether the plan may take it; otherwise it only says what it would need.

    Raises:
        SettingsError: `memory_limit` is no amount of memory.
    """
    limit = parse_limit(memory_limit)
    levels = LEVELS if ckpt == "auto" and batch != -1 else tuple(x for x in LEVELS if x == ckpt) or LEVELS[:1]
    part = -1 if batch == -1 else -(-min(batch * accumulate, images) // ranks)
    most = None if batch == -1 else -(-min(batch, images) // ranks)
    device = next(model.parameters()).device
    assigner = assigner_bytes(budget(device, limit=limit, headroom=headroom, sharing=sharing))
    loss.assigner_bytes = assigner
    if micro_batch and ckpt != "auto" and batch != -1:
        return given(
            batch=part,
            micro_batch=min(micro_batch, most or 1),
            recompute=levels[0],
            precision=precision.note,
            assigner=assigner,
        )

    def plan_in(form: Precision) -> MemoryPlan:
        return plan_step(
            Probe(
                model,
                loss,
                precision=form,
                channels_last=channels_last,
                side=side,
                boxes=boxes,
                recompute=model.recompute,
            ),
            make_optimizer=lambda of: make_optimizer(of, max(part, 1) * ranks),
            limit=limit,
            headroom=headroom,
            average=average,
            host_images=host_images,
            batch=part,
            most=most,
            levels=levels,
            micro_batch=micro_batch or None,
            sharing=sharing,
            largest_batch=min(-(-images // ranks), LARGEST),
            conf=conf,
            iou=iou,
            max_det=max_det,
            nms=nms,
        )

    plan = replace(plan_in(precision), assigner=assigner)
    if narrow is not None and not plan.fits and plan.micro_batch == 1:
        plan = narrowed(plan, replace(plan_in(narrow), assigner=assigner), take=may_narrow)
    if batch == -1 and accumulate > 1:
        count = min(plan.batch * accumulate, -(-images // ranks))
        plan = replace(plan, batch=count, parts=-(-count // plan.micro_batch))
    return plan


def most_boxes(offsets: npt.NDArray[np.integer], *, joined: int, mixed: bool) -> int:
    """Boxes of the fullest picture that a data set can make: its fullest images in one mosaic.

    Args:
        offsets: (N + 1,) where the boxes of each image start.
        joined: images of a mosaic; 1 without mosaics.
        mixed: whether two pictures may be blended or boxes doubled.
    """
    counts = np.sort(np.diff(offsets))[::-1][:joined]
    return int(counts.sum()) * (2 if mixed else 1)


def plan_step(
    probe: Probe,
    *,
    make_optimizer: Callable[[Detector], Optimizer],
    limit: Limit | None,
    headroom: float,
    average: bool,
    host_images: int = 0,
    batch: int,
    most: int | None = None,
    levels: Sequence[Level],
    micro_batch: int | None,
    sharing: int = 1,
    largest_batch: int = LARGEST,
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
        batch, most, levels, micro_batch, largest_batch: as in `plan.choose`.
        make_optimizer: builds the run's optimizer over a model.
        limit: what the user allows.

    The others are as in `plan_run`.
    """
    device = probe.device
    on_host = device.type == "cpu"
    full = probe.warm_up()
    fixed = fixed_memory(probe, make_optimizer, average=average, host_images=host_images)
    allowed = budget(device, limit=limit, headroom=headroom, sharing=sharing)
    costs: dict[Level, Cost | None] = {}

    def cost(level: Level) -> Cost | None:
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
            retained=RETAINED if on_host else 0.0,
        )

    cost(levels[0])
    give_back(device)
    fixed = replace(fixed, held=max(held(device), fixed.held))  # libraries have loaded what passes need
    plan = choice()
    if device.type == "cuda":
        plan = _confirmed(plan, probe, choice, costs, fixed, allowed)
        waiting = 2 * plan.batch * 3 * probe.side**2  # bytes of the batch in use and the next one
        ahead = plan.peak is not None and plan.peak + waiting <= allowed.usable
        plan = replace(plan, ahead=ahead, peak=plan.peak + waiting if ahead and plan.peak else plan.peak)
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
    costs: dict[Level, Cost | None],
    fixed: Fixed,
    allowed: Budget,
) -> MemoryPlan:
    """Tries the micro-batch that was chosen, and chooses again while it takes more memory or time than it
    should.
    """
    for _ in range(4):
        known = costs.get(plan.recompute)
        if known is None:
            return plan
        seen = probe.measure(plan.recompute, plan.micro_batch)
        fits = seen is not None and fixed.training(plan.batch) + seen.bytes <= allowed.usable
        if seen is not None and fits:
            slower = seen.seconds / known.seconds.at(plan.micro_batch)
            time = Line(known.seconds.base * slower, known.seconds.each * slower)
            costs[plan.recompute] = replace(known, seconds=time)
        else:
            took = 1.25 * known.bytes.at(plan.micro_batch) if seen is None else seen.bytes
            costs[plan.recompute] = replace(known, bytes=Line(0, took / plan.micro_batch))
        again = choice()
        if (again.micro_batch, again.recompute) == (plan.micro_batch, plan.recompute):
            peak = int(fixed.training(plan.batch) + seen.bytes) if seen is not None and fits else again.peak
            return replace(again, peak=peak)
        plan = again
    return plan


def fixed_memory(
    probe: Probe, make_optimizer: Callable[[Detector], Optimizer], *, average: bool, host_images: int
) -> Fixed:
    """What a run will hold beside activations; to be called after a pass has loaded the libraries.

    Args:
        make_optimizer, average, host_images: as in `plan_run`.
    """
    state = probe.optimizer_bytes(make_optimizer)
    give_back(probe.device)
    loader = Line(host_images, _LIVE_BATCHES * 3.0 * probe.side**2)
    weights = _bytes(probe.model)
    kept = weights + state + (weights if average else 0)
    on_host = probe.device.type == "cpu"
    return Fixed(
        held=held(probe.device),
        gradients=probe.gradients,
        state=state,
        average=weights if average else 0,
        copies=_LIVE_COPIES * kept if on_host else 0,
        loader=loader if on_host else Line(0, 0),
    )


def assigner_bytes(allowed: Budget) -> int:
    """What the pairs that the assigner looks at together may take, of what stays free."""
    return max(int(ASSIGNER * allowed.headroom), LEAST_ASSIGNER)


def _bytes(model: nn.Module) -> int:
    """Bytes of a model's state."""
    tensors: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)
