"""Random affine and perspective maps, flips, and what maps do to boxes. Pure functions.

Coordinates are edges, not pixel centres: an image of width w spans [0, w], as boxes do. Matrices map columns
(x, y, 1). Flips are matrices too, so they are folded into the one warp and cost nothing.

Dimensions: M boxes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]  # (3, 3)
Boxes = npt.NDArray[np.float32]  # (M, 4) xyxy
Area = tuple[float, float, float, float]  # xyxy
Areas = npt.NDArray[np.float32]  # (M, 4) xyxy

_BENDING = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])  # entries that turn, shear or tilt
MIN_SIDE = 2.0  # pixels
MAX_ASPECT = 100.0
MIN_AREA_LEFT = 0.1


def translation(x: float, y: float) -> Matrix:
    """Returns the map that adds (x, y)."""
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def scaling(x: float, y: float) -> Matrix:
    """Returns the map that multiplies by (x, y)."""
    return np.array([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]])


def is_upright(matrix: Matrix) -> bool:
    """Says whether maps (..., 3, 3) keep upright rectangles upright: no rotation, shear or perspective."""
    return not np.count_nonzero(matrix * _BENDING)


def flip(width: float, height: float, *, horizontal: bool, vertical: bool) -> Matrix:
    """Returns the map that mirrors a (width, height) image left-right and/or upside down."""
    matrix = np.eye(3)
    if horizontal:
        matrix[0] = -1.0, 0.0, width
    if vertical:
        matrix[1] = 0.0, -1.0, height
    return matrix


def random_affine(
    chances: npt.NDArray[np.float64],
    *,
    canvas: tuple[float, float],
    size: tuple[float, float],
    degrees: float,
    translate: float,
    scale: float,
    shear: float,
    perspective: float,
) -> tuple[Matrix, float]:
    """Returns a random map from a canvas to the output, centre to centre when nothing is random.

    Args:
        chances: (8,) numbers in [0, 1), two for perspective, one for rotation and one for zoom, two for shear
            and two for the shift.
        canvas: width and height of the source in pixels (twice `size` for a mosaic).
        size: width and height of the output in pixels.
        degrees: rotation within +-degrees.
        translate: shift within +-translate, as a part of `size`.
        scale: zoom within 1 +- scale.
        shear: shear within +-shear degrees on each axis.
        perspective: perspective terms within +-perspective (1 / pixel).

    Returns:
        The (3, 3) matrix translate @ shear @ rotate-and-zoom @ perspective @ centre, and the zoom drawn.
    """
    around = (chances * 2 - 1).tolist()
    angle, zoom = math.radians(around[2] * degrees), 1.0 + around[3] * scale
    cosine, sine = zoom * math.cos(angle), zoom * math.sin(angle)
    by_x, by_y = (math.tan(math.radians(part * shear)) for part in around[4:6])
    # The product of the small matrices by hand: as arrays they cost more than all boxes of a sample.
    a, b = cosine - by_x * sine, sine + by_x * cosine
    c, d = by_y * cosine - sine, by_y * sine + cosine
    x, y = canvas[0] / 2, canvas[1] / 2
    tilt_x, tilt_y = around[0] * perspective, around[1] * perspective
    depth = 1.0 - tilt_x * x - tilt_y * y
    to_x, to_y = (0.5 + around[6] * translate) * size[0], (0.5 + around[7] * translate) * size[1]
    matrix = [
        [a + to_x * tilt_x, b + to_x * tilt_y, to_x * depth - a * x - b * y],
        [c + to_y * tilt_x, d + to_y * tilt_y, to_y * depth - c * x - d * y],
        [tilt_x, tilt_y, depth],
    ]
    return np.array(matrix), zoom


def cut_boxes(boxes: Boxes, area: Area | Areas) -> Boxes:
    """Cuts boxes (M, 4) xyxy at a rectangle xyxy, or each at its own."""
    limits = np.asarray(area, dtype=np.float32)
    low, high = limits[..., (0, 1, 0, 1)], limits[..., (2, 3, 2, 3)]
    return np.asarray(np.minimum(np.maximum(boxes, low), high), dtype=np.float32)


def warp_boxes(boxes: Boxes, matrix: Matrix, *, width: float, height: float) -> Boxes:
    """Maps boxes and returns the upright hulls, clipped to the output.

    Boxes with a corner behind the viewer (perspective) come back empty.

    Args:
        boxes: (M, 4) xyxy.
        matrix: (3, 3), or (M, 3, 3) a map for each box.
        width: width of the output.
        height: height of the output.

    Returns:
        (M, 4) xyxy float32.
    """
    if not len(boxes):
        return np.zeros((0, 4), dtype=np.float32)
    if is_upright(matrix):
        scale, shift = (matrix[..., (0, 1, 0, 1), at] / matrix[..., 2:, 2] for at in ((0, 1, 0, 1), 2))
        mapped = boxes * scale + shift
        low, high = mapped[:, :2], mapped[:, 2:]
        hull = np.concatenate([np.minimum(low, high), np.maximum(low, high)], axis=1)  # it may mirror
        limits = np.array([width, height, width, height])
        return np.asarray(np.minimum(np.maximum(hull, 0.0), limits), dtype=np.float32)
    corners = np.ones((len(boxes), 4, 3))
    corners[:, :, :2] = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    mapped = corners @ matrix.swapaxes(-1, -2)  # (M, 4, 3)
    depth = mapped[:, :, 2:]
    behind = (depth < 1e-3).any(axis=(1, 2))
    points = mapped[:, :, :2] / np.where(depth < 1e-3, 1.0, depth)
    hull = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    hull[:, 0::2] = hull[:, 0::2].clip(0.0, width)
    hull[:, 1::2] = hull[:, 1::2].clip(0.0, height)
    hull[behind] = 0.0
    return hull.astype(np.float32)


def keep_boxes(
    before: Boxes, after: Boxes, *, zoom: float, least: float | npt.NDArray[np.float32] = MIN_AREA_LEFT
) -> npt.NDArray[np.bool_]:
    """Says which warped boxes still show their object.

    Kept are boxes over 2 pixels on both sides, with more than a tenth of the area they would have had uncut,
    and no thinner than 1 to 100.

    Args:
        before: (M, 4) xyxy before the warp.
        after: (M, 4) xyxy after warp and clipping.
        zoom: the zoom of the warp.
        least: share of the area that must be left, of all or of each (M,).

    Returns:
        (M,) bool.
    """
    width, height = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    old_area = (before[:, 2] - before[:, 0]) * (before[:, 3] - before[:, 1]) * zoom**2
    aspect = np.maximum(width, height) / np.maximum(np.minimum(width, height), 1e-9)
    left = width * height / np.maximum(old_area, 1e-9)
    keep: Any = (width > MIN_SIDE) & (height > MIN_SIDE) & (left > least) & (aspect < MAX_ASPECT)
    return np.asarray(keep, dtype=np.bool_)
