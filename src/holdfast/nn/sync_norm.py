"""Batch norm whose statistics are taken over the images of all ranks, and that no failing rank can hang.

Unusual: every exchange, of whatever layer, forward or backward, adds up one buffer of one size. So exchanges
of all layers fit each other, and a rank that cannot go on (it is out of memory, or has no images) takes part
in those that are left with zeros (`Exchange.drain`) while the others finish. That a rank failed travels in
the buffer and is read when all is done; nothing waits for the device before.

Sums travel in float64: a variance that is the difference of two squares would lose digits in float32 where
the mean is large.

Dimensions: B images of this rank, C channels, H W height and width, N = B H W over all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_EXTRA = 4  # behind the sums: positions, number of ranks, of layer, and failed ranks


class Exchange:
    """What synchronised layers of a model have in common.

    Args:
        add_up: adds up tensors over all ranks, in place (`train.dist.Ranks.sum_`).
        channels: most channels of a layer.
        device: where the model is.

    Attributes:
        left: exchanges of this attempt that are still to come.
    """

    def __init__(
        self, add_up: Callable[[Sequence[Tensor]], None], *, channels: int, device: torch.device
    ) -> None:
        self.add_up = add_up
        self.left = 0
        self.channels = channels
        self._buffer = torch.zeros(2 * channels + _EXTRA, dtype=torch.float64, device=device)
        self._failed = torch.zeros((), dtype=torch.float64, device=device)
        self._mixed = torch.zeros_like(self._failed)
        self._counted: int | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Exchange:
        return self  # copies of a model are for validation, where nothing is exchanged

    @contextmanager
    def counting(self) -> Iterator[list[int]]:
        """Exchanges nothing, and puts how many exchanges there would have been into the list at the end."""
        found: list[int] = []
        self._counted = 0
        try:
            yield found
        finally:
            found.append(self._counted)
            self._counted = None

    def begin(self, exchanges: int) -> None:
        """Starts an attempt of so many exchanges, the same number on all ranks."""
        self.left = exchanges
        self._failed.zero_()
        self._mixed.zero_()

    def swap(self, first: Tensor, second: Tensor, count: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Adds up two (C,) float64 sums and a count over all ranks; all are new tensors."""
        if self._counted is not None:
            self._counted += 1
            return first.clone(), second.clone(), first.new_full((), float(count))
        width = first.numel()
        buffer = self._buffer.zero_()
        buffer[:width] = first
        buffer[self.channels : self.channels + width] = second
        own = torch.tensor((count, 1.0, layer, 0.0), dtype=torch.float64)
        buffer[-4:] = own.to(buffer.device, non_blocking=True)
        self._send()
        found = buffer.clone()
        self._mixed += (found[-2] - layer * found[-3]).abs()
        return found[:width], found[self.channels : self.channels + width], found[-4]

    def drain(self, *, failed: bool, keep: int = 0) -> None:
        """Takes part in the exchanges that are left, adding nothing.

        Args:
            failed: whether this rank gives the attempt up, which all will know.
            keep: stops when so many are left.
        """
        while self.left > keep:
            self._buffer.zero_()
            self._buffer[-1] = float(failed)
            self._send()

    def _send(self) -> None:
        if not self.left:
            raise RuntimeError("More exchanges of batch statistics than were announced.")
        self.left -= 1
        self.add_up([self._buffer])
        self._failed += self._buffer[-1]

    def any_failed(self) -> bool:
        """Whether a rank failed in this attempt, the same on all ranks; waits for the device.

        Raises:
            RuntimeError: ranks were not in the same layer in some exchange.
        """
        failed, mixed = torch.stack((self._failed, self._mixed)).tolist()
        if mixed and not failed:
            raise RuntimeError("Ranks exchanged statistics of different layers.")
        return bool(failed)


class SyncNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the images of all ranks in training mode; made by `synchronise`.

    A stage that is computed again in backward (`nn.recompute`, which sets `track_running_stats` off for it)
    takes the statistics of its first pass: nothing is exchanged twice.

    Attributes:
        found: mean, variance (C,) and N of the last exchange.
    """

    exchange: Exchange
    layer: int
    found: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self._together(x) if self.training else super().forward(x)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _together(self, x: Tensor) -> Tensor:
        out = _Synchronised.apply(x, self.weight, self.bias, self)  # type: ignore[no-untyped-call]
        return cast(Tensor, out)


class _Synchronised(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: SyncNorm) -> Tensor:
        if norm.track_running_stats or norm.found is None:
            norm.found = _exchanged(norm, x)
        mean, variance, count = norm.found
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.norm = norm
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, norm.eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight, mean, variance, count = ctx.saved_tensors
        norm: SyncNorm = ctx.norm
        dx, dw, db = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, None, None, False, norm.eps, [True, True, True]
        )
        # As if the statistics were constants; what comes back through them is a plane in x per channel.
        spread, shift, _ = norm.exchange.swap(dw.double(), db.double(), 0, norm.layer)
        spread, shift = spread.float(), shift.float()
        inverse = (variance + norm.eps).rsqrt()
        slope = weight * inverse * inverse * spread / count
        level = weight * inverse * shift / count - slope * mean
        shape = (1, -1, 1, 1)
        dx.addcmul_(x, slope.to(x.dtype).view(shape), value=-1).sub_(level.to(x.dtype).view(shape))
        return dx, dw, db, None


def _exchanged(norm: SyncNorm, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance (C,) and N over all ranks; running statistics move towards them."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    own = x.numel() // x.shape[1]
    variance, mean = (part.double() for part in torch.var_mean(x.float(), (0, 2, 3), correction=0))
    first, second, count = norm.exchange.swap(own * mean, own * (variance + mean * mean), own, norm.layer)
    exact = first / count
    mean, variance = exact.float(), (second / count - exact * exact).clamp_(min=0).float()
    count = count.float()
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), norm.momentum)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return mean, variance, count


def synchronise(model: nn.Module, add_up: Callable[[Sequence[Tensor]], None]) -> Exchange:
    """Makes every batch norm of a model synchronise, in place; names, weights and state stay.

    Args:
        add_up: adds up tensors over all ranks, in place.
    """
    norms = [module for module in model.modules() if type(module) is nn.BatchNorm2d]
    device = next(model.parameters()).device
    exchange = Exchange(add_up, channels=max(norm.num_features for norm in norms), device=device)
    for number, norm in enumerate(norms):
        norm.__class__ = SyncNorm
        assert isinstance(norm, SyncNorm)
        norm.exchange, norm.layer = exchange, number
    return exchange
