"""Reading single cells of feature maps, quickly in both memory formats.

Maps are (B, K, H, W); cells are row-major positions h * W + w. A map may be contiguous or channels-last; it
is read as one flat array in its own order, because gathering by one index is several times faster than by
three.

Dimensions: B images, K channels, H W height and width, P cells.
"""

from __future__ import annotations

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a cell are neighbours in memory."""
    return x.is_contiguous(memory_format=torch.channels_last)


def flat(x: Tensor) -> Tensor:
    """All values of a map as one dimension, in memory order; a view for both memory formats."""
    return (x.permute(0, 2, 3, 1) if is_channels_last(x) else x).reshape(-1)


def flat_index(x: Tensor, image: Tensor, channel: Tensor, cell: Tensor) -> Tensor:
    """Positions in `flat(x)` of (image, channel, cell), broadcasting."""
    channels, cells = x.shape[1], x.shape[2] * x.shape[3]
    if is_channels_last(x):
        return (image * cells + cell) * channels + channel
    return (image * channels + channel) * cells + cell


def values(x: Tensor, image: Tensor, channel: Tensor, cell: Tensor) -> Tensor:
    """Values (P,) at (image, channel, cell), each (P,) int64."""
    return flat(x).index_select(0, flat_index(x, image, channel, cell))


def columns(x: Tensor, image: Tensor, cell: Tensor) -> Tensor:
    """All channels (P, K) at (image, cell), each (P,) int64."""
    if is_channels_last(x):
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        return rows.index_select(0, image * (x.shape[2] * x.shape[3]) + cell)
    return x.flatten(2)[image, :, cell]
