"""Colour jitter in HSV through tables: one look-up per channel, uint8 throughout.

Hue is shifted (all hues move alike); saturation and value are multiplied, so gray stays gray and black stays
black.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import Image

_STRIP_PIXELS = 40_960


def hsv_gains(
    rng: np.random.Generator, *, hue: float, saturation: float, value: float
) -> npt.NDArray[np.float64]:
    """Draws (3,) gains: hue shift as a part of the circle, factors for saturation and value."""
    around = rng.random(3) * 2 - 1
    return around * (hue, saturation, value) + (0.0, 1.0, 1.0)


def hsv_table(gains: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Returns the look-up tables of some gains, (3, 256) uint8; OpenCV's hue runs from 0 to 179."""
    steps = np.arange(256, dtype=np.float64)
    table = np.empty((3, 256), dtype=np.uint8)
    table[0] = np.floor((steps + gains[0] * 180.0) % 180.0)
    table[1:] = np.clip(gains[1:, None] * steps, 0, 255)
    return table


def apply_hsv(image: Image, gains: npt.NDArray[np.float64]) -> None:
    """Changes an RGB image (H, W, 3) in place."""
    if gains[0] == 0.0 and gains[1] == 1.0 and gains[2] == 1.0:
        return
    tables = hsv_table(gains)
    rows = max(_STRIP_PIXELS // image.shape[1], 1)
    for top in range(0, len(image), rows):  # strips stay in the processor's cache between the passes
        strip = image[top : top + rows]
        hsv = cv2.cvtColor(strip, cv2.COLOR_RGB2HSV)
        planes = [cv2.LUT(plane, table) for plane, table in zip(cv2.split(hsv), tables, strict=True)]
        cv2.merge(planes, dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=strip)
