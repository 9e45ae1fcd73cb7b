"""Size and cost of a network: parameters, and multiply-accumulates of its convolutions.

Unusual: the cost is counted on the meta device, where tensors have shapes but no values, so a large model
takes a moment and no memory. Two operations per multiply-accumulate; batch-norm, pooling and activations do
not count, as in the published tables.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def parameter_count(model: nn.Module) -> int:
    """Number of weights, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


def gflops(model: nn.Module, imgsz: int = 640) -> float:
    """Billions of operations of one forward pass on one square image of side `imgsz` (a multiple of 32).

    The auxiliary branch counts when the model carries one.
    """
    total = 0

    def count(conv: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        nonlocal total
        assert isinstance(conv, nn.Conv2d)
        total += 2 * output.numel() * conv.weight[0].numel()

    shadow = copy.deepcopy(model).to("meta")
    for module in shadow.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        shadow(torch.empty(1, 3, imgsz, imgsz, device="meta"), auxiliary=True)
    return total / 1e9
