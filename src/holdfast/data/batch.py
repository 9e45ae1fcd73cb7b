"""A batch, made without a copy: samples draw themselves into one buffer.

The buffer is (B, H, W, 3) and is handed out as its (B, 3, H, W) view, which is exactly torch's channels_last
layout: no transpose on the host, and a channels_last model takes it as it is.

Dimensions: B images, N boxes over the batch.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.data.letterbox import Letterbox
from holdfast.data.samples import Sample
from holdfast.geometry.rotated import smallest_rotated
from holdfast.geometry.targets import Targets

_NO_CLASSES = np.zeros(0, np.int64)
_NO_BOXES = np.zeros((0, 4), np.float32)


class Batch(NamedTuple):
    """What a training or validation step gets.

    Attributes:
        images: (B, 3, H, W) uint8 RGB, channels_last in memory.
        targets: objects of all images, sorted by image.
        indices: (B,) int64, index of each image in the data set: of a mosaic, the first; where an image could
            not be used, the one in its place.
        letterboxes: the way back to original pixels, one per image (evaluation only).
        paths: path of each image.
        unread: position in the batch -> why that image could not be read (evaluation only).
    """

    images: Tensor
    targets: Targets
    indices: Tensor
    letterboxes: list[Letterbox] | None
    paths: list[str]
    unread: Mapping[int, str] = MappingProxyType({})


class Buffers:
    """Room for batches, used again when nobody holds a tensor over it any more.

    Fresh memory costs a tenth of a sample's time: the system clears each page of it.

    Args:
        pin: page-locked memory, which PyTorch itself uses again.
        spare: most buffers to keep.
    """

    def __init__(self, *, pin: bool = False, spare: int = 4) -> None:
        self.pin = pin
        self.spare = spare
        self._kept: list[npt.NDArray[np.uint8]] = []

    def take(self, batch: int, height: int, width: int) -> Tensor:
        """Returns room for a batch, (B, H, W, 3) uint8."""
        shape = (batch, height, width, 3)
        if self.pin:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        size = batch * height * width * 3
        for at in range(len(self._kept)):
            # Every view and tensor over the array holds it; two references are the list's and the call's.
            if len(self._kept[at]) >= size and sys.getrefcount(self._kept[at]) <= 2:
                return torch.from_numpy(self._kept[at][:size].reshape(shape))
        made = np.empty(size, dtype=np.uint8)
        self._kept = [*self._kept, made][-self.spare :]
        return torch.from_numpy(made.reshape(shape))


def scaled(images: Tensor, *, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Images (B, 3, H, W) uint8 as numbers in [0, 1] of the format the network computes in.

    Every byte is a number of each 16-bit format too, so the quotient is rounded once, as it would be on the
    way through float32.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(dtype, memory_format=layout).div_(255.0)


def collate(buffer: Tensor, samples: Sequence[Sample], paths: list[str]) -> Batch:
    """Joins samples, of which there may be none, that were drawn into `buffer` (B, H, W, 3).

    Targets have what the objects of the samples have.

    In numpy: an operator of PyTorch that wakes its threads for a hundred numbers costs more than a sample.
    """
    counts = [len(sample.classes) for sample in samples]
    targets = Targets(
        torch.from_numpy(np.repeat(np.arange(len(samples), dtype=np.int64), counts)),
        torch.from_numpy(np.concatenate([_NO_CLASSES, *(sample.classes for sample in samples)])),
        torch.from_numpy(np.concatenate([_NO_BOXES, *(sample.boxes for sample in samples)])),
        keypoints=_joined([sample.objects.keypoints for sample in samples]),
        masks=_stacked([sample.masks for sample in samples]),
    )
    corners = _joined([sample.objects.corners for sample in samples])
    if corners is not None:
        targets = targets._replace(rotated=smallest_rotated(corners))
    letterboxes = [sample.letterbox for sample in samples if sample.letterbox is not None]
    return Batch(
        images=buffer.permute(0, 3, 1, 2),
        targets=targets,
        indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
        letterboxes=letterboxes if len(letterboxes) == len(samples) else None,
        paths=paths,
        unread={at: sample.unread for at, sample in enumerate(samples) if sample.unread},
    )


def _joined(parts: Sequence[npt.NDArray[np.float32] | None]) -> Tensor | None:
    """Rows of all parts, or None where they have none."""
    known = [part for part in parts if part is not None]
    return torch.from_numpy(np.concatenate(known)) if known else None


def _stacked(parts: Sequence[npt.NDArray[np.int16] | None]) -> Tensor | None:
    """(B, L, H, W) of parts (l, H, W), L the largest l; None where there are none."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    layers = np.zeros((len(known), max(map(len, known)), *known[0].shape[1:]), np.int16)
    for own, part in zip(layers, known, strict=True):
        own[: len(part)] = part
    return torch.from_numpy(layers)
