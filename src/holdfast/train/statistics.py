"""Running statistics of batch norm as they were when a step began, for a step that is done again."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Statistics:
    """Copies of a model's buffers.

    Args:
        model: whose buffers are meant; they must stay the same tensors.
    """

    def __init__(self, model: nn.Module) -> None:
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            kinds.setdefault(buffer.dtype, []).append(buffer)
        self._live = list(kinds.values())
        self._kept = [[buffer.clone() for buffer in buffers] for buffers in self._live]

    @property
    def running(self) -> list[Tensor]:
        """The means and variances."""
        return [buffer for buffers in self._live for buffer in buffers if buffer.is_floating_point()]

    @torch.no_grad()
    def keep(self) -> None:
        """Copies the present state."""
        for kept, live in zip(self._kept, self._live, strict=True):
            torch._foreach_copy_(kept, live)

    @torch.no_grad()
    def put_back(self) -> None:
        """Writes the copied state back."""
        for kept, live in zip(self._kept, self._live, strict=True):
            torch._foreach_copy_(live, kept)
