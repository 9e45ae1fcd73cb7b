"""Optimizers and their parameter groups: biases, decayed weights, norm weights (YOLOv9's order); for MuSGD
also matrices, and each of these apart for the class towers of the heads, which learn at three times the rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from holdfast.train.lion import Lion
from holdfast.train.musgd import MuSGD
from holdfast.train.schedule import Schedule

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
LONG_RUN = 10_000  # optimizer steps above which `auto` leaves AdamW
NORMALISED = ("Adam", "AdamW", "LION")  # a step is as long as the rate, whatever the gradient
CLASS_RATE = 3.0  # learning rate of class towers under MuSGD, as a factor


@dataclass(frozen=True)
class OptimChoice:
    """What `optimizer=auto` (or the user) decided.

    Attributes:
        name: SGD, Adam, AdamW, LION or MuSGD.
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
    wanted: str,
    *,
    steps: int,
    classes: int,
    lr0: float,
    momentum: float,
    warmup_bias_lr: float,
    long_run: str = "SGD",
) -> OptimChoice:
    """Resolves `auto`: AdamW with a rate set by the class count for short runs, `long_run` for long ones.

    Args:
        wanted: `auto` or an optimizer's name; with a name the user's rates stand, but biases start no higher
            than `lr0` where every step is as long as its rate, however small the gradient.
        steps: optimizer steps of the whole run.
        classes: number of classes.
        long_run: SGD or MuSGD, what the model's family is published with.
    """
    if wanted in NORMALISED and warmup_bias_lr > lr0:
        note = f"{wanted}, lr0 {lr0:g}, for biases too (warmup_bias_lr {warmup_bias_lr:g} is for SGD)"
        return OptimChoice(wanted, lr0, momentum, lr0, note)
    if wanted != "auto":
        return OptimChoice(wanted, lr0, momentum, warmup_bias_lr, f"{wanted}, lr0 {lr0:g}")
    if steps > LONG_RUN:
        bias_lr = 0.0 if long_run == "MuSGD" else warmup_bias_lr
        note = f"{long_run}, lr0 0.01 (auto: {steps} steps, more than {LONG_RUN})"
        return OptimChoice(long_run, 0.01, 0.937, bias_lr, note)
    lr = round(0.002 * 5 / (4 + classes), 6)
    return OptimChoice("AdamW", lr, 0.9, 0.0, f"AdamW, lr0 {lr:g} (auto: {steps} steps, {classes} classes)")


def rescaled(choice: OptimChoice, policy: str, *, batch: int, nominal_batch: int) -> OptimChoice:
    """Returns the choice with its peak learning rate made to follow the batch.

    Args:
        policy: `none`, `linear` (times batch / nominal batch) or `sqrt` (times the root of that).
        batch: images per optimizer step.
        nominal_batch: batch at which the learning rate stays as it is.
    """
    if policy == "none":
        return choice
    factor = (batch / nominal_batch) ** (0.5 if policy == "sqrt" else 1.0)
    lr0 = choice.lr0 * factor
    note = f"{choice.note}; lr_scale {policy}: times {factor:.4g} at batch {batch}, so lr0 {lr0:.4g}"
    return replace(choice, lr0=lr0, note=note)


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


def musgd_groups(
    model: nn.Module, *, weight_decay: float, class_branches: Sequence[str]
) -> list[dict[str, Any]]:
    """Splits trainable parameters as `parameter_groups` does, and further.

    Weights with two or four dimensions are matrices, which take MuSGD's first step; what lies in class
    branches comes first, with `lr_scale` 3. Groups without parameters are left out.

    Args:
        class_branches: paths of the class towers.
    """
    inside = {
        id(p) for path in class_branches for p in model.get_submodule(path).parameters() if p.requires_grad
    }
    bias, weight, norm = parameter_groups(model, weight_decay=weight_decay)
    matrices = [p for p in weight["params"] if p.ndim in (2, 4)]
    rest = [p for p in weight["params"] if p.ndim not in (2, 4)]
    muon = {**weight, "params": matrices, "name": "muon", "use_muon": True}
    groups = []
    for group in ({**weight, "params": rest}, norm, bias, muon):
        fast = [p for p in group["params"] if id(p) in inside]
        slow = [p for p in group["params"] if id(p) not in inside]
        groups.append({**group, "params": fast, "lr_scale": CLASS_RATE})
        groups.append({**group, "params": slow})
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, choice: OptimChoice, *, weight_decay: float, class_branches: Sequence[str] = ()
) -> Optimizer:
    """Builds the chosen optimizer over its groups, in its fused or multi-tensor form.

    Args:
        class_branches: paths of the model's class towers; MuSGD treats them apart.
    """
    if choice.name == "MuSGD":
        split = musgd_groups(model, weight_decay=weight_decay, class_branches=class_branches)
        return MuSGD(split, lr=choice.lr0, momentum=choice.momentum)
    groups = parameter_groups(model, weight_decay=weight_decay)
    if choice.name == "SGD":
        nesterov = choice.momentum > 0  # which torch refuses without any
        return SGD(groups, lr=choice.lr0, momentum=choice.momentum, nesterov=nesterov, fused=True)
    betas = (choice.momentum, 0.999)
    if choice.name == "Adam":
        return Adam(groups, lr=choice.lr0, betas=betas, fused=True)
    if choice.name == "AdamW":
        return AdamW(groups, lr=choice.lr0, betas=betas, fused=True)
    if choice.name == "LION":
        return Lion(groups, lr=choice.lr0, betas=(choice.momentum, 0.99))
    raise ValueError(f"unknown optimizer {choice.name}")


def group_names(optimizer: Optimizer) -> list[str]:
    """Names of the parameter groups, in their order; those with a rate of their own say so."""
    return [
        group["name"] + (f", class branches (x{group['lr_scale']:g})" if "lr_scale" in group else "")
        for group in optimizer.param_groups
    ]


def scaled_weight_decay(weight_decay: float, *, batch: int, nominal_batch: int) -> float:
    """Returns the decay for this batch: `weight_decay * batch / nominal_batch`.

    A loss summed over B images takes B / nominal of the nominal step, so its decay per step shrinks alike.
    """
    return weight_decay * batch / nominal_batch


def apply_schedule(optimizer: Optimizer, schedule: Schedule, step: int, *, factor: float = 1.0) -> None:
    """Sets learning rate and momentum of every group for a step; rates are multiplied by `factor`."""
    for group in optimizer.param_groups:
        scale = group.get("lr_scale", 1.0)
        lr, momentum = schedule.at(step, bias=group["name"] == "bias", scale=scale)
        group["lr"] = lr * factor
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def steps_per_epoch(images: int, batch: int) -> int:
    """Returns the number of optimizer steps in an epoch; the last batch may be short."""
    return math.ceil(images / batch)
