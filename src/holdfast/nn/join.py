"""Parting and joining of channels with gradients as the backward pass wants them.

The gradient of a concatenation is cut into slices. On a CPU the backward pass of an activation takes seven to
nine times as long on a channels-last slice as on a dense map, and copying the slice first costs a tenth of
that; other devices take slices as they are. The gradient of a slice is a whole map of zeros around it, which
is then added to another map; `fork` adds the slice alone.

Dimensions: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from holdfast.nn.recompute import derived


def join(parts: Sequence[Tensor]) -> Tensor:
    """Maps (B, C_i, H, W) to one (B, sum C_i, H, W)."""
    if not torch.is_grad_enabled():
        return torch.cat(list(parts), 1)
    joined: Tensor = _Join.apply(*parts)  # type: ignore[no-untyped-call]
    return derived(joined, _concatenated, *parts)


def fork(x: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Gives a map (B, C, H, W) and a dense copy of its channels from `kept` on.

    Every convolution on the slice itself would make such a copy, and backward would keep all of `x` for it.
    The map must be used once, by `join`, whose gradients belong to who receives them.
    """
    if not torch.is_grad_enabled():
        return x, x[:, kept:].clone()
    whole, part = _Fork.apply(x, kept)  # type: ignore[no-untyped-call]
    return derived(whole, _itself, x), derived(part, lambda x: x[:, kept:].clone(), x)


def _concatenated(*parts: Tensor) -> Tensor:
    return torch.cat(parts, 1)


def _itself(x: Tensor) -> Tensor:
    return x


class _Fork(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        ctx.kept = kept
        return x.view_as(x), x[:, kept:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, whole: Tensor, part: Tensor) -> tuple[Tensor, None]:
        whole[:, ctx.kept :].add_(part)
        return whole, None


class _Join(Function):
    @staticmethod
    def forward(ctx: Any, *parts: Tensor) -> Tensor:
        ctx.widths = [part.shape[1] for part in parts]
        return torch.cat(parts, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        parts = torch.split(grad, ctx.widths, 1)
        return tuple(part.clone() if part.device.type == "cpu" else part for part in parts)
