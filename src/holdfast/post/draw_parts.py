"""Masks, keypoints and class names on pictures, drawn in place.

Dimensions: N objects, K keypoints, images are (H, W, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from holdfast.post.draw import (
    Picture,
    auto_font_size,
    auto_line_width,
    blend,
    class_color,
    load_font,
    text_mask,
)

OPACITY = 0.45
SURE = 0.5  # keypoints below this confidence are not drawn

# Which keypoints of a person, in the order of COCO, are joined: head, arms, trunk, legs.
LIMBS = (
    (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    (5, 7), (7, 9), (6, 8), (8, 10),
    (5, 6), (5, 11), (6, 12), (11, 12),
    (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
_LIMB_COLORS = (5,) * 6 + (1,) * 4 + (3,) * 4 + (2,) * 4  # numbers in the palette
_POINT_COLORS = (5,) * 5 + (1,) * 6 + (2,) * 6


def draw_masks(
    image: Picture, masks: Iterable[NDArray[np.bool_]], classes: Sequence[int], *, bgr: bool = False
) -> None:
    """Tints N masks (H, W) and lines their borders; later ones lie on top.

    Args:
        classes: N class indices, which choose the colours.
        bgr: the image has OpenCV's channel order.
    """
    line = max(1, auto_line_width(*image.shape[:2]) // 2)
    for mask, number in zip(masks, classes, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            continue
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        color = _paint(number, bgr)
        view, inside = image[window], mask[window]
        tint = np.array(color, np.float32) * OPACITY
        view[inside] = (view[inside] * (1 - OPACITY) + tint).round().astype(np.uint8)
        borders, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, borders, -1, color, line, cv2.LINE_AA, offset=(int(columns[0]), int(rows[0])))


def draw_keypoints(
    image: Picture,
    points: NDArray[np.float32],
    classes: Sequence[int],
    *,
    radius: int | None = None,
    lines: bool = True,
    bgr: bool = False,
) -> None:
    """Draws keypoints (N, K, 2 or 3) that are sure and on the image; those of people are joined.

    Args:
        classes: N class indices, which choose the colours of keypoints that are not those of people.
        radius: pixels; by image size when absent.
        lines: join the keypoints of people.
        bgr: the image has OpenCV's channel order.
    """
    height, width = image.shape[:2]
    size = radius or max(2, auto_line_width(height, width))
    person = points.shape[1:2] == (len(_POINT_COLORS),)
    for rows, number in zip(points, classes, strict=True):
        x, y = rows[:, 0], rows[:, 1]
        shown = (x >= 0) & (y >= 0) & (x <= width) & (y <= height) & ((x != 0) | (y != 0))
        if rows.shape[1] == 3:
            shown &= rows[:, 2] >= SURE
        places = [
            (round(a), round(b)) if good else None
            for a, b, good in zip(x.tolist(), y.tolist(), shown.tolist(), strict=True)
        ]
        if person and lines:
            for (a, b), limb in zip(LIMBS, _LIMB_COLORS, strict=True):
                start, end = places[a], places[b]
                if start is not None and end is not None:
                    cv2.line(image, start, end, _paint(limb, bgr), max(1, size // 2 + 1), cv2.LINE_AA)
        for at, place in enumerate(places):
            if place is not None:
                cv2.circle(image, place, size + 1, (255, 255, 255), -1, cv2.LINE_AA)
                color = _paint(_POINT_COLORS[at] if person else number, bgr)
                cv2.circle(image, place, size, color, -1, cv2.LINE_AA)


def draw_lines(
    image: Picture, lines: Sequence[str], *, font_size: int | None = None, bgr: bool = False
) -> None:
    """Writes lines of text into the upper left corner."""
    size = font_size or auto_font_size(*image.shape[:2])
    font = load_font(size, "".join(lines))
    top = size // 2
    for line in lines:
        mask = text_mask(line, font, size)
        blend(image, size // 2, top, mask, (30, 30, 30), (255, 255, 255), bgr)
        top += mask.shape[0]


def _paint(number: int, bgr: bool) -> tuple[int, int, int]:
    color = class_color(number)
    return color[::-1] if bgr else color
