"""Ground truth of one batch as flat arrays: no padding, no per-image objects.

Dimensions: B images, N objects over the whole batch, K keypoints, L layers, H W height and width of masks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Needs(NamedTuple):
    """What the loss of a model reads of `Targets` beyond image, class and box.

    Attributes:
        mask_stride: input pixels per pixel of masks; 0 without masks.
        hidden: whether masks have what smaller objects hide, too.
        keypoints: whether it reads keypoints.
        rotated: whether it reads rotated boxes.
        whole: an image has one class and no objects.
    """

    mask_stride: int = 0
    hidden: bool = False
    keypoints: bool = False
    rotated: bool = False
    whole: bool = False


BOXES = Needs()  # of a detector


class Targets(NamedTuple):
    """Objects of a batch, sorted by image; of a classifier one per image, its class.

    Attributes:
        image: (N,) int64, index of the image within the batch, ascending.
        classes: (N,) int64, class index from 0.
        boxes: (N, 4) float32, xyxy, input pixels (the pixels of the batch's images).
        rotated: (N, 5) float32 cx, cy, w, h in input pixels and the angle in radians, or None.
        keypoints: (N, K, 3) float32 x, y in input pixels and 0 where not labelled, or None.
        masks: (B, L, H, W) integers at a part of the input's size: i where the i-th object of the image is,
            counted from 1, and 0 elsewhere; or None. An object is in one layer, above those that it hides.
    """

    image: Tensor
    classes: Tensor
    boxes: Tensor
    rotated: Tensor | None = None
    keypoints: Tensor | None = None
    masks: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        """Returns the same targets on another device."""
        return Targets(*(None if t is None else t.to(device, non_blocking=non_blocking) for t in self))  # type: ignore[arg-type]

    def of_images(self, start: int, stop: int) -> Targets:
        """Returns the objects of images `start` to `stop` - 1, whose numbers then begin at 0."""
        low, high = torch.searchsorted(self.image, self.image.new_tensor((start, stop))).tolist()
        return Targets(
            self.image[low:high] - start,
            self.classes[low:high],
            self.boxes[low:high],
            None if self.rotated is None else self.rotated[low:high],
            None if self.keypoints is None else self.keypoints[low:high],
            None if self.masks is None else self.masks[start:stop],
        )

    def of_numbers(self, numbers: Tensor) -> Targets:
        """Returns the objects of some images, (n,) int64 ascending, as those of a batch of these alone."""
        mine = torch.isin(self.image, numbers)
        return Targets(
            torch.searchsorted(numbers, self.image[mine]),
            self.classes[mine],
            self.boxes[mine],
            None if self.rotated is None else self.rotated[mine],
            None if self.keypoints is None else self.keypoints[mine],
            None if self.masks is None else self.masks[numbers],
        )

    @staticmethod
    def empty() -> Targets:
        """Returns the targets of a batch that is all background."""
        none = torch.zeros(0, dtype=torch.int64)
        return Targets(none, none, torch.zeros(0, 4))


def filled_out(targets: Targets, *, images: int, side: int, keypoints: int = 17) -> Targets:
    """The same objects with every field of every task made up of their boxes, for trials without data.

    Args:
        images: B.
        side: of the square images, pixels.
        keypoints: K.
    """
    boxes = targets.boxes
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    number = torch.arange(len(boxes))
    angle = (number % 7) * 0.4
    share = torch.stack((torch.linspace(0.1, 0.9, keypoints), torch.linspace(0.9, 0.2, keypoints)), 1)
    points = boxes[:, None, :2] + share * size.unsqueeze(1)
    labelled = (torch.arange(keypoints) + number.unsqueeze(1)) % 4 > 0
    masks = torch.zeros(images, 1, side // 4, side // 4, dtype=torch.int16)
    first = torch.searchsorted(targets.image, targets.image)
    place = (boxes / 4).round().long().clamp(min=0).tolist()
    for image, own, (x1, y1, x2, y2) in zip(
        targets.image.tolist(), (number - first + 1).tolist(), place, strict=True
    ):
        masks[image, 0, y1:y2, x1:x2] = own
    return targets._replace(
        rotated=torch.cat((centre, size, angle.unsqueeze(1)), 1),
        keypoints=torch.cat((points, labelled.unsqueeze(2).float()), 2),
        masks=masks,
    )
