"""A batch, made without a copy: samples draw themselves into one buffer.

The buffer is (B, H, W, 3) and is handed out as its (B, 3, H, W) view, which is exactly torch's channels_last
layout: no transpose on the host, and a channels_last model takes it as it is.

Dimensions: B images, N boxes over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from holdfast.data.letterbox import Letterbox
from holdfast.data.samples import Sample
from holdfast.geometry.targets import Targets


class Batch(NamedTuple):
    """What a training or validation step gets.

    Attributes:
        images: (B, 3, H, W) uint8 RGB, channels_last in memory.
        targets: objects of all images, sorted by image.
        indices: (B,) int64, index of each image in the data set.
        letterboxes: the way back to original pixels, one per image (evaluation only).
        paths: path of each image.
    """

    images: Tensor
    targets: Targets
    indices: Tensor
    letterboxes: list[Letterbox] | None
    paths: list[str]


def new_buffer(batch: int, height: int, width: int, *, pin: bool = False) -> Tensor:
    """Returns room for a batch, (B, H, W, 3) uint8, page-locked when `pin`."""
    return torch.empty((batch, height, width, 3), dtype=torch.uint8, pin_memory=pin)


def scaled(images: Tensor, *, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Images (B, 3, H, W) uint8 as numbers in [0, 1] of the format the network computes in.

    Every byte is a number of each 16-bit format too, so the quotient is rounded once, as it would be on the
    way through float32.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(dtype, memory_format=layout).div_(255.0)


def collate(buffer: Tensor, samples: Sequence[Sample], paths: list[str]) -> Batch:
    """Joins samples that were drawn into `buffer` (B, H, W, 3)."""
    counts = torch.tensor([len(sample.classes) for sample in samples], dtype=torch.int64)
    targets = Targets(
        torch.repeat_interleave(torch.arange(len(samples)), counts),
        torch.from_numpy(np.concatenate([sample.classes for sample in samples])),
        torch.from_numpy(np.concatenate([sample.boxes for sample in samples])),
    )
    letterboxes = [sample.letterbox for sample in samples if sample.letterbox is not None]
    return Batch(
        images=buffer.permute(0, 3, 1, 2),
        targets=targets,
        indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
        letterboxes=letterboxes if len(letterboxes) == len(samples) else None,
        paths=paths,
    )
