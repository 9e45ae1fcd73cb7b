"""`holdfast plan`: how a training would fit into memory, without data and without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.errors import WeightsError
from holdfast.settings import PlanSettings, TrainSettings
from holdfast.settings.components import DetectionSettings, LossSettings

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from holdfast.models.detector import Detector
    from holdfast.train.plan import MemoryPlan


def run_plan(
    settings: PlanSettings, *, model: Detector | None = None, say: Callable[[str], None] = print
) -> MemoryPlan:
    """Runs `holdfast plan`: measures the model on its device and prints the plan.

    Args:
        settings: what to plan for.
        model: the model itself, instead of the one that the settings name. It is moved to the device.
        say: where lines go.

    Returns:
        The plan.

    Raises:
        SettingsError: no model is named, or a value cannot be used.
        WeightsError: the model cannot be trained.
    """
    if model is None:
        settings.require("model")
    import torch

    from holdfast.devices import choose_device, choose_precision, narrower_precision
    from holdfast.downloads import weights_folder
    from holdfast.load import load_model
    from holdfast.losses.detect import criterion
    from holdfast.memory.budget import budget, parse_limit
    from holdfast.train.compare import compare, table
    from holdfast.train.optim import build_optimizer, choose_optimizer
    from holdfast.train.planner import plan_run
    from holdfast.train.probe import Probe
    from holdfast.weights.release import locate

    training = TrainSettings.from_mapping({})  # for what a plan does not ask
    device = choose_device(settings.device)
    precision = choose_precision(device.device, amp=settings.amp, amp_dtype=settings.amp_dtype)
    if model is None:
        names = {number: str(number) for number in range(settings.classes)}
        model = load_model(locate(settings.model, weights_folder()), names=names).model
    if model.deployed:
        raise WeightsError(
            f"{model.name} is a deployed model, which cannot be trained.",
            hint="Plan with the name of a model, or with a checkpoint of a training.",
        )
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    model = model.to(device.device, memory_format=layout)  # type: ignore[call-overload]
    assert model is not None
    stride = max(model.strides)
    side = max(-(-settings.imgsz // stride) * stride, 64)
    loss = criterion(
        model.outputs,
        strides=model.strides,
        reg_max=model.reg_max,
        extra=model.extra,
        **training.part(LossSettings),
    )

    def optimizer_over(of: Detector) -> Optimizer:
        name = "AdamW" if settings.optimizer == "auto" else settings.optimizer
        choice = choose_optimizer(name, steps=1, classes=1, lr0=0.01, momentum=0.9, warmup_bias_lr=0.0)
        return build_optimizer(of, choice, weight_decay=0.0, class_branches=of.class_branches)

    plan = plan_run(
        model,
        loss,
        make_optimizer=lambda of, batch: optimizer_over(of),
        precision=precision,
        channels_last=settings.channels_last,
        side=side,
        boxes=settings.boxes,
        images=max(abs(settings.batch) * settings.accumulate, 1024),
        batch=settings.batch,
        accumulate=settings.accumulate,
        ranks=1,
        micro_batch=settings.micro_batch,
        ckpt=str(settings.ckpt),
        memory_limit=settings.memory_limit,
        headroom=settings.headroom,
        average=training.ema,
        host_images=0,
        sharing=1,
        nms=training.nms,
        narrow=narrower_precision(device.device, precision),
        may_narrow=settings.amp,
        **training.part(DetectionSettings),
    )
    rows = []
    if settings.compare:
        sides = sorted({side, max(side // 2 // stride * stride, 64)}, reverse=True)
        probes = [
            Probe(
                model,
                loss,
                precision=precision,
                channels_last=settings.channels_last,
                side=each,
                boxes=settings.boxes,
                recompute=model.recompute,
            )
            for each in sides
        ]
        rows = compare(
            probes,
            make_optimizer=optimizer_over,
            budget=budget(
                device.device, limit=parse_limit(settings.memory_limit), headroom=settings.headroom
            ),
            batches=sorted({plan.batch, max(plan.batch // 4, 1)}, reverse=True),
            devices=(1,) if device.device.type == "cpu" else (1, 2, 4),
        )
    if settings.as_json:
        facts = {"model": model.name, "imgsz": side, "device": device.note, **plan.as_dict()}
        say(json.dumps({**facts, "compare": [row.as_dict() for row in rows]}))
        return plan
    say(f"{model.name} at {side}, {device.note}, {plan.precision}")
    for line in (*plan.lines(), *(table(rows) if rows else ())):
        say(f"  {line}")
    return plan
