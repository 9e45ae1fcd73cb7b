"""Masks of one prediction, as pixels and as outlines.

Dimensions: N objects.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.data.letterbox import fit
from holdfast.post.part import Part


class Masks(Part):
    """Masks of one image, all of one size: that of the image, or of the network's input around it.

    Args:
        data: (N, h, w) bool.
        orig_shape: height and width of the image in pixels.
    """

    def __init__(self, data: Any, orig_shape: tuple[int, int]) -> None:
        super().__init__(data[None] if data.ndim == 2 else data, orig_shape)

    @property
    def xy(self) -> list[NDArray[np.float32]]:
        """N outlines (p, 2) in pixels of the image, of each mask's largest part; (0, 2) for an empty one."""
        height, width = self.orig_shape
        box = fit(height, width, *self.data.shape[-2:])
        shift, scale = np.array([box.left, box.top]), np.array([box.scale_x, box.scale_y])
        found = [_outline(mask) for mask in self.array.astype(np.uint8)]
        return [
            np.asarray(((points - shift) / scale).clip(0, [width, height]), dtype=np.float32)
            for points in found
        ]

    @property
    def xyn(self) -> list[NDArray[np.float32]]:
        """The outlines as fractions of the image."""
        height, width = self.orig_shape
        extent = np.array([width, height], np.float32)
        return [np.asarray(points / extent, dtype=np.float32) for points in self.xy]

    def in_image(self) -> NDArray[np.bool_]:
        """(N, H, W) masks at the size of the image."""
        height, width = self.orig_shape
        data = self.array
        if data.shape[1:] == (height, width):
            return np.asarray(data, dtype=bool)
        box = fit(height, width, *data.shape[1:])
        rows = ((np.arange(height) + 0.5) * box.scale_y + box.top).astype(np.int64).clip(0, data.shape[1] - 1)
        columns = ((np.arange(width) + 0.5) * box.scale_x + box.left).astype(np.int64)
        return np.asarray(data[:, rows[:, None], columns.clip(0, data.shape[2] - 1)], dtype=bool)

    def details(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        """The outline of each."""
        outlines = self.xyn if normalize else self.xy
        places = [np.round(points.astype(np.float64), decimals) for points in outlines]
        return [{"segments": {"x": p[:, 0].tolist(), "y": p[:, 1].tolist()}} for p in places]

    def __repr__(self) -> str:
        return f"Masks({len(self)} of {self.data.shape[1]}x{self.data.shape[2]})"


def _outline(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The border of the largest part, around its pixels' centres."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((0, 2))
    largest = max(contours, key=lambda part: (cv2.contourArea(part), len(part)))
    return np.asarray(largest.reshape(-1, 2) + 0.5, dtype=np.float64)


def has_pixels(data: Tensor) -> Tensor:
    """Which masks (N, h, w) are not empty, (N,) bool."""
    return data.flatten(1).any(1)
