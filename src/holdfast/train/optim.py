"""Optimizers and their three parameter groups: biases, decayed weights, norm weights (YOLOv9's order)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from holdfast.train.lion import Lion
from holdfast.train.schedule import Schedule

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class OptimChoice:
    """What `optimizer=auto` (or the user) decided.

    Attributes:
        name: SGD, Adam, AdamW or LION.
        lr0: peak learning rate.
        momentum: momentum or beta1.
        warmup_bias_lr: learning rate of biases at the first step.
        note: one sentence for the start-up block.
    """

    name: str
    lr0: float
    momentum: float
    warmup_bias_lr: float
    note: str


def choose_optimizer(
    wanted: str, *, steps: int, classes: int, lr0: float, momentum: float, warmup_bias_lr: float
) -> OptimChoice:
    """Resolves `auto`: AdamW with a rate set by the class count for short runs, SGD for long ones.

    Args:
        wanted: `auto` or an optimizer's name; with a name the user's rates stand.
        steps: optimizer steps of the whole run.
        classes: number of classes.
    """
    if wanted != "auto":
        return OptimChoice(wanted, lr0, momentum, warmup_bias_lr, f"{wanted}, lr0 {lr0:g}")
    if steps > 10_000:
        return OptimChoice(
            "SGD", 0.01, 0.937, warmup_bias_lr, f"SGD, lr0 0.01 (auto: {steps} steps, more than 10000)"
        )
    lr = round(0.002 * 5 / (4 + classes), 6)
    return OptimChoice("AdamW", lr, 0.9, 0.0, f"AdamW, lr0 {lr:g} (auto: {steps} steps, {classes} classes)")


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Splits trainable parameters into biases (no decay), weights (decay) and norm weights (no decay).

    Every trainable parameter is in exactly one group.
    """
    biases, weights, norms = [], [], []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if name == "bias":
                biases.append(parameter)
            elif isinstance(module, NORMS):
                norms.append(parameter)
            else:
                weights.append(parameter)
    return [
        {"params": biases, "weight_decay": 0.0, "name": "bias"},
        {"params": weights, "weight_decay": weight_decay, "name": "weight"},
        {"params": norms, "weight_decay": 0.0, "name": "norm"},
    ]


def build_optimizer(model: nn.Module, choice: OptimChoice, *, weight_decay: float) -> Optimizer:
    """Builds the chosen optimizer over `parameter_groups`, in its fused or multi-tensor form."""
    groups = parameter_groups(model, weight_decay=weight_decay)
    if choice.name == "SGD":
        return SGD(groups, lr=choice.lr0, momentum=choice.momentum, nesterov=True, fused=True)
    betas = (choice.momentum, 0.999)
    if choice.name == "Adam":
        return Adam(groups, lr=choice.lr0, betas=betas, fused=True)
    if choice.name == "AdamW":
        return AdamW(groups, lr=choice.lr0, betas=betas, fused=True)
    if choice.name == "LION":
        return Lion(groups, lr=choice.lr0, betas=(choice.momentum, 0.99))
    raise ValueError(f"unknown optimizer {choice.name}")


def scaled_weight_decay(weight_decay: float, *, batch: int, nominal_batch: int) -> float:
    """Returns the decay for this batch: `weight_decay * batch / nominal_batch`.

    A loss summed over B images takes B / nominal of the nominal step, so its decay per step shrinks alike.
    """
    return weight_decay * batch / nominal_batch


def apply_schedule(optimizer: Optimizer, schedule: Schedule, step: int) -> None:
    """Sets learning rate and momentum of every group for a step."""
    for group in optimizer.param_groups:
        lr, momentum = schedule.at(step, bias=group["name"] == "bias")
        group["lr"] = lr
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def steps_per_epoch(images: int, batch: int) -> int:
    """Returns the number of optimizer steps in an epoch; the last batch may be short."""
    return math.ceil(images / batch)
