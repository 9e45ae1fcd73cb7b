"""Masks in run lengths, as COCO json holds them, traced to outlines.

Runs go down the columns, alternating background and object, starting with background. They are a list, or
text in which each number is written in digits of five bits, from the third on as the difference to the
number two places before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import MAX_PIXELS
from holdfast.data.outlines import Point

_MOST_PARTS = 64  # of a mask in crumbs, the largest


def trace(mask: Mapping[str, Any], height: int, width: int) -> list[list[Point]]:
    """Returns the outlines (parts of the image) of a mask's parts, holes filled; none when it is damaged.

    Args:
        mask: `counts` and `size`.
        height: rows the mask must have.
        width: columns the mask must have.
    """
    pixels = decode(mask)
    if pixels is None or pixels.shape != (height, width):
        return []
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = sorted((part.reshape(-1, 2) for part in contours if len(part) >= 3), key=cv2.contourArea)
    size = np.array([width, height])
    return [[(x, y) for x, y in ((part + 0.5) / size).tolist()] for part in parts[::-1][:_MOST_PARTS]]


def decode(mask: Mapping[str, Any]) -> npt.NDArray[np.uint8] | None:
    """Returns a mask (H, W) of 0 and 1, or None when it is damaged."""
    size, counts = mask.get("size"), mask.get("counts")
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(type(side) is int and side > 0 for side in size)
    ):
        return None
    height, width = size
    if height * width > MAX_PIXELS:
        return None
    if isinstance(counts, str):
        counts = _runs(counts, height * width)
    if not isinstance(counts, list) or not all(
        type(run) is int and 0 <= run <= height * width for run in counts
    ):
        return None
    if len(counts) > 2 * height * width + 1 or sum(counts) != height * width:
        return None
    flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _runs(text: str, most: int) -> list[int] | None:
    runs: list[int] = []
    value, shift = 0, 0
    for sign in text:
        digit = ord(sign) - 48
        if not 0 <= digit < 64 or shift > 40:
            return None
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        run = value + (runs[-2] if len(runs) > 2 else 0)
        if not 0 <= run <= most:
            return None
        runs.append(run)
        value, shift = 0, 0
    return runs if not shift else None
