"""MuSGD, the optimizer YOLO26 is published with: an orthogonalised momentum step, then an ordinary SGD step.

Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by
the nearest semi-orthogonal matrix, found by a Newton-Schulz iteration of fifth order. Filters are matrices
with one row per output channel. Here the two steps share one learning rate, with fixed weights.

Unusual: weight decay acts in the SGD step only, on weights that the first step has moved. The iteration runs
in bfloat16 with three roundings each time; matrices of one shape run as one batch.

Dimensions: n matrices of one shape, r rows, c columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class MuSGD(Optimizer):
    """Multi-tensor MuSGD with Nesterov momentum.

    Args:
        params: parameters or groups; groups with `use_muon` true take both steps, others the SGD step.
        lr: learning rate of both steps.
        momentum: of both steps, each with a buffer of its own.
        weight_decay: coupled decay of the SGD step.
        muon: weight of the orthogonalised step.
        sgd: weight of the SGD step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float,
        weight_decay: float = 0.0,
        muon: float = 0.2,
        sgd: float = 1.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "use_muon": False}
        super().__init__(params, {**defaults, "muon": muon, "sgd": sgd})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; `closure` is not supported and must be None."""
        for group in self.param_groups:
            params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads = [p.grad for p in params if p.grad is not None]
            if group["use_muon"]:
                self._muon(params, grads, group)
            self._sgd(params, grads, group)

    def _muon(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        buffers = self._buffers(params, "muon_buffer")
        torch._foreach_lerp_(buffers, grads, 1.0 - group["momentum"])
        ahead = torch._foreach_lerp(grads, buffers, group["momentum"])
        updates = [_scaled(update, p) for update, p in zip(orthogonalised(ahead), params, strict=True)]
        torch._foreach_add_(params, updates, alpha=-group["lr"] * group["muon"])

    def _sgd(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        buffers = self._buffers(params, "momentum_buffer")
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        ahead = torch._foreach_add(grads, buffers, alpha=group["momentum"])
        torch._foreach_add_(params, ahead, alpha=-group["lr"] * group["sgd"])

    def _buffers(self, params: Sequence[Tensor], name: str) -> list[Tensor]:
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in params]


def orthogonalised(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The nearly semi-orthogonal matrix for each tensor, whose first dimension is the rows.

    Args:
        matrices: tensors of two or more dimensions, any float dtype.

    Returns:
        Tensors of the same shapes, bfloat16, singular values about 0.7 to 1.2.
    """
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    wide: list[Tensor] = []
    for number, matrix in enumerate(matrices):
        flat = matrix.flatten(1)
        flat = flat.T if flat.shape[0] > flat.shape[1] else flat
        wide.append(flat)
        alike[flat.shape[0], flat.shape[1]].append(number)
    results: list[Tensor] = list(matrices)
    for numbers in alike.values():
        solved = _newton_schulz(torch.stack([wide[n] for n in numbers]))
        for number, matrix in zip(numbers, solved, strict=True):
            shape = matrices[number].shape
            rows = shape[0]
            results[number] = (matrix.T if matrix.shape[0] != rows else matrix).reshape(shape)
    return results


def _newton_schulz(x: Tensor) -> Tensor:
    """Drives the singular values of matrices (n, r, c), r <= c, towards 1; bfloat16."""
    a, b, c = _COEFFICIENTS
    x = x.bfloat16()
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT  # (n, r, r)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _scaled(update: Tensor, parameter: Tensor) -> Tensor:
    """Matrices with more rows than columns move further; filters count by their last two dimensions."""
    factor = max(1.0, parameter.shape[-2] / parameter.shape[-1]) ** 0.5
    scaled: Tensor = update.to(parameter.dtype) * factor
    return scaled
