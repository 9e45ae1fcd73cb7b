"""Gradients by the parts of a model: their norms now and then, and which of them are not finite.

Dimensions: P parameters.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class LayerNorms:
    """Norms of the gradients of each part of a model (`backbone.stage3`) at one step, when asked.

    They are taken on the device as the optimizer gets them, after clipping, and read when wanted.

    Args:
        model: names the parts.
        optimizer: whose steps are looked at.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self._asked = False
        self._names: list[str] = []
        self._norms: Tensor | None = None
        optimizer.register_step_pre_hook(self._look)

    def ask(self) -> None:
        """Has the next step looked at."""
        self._asked = True

    def answer(self) -> dict[str, float]:
        """Norm by part of the step that was looked at; empty before there was one. Waits for the device."""
        squares: dict[str, float] = {}
        if self._norms is not None:
            for name, norm in zip(self._names, self._norms.tolist(), strict=True):
                part = ".".join(name.split(".")[:2])
                squares[part] = squares.get(part, 0.0) + norm * norm
        return {part: square**0.5 for part, square in squares.items()}

    def _look(self, *_: Any) -> None:
        if not self._asked:
            return
        self._asked = False
        found = [(name, p.grad) for name, p in self._named if p.grad is not None]
        self._names = [name for name, _ in found]
        norms = torch._foreach_norm([grad for _, grad in found]) if found else ()
        self._norms = torch.stack([norm.float() for norm in norms]) if norms else None


def non_finite_layers(model: nn.Module) -> list[str]:
    """Names of the parameters whose gradients hold NaN or infinity. Waits for the device, so it is for steps
    that are refused, before their gradients are dropped.
    """
    found = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if not found:
        return []
    finite = torch.stack([torch.isfinite(grad).all() for _, grad in found]).tolist()  # (P,) bool
    return [name for (name, _), good in zip(found, finite, strict=True) if not good]
