"""How large and how expensive a model is, counted without running it.

GFLOPs are twice the multiply-accumulates of all convolutions and linear layers (batch norm, pooling,
activation and the products of attention are left out), the figure that model tables publish. The fixed
convolution that turns box bins into distances belongs to post in this code base but is counted in both
numbers, so they agree with published tables: R weights and 4R multiplications per cell and head, where there
is more than one bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from holdfast.models.heads.detect import DetectHead

_COUNTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Profile:
    """Size and cost of a model.

    Attributes:
        parameters: all weights, with the constants of the heads.
        trainable: weights that take gradients.
        gflops: cost of one image, of every branch the model has.
        imgsz: side of that image in pixels.
    """

    parameters: int
    trainable: int
    gflops: float
    imgsz: int


def profile(model: nn.Module, *, imgsz: int = 640) -> Profile:
    """Counts parameters and GFLOPs of a detector; computes nothing and leaves the model as it is."""
    return Profile(
        parameters=parameter_count(model),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        gflops=gflops(model, imgsz),
        imgsz=imgsz,
    )


def parameter_count(model: nn.Module) -> int:
    """Number of weights as published tables count them: with the constants of every head."""
    return sum(p.numel() for p in model.parameters()) + sum(head.reg_max for head in _binned_heads(model))


def gflops(model: nn.Module, imgsz: int = 640) -> float:
    """Cost of one square image in 1e9 operations, of every branch the model has.

    Args:
        model: a detector; any device, any form.
        imgsz: side in pixels, a multiple of 32.
    """
    macs = 0

    def count(module: nn.Module, inputs: Any, out: Tensor) -> None:
        nonlocal macs
        assert isinstance(module, _COUNTED)
        spread = isinstance(module, nn.ConvTranspose2d)  # counts once per number it reads, others per answer
        macs += (inputs[0] if spread else out).numel() * module.weight[0].numel()

    def count_bins(head: nn.Module, _: Any, out: Any) -> None:
        nonlocal macs
        macs += sum(boxes.numel() for boxes in out.boxes)  # 4R numbers per cell, each multiplied by its bin

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, _COUNTED)]
    hooks += [head.register_forward_hook(count_bins) for head in _binned_heads(model)]
    shapes = {name: value.to("meta") for name, value in model.state_dict().items()}
    dtype = next(model.parameters()).dtype
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            image = torch.empty(1, 3, imgsz, imgsz, device="meta", dtype=dtype)
            functional_call(model.train(), shapes, (image,))  # branches that only training runs count too
    finally:
        for module, training in modes:
            module.training = training
        for hook in hooks:
            hook.remove()
    return 2 * macs / 1e9


def _binned_heads(model: nn.Module) -> list[DetectHead]:
    return [m for m in model.modules() if isinstance(m, DetectHead) and m.reg_max > 1]
