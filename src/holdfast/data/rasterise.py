"""From outlines to pixels that say which object is seen there.

Dimensions: L layers, H W height and width of the masks.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.objects import Objects

Numbers = npt.NDArray[np.int16]

_SUBPIXELS = 4  # bits that OpenCV takes of a coordinate's fraction
MOST = 2**15 - 1  # objects that can be told apart


def numbered(
    objects: Objects, height: int, width: int, *, stride: int, hidden: bool = False
) -> Numbers:
    """Draws objects at a part of the image's size, smaller ones over larger ones.

    Outlines are drawn at the full size, of which one pixel in `stride` is kept each way: the one after the
    middle of its square. An object whose outline is not known is drawn as its box.

    Args:
        objects: what is on the image, pixels.
        height, width: of the image, multiples of `stride`.
        stride: image pixels per mask pixel.
        hidden: keep what smaller objects hide, too.

    Returns:
        (L, H, W) int16: i where the i-th object is, counted from 1, else 0. One layer of what is seen; with
        `hidden` as many as lie on each other, and an object is whole in the one above those that it hides.
    """
    layers = [np.zeros((height // stride, width // stride), np.int16)]
    outlines = [_outline(objects, number) for number in range(min(len(objects), MOST))]
    for number in np.argsort([-_area(outline) for outline in outlines], kind="stable").tolist():
        _draw(layers, outlines[number], number + 1, stride, hidden)
    return np.stack(layers)


def _outline(objects: Objects, number: int) -> npt.NDArray[np.float32]:
    """(p, 2) points of an object's outline, pixels."""
    outline = objects.outline(number)
    if len(outline):
        return outline
    x0, y0, x1, y1 = objects.boxes[number].tolist()
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)


def _area(outline: npt.NDArray[np.float32]) -> float:
    return float(cv2.contourArea(outline))


def _draw(
    layers: list[Numbers], outline: npt.NDArray[np.float32], number: int, stride: int, hidden: bool
) -> None:
    """Draws within the rectangle around an outline, so that small objects cost little."""
    height, width = layers[0].shape
    left, top = (np.floor(outline.min(axis=0) / stride).astype(int)).clip(0, (width, height)).tolist()
    right, bottom = (np.ceil(outline.max(axis=0) / stride).astype(int)).clip(0, (width, height)).tolist()
    if left >= right or top >= bottom:
        return
    board = np.zeros(((bottom - top) * stride, (right - left) * stride), np.uint8)
    # Coordinates are edges, OpenCV wants pixel centres.
    places = np.rint((outline - (left * stride, top * stride) - 0.5) * 2**_SUBPIXELS).astype(np.int32)
    cv2.fillPoly(board, [places], 1, cv2.LINE_8, shift=_SUBPIXELS)
    own = board[stride // 2 :: stride, stride // 2 :: stride] > 0
    below = [at for at, layer in enumerate(layers) if hidden and layer[top:bottom, left:right][own].any()]
    at = below[-1] + 1 if below else 0
    if at == len(layers):
        layers.append(np.zeros_like(layers[0]))
    layers[at][top:bottom, left:right][own] = number
