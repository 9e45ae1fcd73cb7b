"""Running statistics of batch norm: as they were when a step began, for a step that is done again; and the
same on all ranks, each of which has seen its own images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holdfast.train.dist import Ranks


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


@torch.no_grad()
def average_statistics(ranks: Ranks, *modules: nn.Module) -> None:
    """Gives all ranks the mean of their running means and variances.

    Ranks validate and save one model then, in which the images of all ranks count.
    """
    if ranks.world == 1:
        return
    buffers = [b for module in modules for b in module.buffers() if b.is_floating_point()]
    ranks.sum_(buffers)
    torch._foreach_div_(buffers, float(ranks.world))
