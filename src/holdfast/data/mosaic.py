"""Four images around one point, each warped once, straight into the output.

The usual way pastes four resized images on a canvas of twice the output's side, then warps and crops that
canvas. The same picture comes from warping each tile with (random map) @ (placement), without the canvas and
without resampling twice, and tiles that fall outside the output need not even be read. The cut of the canvas'
edge, which hides the outer parts of large tiles, is kept: it decides which boxes survive.

Coordinates are edges: see augment.py. A single letterboxed image is a picture of one tile.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Boxes, Matrix, scaling, translation
from holdfast.data.image import Image

_SHARP = 1.0 + 1e-6


class Placement(NamedTuple):
    """Where one image lies on the canvas.

    Attributes:
        matrix: (3, 3), original pixels to canvas pixels; a scale and a shift.
        visible: (4,) xyxy float64 in canvas pixels, the part of the image on the canvas.
    """

    matrix: Matrix
    visible: npt.NDArray[np.float64]


def place_mosaic(sizes: list[tuple[int, int]], centre: tuple[float, float], size: int) -> list[Placement]:
    """Places four images, long side scaled to `size`, so that their inner corners meet.

    Args:
        sizes: four (height, width): top left, top right, bottom left, bottom right.
        centre: (x, y) where they meet, on a canvas of 2 * size.
        size: side of the output.
    """
    x, y = centre
    placements = []
    for corner, (height, width) in enumerate(sizes):
        ratio = size / max(height, width)
        left = x - width * ratio if corner % 2 == 0 else x
        top = y - height * ratio if corner < 2 else y
        placements.append(_placement(ratio, left, top, height, width, 2 * size))
    return placements


def place_single(height: int, width: int, size: int) -> Placement:
    """Places one image, long side scaled to `size`, in the middle of a canvas of `size`."""
    ratio = size / max(height, width)
    return _placement(ratio, (size - width * ratio) / 2, (size - height * ratio) / 2, height, width, size)


def _placement(ratio: float, left: float, top: float, height: int, width: int, canvas: float) -> Placement:
    whole = np.array([left, top, left + width * ratio, top + height * ratio])
    return Placement(translation(left, top) @ scaling(ratio, ratio), whole.clip(0.0, canvas))


def place_boxes(boxes: Boxes, placement: Placement) -> Boxes:
    """Maps boxes (M, 4) xyxy from original to canvas pixels, cut at the visible part of their image."""
    ratio = placement.matrix[0, 0]
    shift = np.tile(placement.matrix[:2, 2], 2)
    low, high = np.tile(placement.visible[:2], 2), np.tile(placement.visible[2:], 2)
    return np.asarray(np.minimum(np.maximum(boxes * ratio + shift, low), high), dtype=np.float32)


def reduction(matrix: Matrix) -> int:
    """Returns the power of two by which an image may be shrunk before a warp that shrinks it anyway.

    Bilinear sampling of an image at more than twice the target's resolution skips pixels; reading it smaller
    averages them instead, and is faster.
    """
    scale = math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))
    divisor = 1
    while scale * divisor * 2 <= _SHARP and divisor < 1024:
        divisor *= 2
    return divisor


def outline(placement: Placement, matrix: Matrix) -> npt.NDArray[np.float64]:
    """Maps the visible part of a placed image to the output: (4, 2) corners in order around."""
    x0, y0, x1, y1 = placement.visible
    mapped = np.array([[x0, y0, 1.0], [x1, y0, 1.0], [x1, y1, 1.0], [x0, y1, 1.0]]) @ matrix.T
    return np.asarray(mapped[:, :2] / np.maximum(mapped[:, 2:], 1e-3), dtype=np.float64)


def touches(corners: npt.NDArray[np.float64], size: int) -> bool:
    """Says whether an outline (4, 2) can cover any pixel centre of a (size, size) output."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    return bool((low < size - 0.5).all() and (high > 0.5).all() and (high - low > 0).all())


def paste(out: Image, pixels: Image, matrix: Matrix, corners: npt.NDArray[np.float64]) -> None:
    """Warps an image into `out` in place, only inside an outline.

    Pixels whose centre lies inside the outline are written; at its edge the image is continued, so no seam of
    background shows between two tiles.

    Args:
        out: (H, W, 3) uint8.
        pixels: (h, w, 3) uint8.
        matrix: (3, 3) from `pixels` to `out`.
        corners: (4, 2) outline in `out`.
    """
    height, width = out.shape[:2]
    low, high = corners.min(axis=0), corners.max(axis=0)
    x0, y0 = max(math.ceil(low[0] - 0.5), 0), max(math.ceil(low[1] - 0.5), 0)
    x1, y1 = min(math.ceil(high[0] - 0.5), width), min(math.ceil(high[1] - 0.5), height)
    if x0 >= x1 or y0 >= y1:
        return
    # Edge coordinates to the pixel centres OpenCV counts in, and the window's own origin.
    local = translation(-0.5 - x0, -0.5 - y0) @ matrix @ translation(0.5, 0.5)
    window = out[y0:y1, x0:x1]
    flat = local[2, 0] == 0.0 and local[2, 1] == 0.0
    if flat and local[0, 1] == 0.0 and local[1, 0] == 0.0:  # an upright rectangle: no mask needed
        _warp(pixels, local, window, flat=True)
        return
    warped = np.empty_like(window, order="C")
    _warp(pixels, local, warped, flat=flat)
    mask = np.zeros(window.shape[:2], dtype=np.uint8)
    polygon = np.rint((corners - (x0 + 0.5, y0 + 0.5)) * 16).astype(np.int32)
    cv2.fillConvexPoly(mask, polygon, 255, shift=4)
    cv2.copyTo(warped, mask, window)


def _warp(pixels: Image, local: Matrix, out: Image, *, flat: bool) -> None:
    size = out.shape[1], out.shape[0]
    if flat:
        cv2.warpAffine(
            pixels, local[:2], size, dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    else:
        cv2.warpPerspective(
            pixels, local, size, dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
