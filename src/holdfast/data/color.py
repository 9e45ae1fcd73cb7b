"""Colour jitter in HSV, uint8 throughout, with hues in 256 steps so that a shift is an addition of bytes.

Hue is shifted (all hues move alike); saturation and value are multiplied, so gray stays gray and black stays
black.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import Image

_STRIP_PIXELS = 204_800  # stays in a core's cache, in few calls: each waits for the interpreter lock


def hsv_gains(
    rng: np.random.Generator, *, hue: float, saturation: float, value: float
) -> npt.NDArray[np.float64]:
    """Draws (3,) gains: hue shift as a part of the circle, factors for saturation and value."""
    around = rng.random(3) * 2 - 1
    return around * (hue, saturation, value) + (0.0, 1.0, 1.0)


def apply_hsv(image: Image, gains: npt.NDArray[np.float64], out: Image | None = None) -> None:
    """Changes an RGB image (H, W, 3) into `out`, or in place."""
    if out is None:
        out = image
    if gains[0] == 0.0 and gains[1] == 1.0 and gains[2] == 1.0:
        if out is not image:
            out[...] = image
        return
    width = image.shape[1]
    rows = max(_STRIP_PIXELS // width, 1)
    room = np.empty((rows, width, 3), dtype=np.uint8)
    # OpenCV makes hues in 256 steps and reads them back in 255.
    factors = np.diag((255 / 256, gains[1], gains[2]))
    shift = round(float(gains[0]) * 256) % 256
    turn = np.tile(np.array((shift, 0, 0), dtype=np.uint8), width)
    for top in range(0, len(image), rows):  # strips stay in a processor cache between the passes
        strip = image[top : top + rows]
        hsv = room[: len(strip)]
        cv2.cvtColor(strip, cv2.COLOR_RGB2HSV_FULL, dst=hsv)
        if shift:
            hues = hsv.reshape(len(strip), -1)
            np.add(hues, turn, out=hues)  # a hue is a byte: past 255 it goes on at 0
        cv2.transform(hsv, factors, dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=out[top : top + rows])
