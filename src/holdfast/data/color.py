"""Colour jitter in HSV, uint8 throughout, with hues in 256 steps so that a shift is an addition of bytes.

Hue is shifted (all hues move alike); saturation and value are multiplied, so gray stays gray and black stays
black.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import Image

Gains = tuple[float, float, float]

_STRIP_PIXELS = 409_600  # nearly stays in a core's cache, in few calls: each waits for the interpreter lock


def hsv_gains(chances: npt.NDArray[np.float64], *, hue: float, saturation: float, value: float) -> Gains:
    """Returns gains, a hue shift in parts of the circle and factors for saturation and value.

    Args:
        chances: (3,) numbers in [0, 1).
        hue: shift within +-hue.
        saturation: factor within 1 +- saturation.
        value: factor within 1 +- value.
    """
    turn, more, brighter = (chances * 2 - 1).tolist()
    return turn * hue, more * saturation + 1.0, brighter * value + 1.0


def hsv_room() -> npt.NDArray[np.uint8]:
    """Returns memory for `apply_hsv`."""
    return np.empty(3 * _STRIP_PIXELS, dtype=np.uint8)


def apply_hsv(
    image: Image, gains: Gains, out: Image | None = None, *, room: npt.NDArray[np.uint8] | None = None
) -> None:
    """Changes an RGB image (H, W, 3) into `out`, or in place.

    Args:
        image: uint8.
        gains: see `hsv_gains`.
        out: uint8, of the same shape.
        room: `hsv_room()`, kept from one image to the next because new memory is not in the cache.
    """
    if out is None:
        out = image
    if gains == (0.0, 1.0, 1.0):
        if out is not image:
            out[...] = image
        return
    if room is None:
        room = hsv_room()
    width = image.shape[1]
    # OpenCV makes hues in 256 steps and reads them back in 255.
    factors = np.diag((255 / 256, *gains[1:]))
    shift = round(gains[0] * 256) % 256
    turn = np.zeros(3 * width, dtype=np.uint8)
    turn[::3] = shift
    rows = max(len(room) // (3 * width), 1)
    for top in range(0, len(image), rows):  # strips stay in a processor cache between the passes
        strip = image[top : top + rows]
        hues = room[: strip.size].reshape(len(strip), -1)
        hsv = hues.reshape(strip.shape)
        cv2.cvtColor(strip, cv2.COLOR_RGB2HSV_FULL, dst=hsv)
        if shift:
            np.add(hues, turn, out=hues)  # a hue is a byte: past 255 it goes on at 0
        cv2.transform(hsv, factors, dst=hsv)
        cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL, dst=out[top : top + rows])
