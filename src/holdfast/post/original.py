"""From rows in input pixels to what is on the original image, by the type of what the branch says.

Dimensions: B images, n objects of one, K keypoints of D numbers, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdfast.data.letterbox import Letterbox
from holdfast.geometry.masks import mask_windows
from holdfast.geometry.rotated import normalised, rotated_hull
from holdfast.models.outputs import Angles, ClassOutputs, FileOutputs, Keypoints, Masks, Outputs
from holdfast.post.decode import extra_of

PROTOTYPE_STRIDE = 4


class Found(NamedTuple):
    """What was found on one image, in its pixels and on the CPU; the names are those of `Results`.

    Attributes:
        boxes: (n, 6) xyxy, score, class, clipped to the image.
        masks: what the caller had made of n masks.
        keypoints: (n, K, D), clipped to the image.
        obb: (n, 7) cx, cy, w, h, angle, score, class.
        probs: (C,).
    """

    boxes: Tensor | None = None
    masks: Any = None
    keypoints: Tensor | None = None
    obb: Tensor | None = None
    probs: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """(n, 6) upright boxes, score, class, whatever was found; none of a classified image."""
        if self.boxes is not None:
            return self.boxes
        if self.obb is not None:
            return torch.cat((rotated_hull(self.obb[:, :5]), self.obb[:, 5:]), 1)
        return torch.zeros(0, 6)

    def nothing(self) -> Found:
        """The same parts without an object; a classified image without an answer."""
        parts = self._replace(probs=None)
        return Found(*(None if part is None else part[:0] for part in parts))

    def of_one_class(self) -> Found:
        """The same with every object's class 0."""
        for rows in (self.boxes, self.obb):
            if rows is not None:
                rows[:, -1] = 0
        return self


Windows = Iterator[tuple[int, int, Tensor]]
MaskForm = Callable[[Windows, int, int, int], Any]
"""Makes something of the windows of masks (`geometry.masks.mask_windows`), their number, and the size of the
image or input."""


def dense(windows: Windows, count: int, height: int, width: int) -> Tensor:
    """Masks (count, height, width) bool, on the CPU; users may change them, whatever mode made them."""
    with torch.inference_mode(mode=False):
        masks = torch.zeros(count, height, width, dtype=torch.bool)
    for mask, (top, left, window) in zip(masks, windows, strict=True):
        mask[top : top + window.shape[0], left : left + window.shape[1]] = window.cpu()
    return masks


def in_original(
    outputs: Outputs | FileOutputs,
    rows: Sequence[Tensor],
    letterboxes: Sequence[Letterbox],
    *,
    masks: MaskForm = dense,
    input_size: tuple[int, int] | None = None,
) -> list[Found]:
    """What was found on every image of a batch.

    Args:
        outputs: what the forward returned.
        rows: B answers of `post.decode.answer`.
        letterboxes: how each image lies in the input.
        masks: what to make of masks.
        input_size: height and width of the input to have masks there; None has them on the original image.
    """
    if isinstance(outputs, ClassOutputs):
        return [Found(probs=row.cpu()) for row in rows]
    extra = extra_of(outputs)
    place = PLACES[type(extra)]
    return [
        place(_Image(extra, number, row.float(), letterbox, masks, input_size))
        for number, (row, letterbox) in enumerate(zip(rows, letterboxes, strict=True))
    ]


def in_input(
    outputs: Outputs | FileOutputs, rows: Sequence[Tensor], height: int, width: int
) -> list[Found]:
    """What was found on every image of a batch, in pixels of the input, for pictures.

    A classified image is one box of its most probable class. Masks are a function that makes them, once:
    (n, height, width) bool.

    Args:
        outputs, rows: as in `in_original`.
        height, width: of the input.
    """
    if isinstance(outputs, ClassOutputs):
        whole = rows[0].new_tensor([0, 0, width, height])
        best = [torch.cat((whole, row.max(0).values[None], row.argmax()[None])) for row in rows]
        return [Found(boxes=row[None].cpu()) for row in best]
    frame = Letterbox(1.0, 1.0, 0, 0, height, width)
    return in_original(outputs, rows, [frame] * len(rows), masks=partial(partial, dense))


class _Image(NamedTuple):
    """One image: what its branch says, its place in the batch, its rows; `in_original` has the others."""

    extra: Any
    number: int
    rows: Tensor
    letterbox: Letterbox
    masks: MaskForm
    input_size: tuple[int, int] | None


def _boxes(image: _Image) -> Found:
    rows = image.rows.cpu()
    return Found(boxes=torch.cat((image.letterbox.to_original(rows[:, :4]), rows[:, 4:6]), 1))


def _masks(image: _Image) -> Found:
    boxes, letterbox, size = image.rows[:, :4], image.letterbox, image.input_size
    scale, offset = (1.0, 1.0), (0.0, 0.0)
    if size is None:
        size = letterbox.height, letterbox.width
        scale, offset = (letterbox.scale_x, letterbox.scale_y), (letterbox.left, letterbox.top)
        boxes = (boxes - boxes.new_tensor(offset * 2)) / boxes.new_tensor(scale * 2)
    windows = mask_windows(
        image.rows[:, 6:],
        image.extra.prototypes[image.number],
        boxes,
        *size,
        scale=(scale[0] / PROTOTYPE_STRIDE, scale[1] / PROTOTYPE_STRIDE),
        offset=(offset[0] / PROTOTYPE_STRIDE, offset[1] / PROTOTYPE_STRIDE),
    )
    return _boxes(image)._replace(masks=image.masks(windows, len(boxes), *size))


def _keypoints(image: _Image) -> Found:
    flat, dims = image.rows[:, 6:].cpu(), image.extra.dims
    points = flat.reshape(len(flat), flat.shape[1] // dims, dims)
    places = image.letterbox.to_original(points[..., :2].repeat(1, 1, 2))[..., :2]
    return _boxes(image)._replace(keypoints=torch.cat((places, points[..., 2:]), 2))


def _rotated(image: _Image) -> Found:
    rows, letterbox = image.rows.cpu(), image.letterbox
    scale = rows.new_tensor([letterbox.scale_x, letterbox.scale_y])
    centre = (rows[:, :2] - rows.new_tensor([letterbox.left, letterbox.top])) / scale
    # The two scales differ by rounding only, so a turned box stays one.
    turned = torch.cat((centre, rows[:, 2:4] / scale.prod().sqrt(), rows[:, 6:7]), 1)
    return Found(obb=torch.cat((normalised(turned), rows[:, 4:6]), 1))


PLACES: dict[type, Callable[[_Image], Found]] = {
    type(None): _boxes, Masks: _masks, Keypoints: _keypoints, Angles: _rotated,
}  # fmt: skip
