"""Fitting an image of any shape into a rectangle, and the way back.

The sides are rounded separately, so the two axes have slightly different scales; the way back uses exactly
these and not the nominal ratio. Padding is split in two and an odd pixel goes to the bottom and to the right.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import FILL, Image

if TYPE_CHECKING:
    from torch import Tensor  # importing it takes a second, which processes that make samples do not need

Boxes = TypeVar("Boxes", npt.NDArray[np.float32], "Tensor")


class Letterbox(NamedTuple):
    """Where an image lies in the input.

    Attributes:
        scale_x: input pixels per original pixel, horizontally.
        scale_y: the same, vertically.
        left: columns of padding before the image.
        top: rows of padding above the image.
        height: original height.
        width: original width.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    height: int
    width: int

    @property
    def matrix(self) -> npt.NDArray[np.float64]:
        """(3, 3), original to input pixels."""
        return np.array([[self.scale_x, 0.0, self.left], [0.0, self.scale_y, self.top], [0.0, 0.0, 1.0]])

    def to_original(self, boxes: Boxes) -> Boxes:
        """Maps boxes (..., 4) xyxy from input to original pixels, clipped to the image."""
        shift = self._like(boxes, (self.left, self.top) * 2)
        scale = self._like(boxes, (self.scale_x, self.scale_y) * 2)
        limit = self._like(boxes, (self.width, self.height) * 2)
        moved: Any = (boxes - shift) / scale
        if isinstance(boxes, np.ndarray):
            return np.asarray(np.minimum(np.maximum(moved, 0), limit), dtype=boxes.dtype)
        clipped: Boxes = moved.clamp_min(0).minimum(limit)
        return clipped

    def to_input(self, boxes: Boxes) -> Boxes:
        """Maps boxes (..., 4) xyxy from original to input pixels, without clipping."""
        shift = self._like(boxes, (self.left, self.top) * 2)
        scale = self._like(boxes, (self.scale_x, self.scale_y) * 2)
        return boxes * scale + shift

    @staticmethod
    def _like(boxes: Boxes, values: tuple[float, ...]) -> Boxes:
        if isinstance(boxes, np.ndarray):
            return np.array(values, dtype=boxes.dtype)
        return boxes.new_tensor(values)


def fit(height: int, width: int, out_height: int, out_width: int, *, enlarge: bool = True) -> Letterbox:
    """Places an image of (height, width) in the middle of (out_height, out_width), as large as fits.

    Args:
        enlarge: False leaves images that are smaller than the rectangle at their own size.
    """
    ratio = min(out_height / height, out_width / width)
    if not enlarge:
        ratio = min(ratio, 1.0)
    return place(
        height, width, max(round(height * ratio), 1), max(round(width * ratio), 1), out_height, out_width
    )


def place(
    height: int, width: int, new_height: int, new_width: int, out_height: int, out_width: int
) -> Letterbox:
    """Centres an image of (height, width), resized to (new_height, new_width), in (out_height, out_width)."""
    left, top = round((out_width - new_width) / 2 - 0.1), round((out_height - new_height) / 2 - 0.1)
    return Letterbox(new_width / width, new_height / height, left, top, height, width)


def smallest_shape(
    height: int, width: int, size: int | tuple[int, int], *, stride: int = 32, enlarge: bool = True
) -> tuple[int, int]:
    """Returns the smallest (H, W) that holds the image fitted into `size`: short of it by whole strides."""
    out_height, out_width = (size, size) if isinstance(size, int) else size
    ratio = min(out_height / height, out_width / width)
    ratio = ratio if enlarge else min(ratio, 1.0)
    new_height, new_width = max(round(height * ratio), 1), max(round(width * ratio), 1)
    pad_height, pad_width = (out_height - new_height) % stride, (out_width - new_width) % stride
    return new_height + pad_height, new_width + pad_width


def batch_shape(ratios: list[float], size: int, *, stride: int, pad: float) -> tuple[int, int]:
    """Returns (H, W) that holds every image of a batch scaled to a long side of `size`.

    Args:
        ratios: height / width of each image.
        pad: part of a stride added before rounding up; 0.5 in validation, so that squares at 640 run at 672.
    """
    low, high = min(ratios), max(ratios)
    height, width = (high, 1.0) if high < 1 else (1.0, 1.0 / low) if low > 1 else (1.0, 1.0)
    return (
        math.ceil(height * size / stride + pad) * stride,
        math.ceil(width * size / stride + pad) * stride,
    )


def apply(image: Image, box: Letterbox, out: Image) -> Image:
    """Draws an image into `out` (H, W, 3) as `box` says: shrunk by area or enlarged linearly.

    An image that has been resized to its size in `out` already is copied.
    """
    height, width = image.shape[:2]
    new_height, new_width = round(box.height * box.scale_y), round(box.width * box.scale_x)
    out[: box.top] = FILL
    out[box.top + new_height :] = FILL
    rows = out[box.top : box.top + new_height]
    rows[:, : box.left] = FILL
    rows[:, box.left + new_width :] = FILL
    window = rows[:, box.left : box.left + new_width]
    if (new_height, new_width) == (height, width):
        window[...] = image
    else:
        shrink = new_height * new_width < height * width
        method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        window[...] = cv2.resize(image, (new_width, new_height), interpolation=method)
    return out
