"""Ground truth of one batch as flat arrays: no padding, no per-image objects.

Dimensions: N boxes over the whole batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Targets(NamedTuple):
    """Objects of a batch, sorted by image.

    Attributes:
        image: (N,) int64, index of the image within the batch, ascending.
        classes: (N,) int64, class index from 0.
        boxes: (N, 4) float32, xyxy, input pixels (the pixels of the batch's images).
    """

    image: Tensor
    classes: Tensor
    boxes: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        """Returns the same targets on another device."""
        return Targets(*(t.to(device, non_blocking=non_blocking) for t in self))

    def of_images(self, start: int, stop: int) -> Targets:
        """Returns the objects of images `start` to `stop` - 1, whose numbers then begin at 0."""
        low, high = torch.searchsorted(self.image, self.image.new_tensor((start, stop))).tolist()
        return Targets(self.image[low:high] - start, self.classes[low:high], self.boxes[low:high])

    def of_numbers(self, numbers: Tensor) -> Targets:
        """Returns the objects of some images, (n,) int64 ascending, as those of a batch of these alone."""
        mine = torch.isin(self.image, numbers)
        return Targets(torch.searchsorted(numbers, self.image[mine]), self.classes[mine], self.boxes[mine])

    @staticmethod
    def empty() -> Targets:
        """Returns the targets of a batch that is all background."""
        none = torch.zeros(0, dtype=torch.int64)
        return Targets(none, none, torch.zeros(0, 4))
