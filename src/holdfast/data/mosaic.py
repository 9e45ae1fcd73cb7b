"""Four images around one point, or nine in rows, each resampled once, straight into the output.

The usual way pastes four resized images on a canvas of twice the output's side, then warps and crops that
canvas. The same picture comes from warping each tile with (random map) @ (placement), without the canvas and
without resampling twice, and tiles that fall outside the output need not even be read. The cut at the canvas'
edge, which hides the outer parts of large tiles, is kept: it decides which boxes survive.

Coordinates are edges: see augment.py. A single letterboxed image is a picture of one tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Area, Matrix, is_upright, translation
from holdfast.data.image import Image
from holdfast.data.letterbox import fit

Corners = npt.NDArray[np.float64]  # (4, 2) outline, in order around
Window = tuple[int, int, int, int]  # xyxy in whole pixels

_MAX_ENLARGED = 1.5  # how much a reduced image may be enlarged before the full one is read
_MAX_SNAPPED = 2.0  # beyond this enlargement half a source pixel would be visible
_ROUNDING = 1.0 + 1e-6


class Placement(NamedTuple):
    """Where one image lies on the canvas.

    Attributes:
        ratio: canvas pixels per original pixel.
        left: canvas column of the image's left edge.
        top: canvas row of the image's top edge.
        visible: xyxy in original pixels, the part of the image on the canvas.
    """

    ratio: float
    left: float
    top: float
    visible: Area

    @property
    def matrix(self) -> Matrix:
        """(3, 3), original pixels to canvas pixels."""
        return np.array([[self.ratio, 0.0, self.left], [0.0, self.ratio, self.top], [0.0, 0.0, 1.0]])


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
        placements.append(_placement(ratio, left, top, height, width, 2 * size, 2 * size))
    return placements


def place_nine(sizes: list[tuple[int, int]], centre: tuple[float, float], size: int) -> list[Placement]:
    """Places nine images in three rows, long side scaled to two thirds of `size`.

    Nine so small take as much room as a mosaic of four. Images of a row touch; the middle row is as high as
    its highest image, the others stand above and hang below it. No image lies on another.

    Args:
        sizes: nine (height, width), row by row; the fifth lies in the middle.
        centre: (x, y) of its middle, on a canvas of 2 * size.
        size: side of the output.
    """
    x, y = centre
    ratios = [size * 2 / 3 / max(height, width) for height, width in sizes]
    shapes = [(height * ratio, width * ratio) for (height, width), ratio in zip(sizes, ratios, strict=True)]
    reach = max(height for height, _ in shapes[3:6]) / 2  # of the middle row, up and down
    placements = []
    for at, ((height, width), ratio) in enumerate(zip(sizes, ratios, strict=True)):
        row, column = divmod(at, 3)
        high, wide = shapes[at]
        middle = shapes[3 * row + 1][1] / 2  # of the row's middle image, left and right
        left = (x - middle - wide, x - wide / 2, x + middle)[column]
        top = (y - reach - high, y - high / 2, y + reach)[row]
        placements.append(_placement(ratio, left, top, height, width, 2 * size, 2 * size))
    return placements


def place_single(height: int, width: int, out_height: int, out_width: int) -> Placement:
    """Places one image in the middle of (out_height, out_width), over the whole pixels that `fit` gives it.

    Without augmentation a sample of training lies where validation has it.
    """
    ratio = min(out_height / height, out_width / width)
    box = fit(height, width, out_height, out_width)
    left = box.left + width * (box.scale_x - ratio) / 2
    top = box.top + height * (box.scale_y - ratio) / 2
    return _placement(ratio, left, top, height, width, out_height, out_width)


def _placement(
    ratio: float, left: float, top: float, height: int, width: int, canvas_height: float, canvas_width: float
) -> Placement:
    visible = (
        max(-left / ratio, 0.0),
        max(-top / ratio, 0.0),
        min((canvas_width - left) / ratio, float(width)),
        min((canvas_height - top) / ratio, float(height)),
    )
    return Placement(ratio, left, top, visible)


def reduction(matrix: Matrix, ratio: float) -> int:
    """Returns the power of two by which an image may be shrunk while it is read.

    Sampling an image at less than half its resolution skips pixels; reading it smaller averages them, and is
    faster. A picture is never coarser than the usual way makes it (long side resized to the output first,
    then enlarged by the random map), and a reduced image is enlarged by no more than 1.5.

    Args:
        matrix: (3, 3), original pixels to output pixels.
        ratio: output side / long side of the image.
    """
    (a, b, _), (c, d, _), _ = matrix.tolist()
    scale = math.sqrt(abs(a * d - b * c))
    scale = max(scale, 1e-6)
    limit = max(1.0 / scale, min(1.0 / ratio, _MAX_ENLARGED / scale)) * _ROUNDING
    divisor = 1
    while divisor * 2 <= limit and divisor < 1024:
        divisor *= 2
    return divisor


def outlines(placements: Sequence[Placement], maps: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Maps the visible parts of images to the output: (T, 4, 2) corners in order around.

    Args:
        placements: where the images lie.
        maps: (T, 3, 3), original pixels of each to output pixels.
    """
    corners = np.ones((len(placements), 4, 3))
    visible = np.array([placed.visible for placed in placements])
    corners[:, :, :2] = visible[:, (0, 1, 2, 1, 2, 3, 0, 3)].reshape(-1, 4, 2)
    mapped = corners @ maps.swapaxes(1, 2)
    return np.asarray(mapped[:, :, :2] / np.maximum(mapped[:, :, 2:], 1e-3), dtype=np.float64)


def windows_of(corners: npt.NDArray[np.float64], height: int, width: int) -> list[Window | None]:
    """Returns for outlines (T, 4, 2) the pixels x0, y0, x1, y1 whose centres their hulls cover, or None."""
    windows: list[Window | None] = []
    for (left, top), (right, bottom) in zip(
        corners.min(axis=1).tolist(), corners.max(axis=1).tolist(), strict=True
    ):
        x0, y0 = max(math.ceil(left - 0.5), 0), max(math.ceil(top - 0.5), 0)
        x1, y1 = min(math.ceil(right - 0.5), width), min(math.ceil(bottom - 0.5), height)
        windows.append((x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None)
    return windows


def paste(
    out: Image,
    pixels: Image,
    matrix: Matrix,
    corners: Corners,
    window: Window,
) -> Matrix:
    """Resamples an image into `out` in place, only inside an outline, and returns the map that was used.

    Pixels whose centre lies inside the outline are written; at its edge the image is continued, so no seam of
    background shows between two tiles. Upright maps are done as crop and resize, several times faster than a
    general warp: the crop is rounded to whole source pixels, and the map returned is the rounded one, so
    boxes mapped with it lie exactly on the pixels.

    Args:
        out: (H, W, 3) uint8.
        pixels: (h, w, 3) uint8.
        matrix: (3, 3) from `pixels` to `out`.
        corners: (4, 2) outline in `out`.
        window: that of `windows_of`.
    """
    x0, y0, x1, y1 = window
    target = out[y0:y1, x0:x1]
    if is_upright(matrix):
        if np.abs(matrix[:2, :2]).max() <= _MAX_SNAPPED:
            return _paste_resized(target, pixels, matrix, window)
        _warp(pixels, matrix, target, window)
        return matrix
    warped = np.empty_like(target, order="C")
    _warp(pixels, matrix, warped, window)
    mask = np.zeros(target.shape[:2], dtype=np.uint8)
    cv2.fillConvexPoly(mask, np.rint((corners - (x0 + 0.5, y0 + 0.5)) * 16).astype(np.int32), 255, shift=4)
    cv2.copyTo(warped, mask, target)
    return matrix


def _paste_resized(target: Image, pixels: Image, matrix: Matrix, window: Window) -> Matrix:
    height, width = pixels.shape[:2]
    (scale_x, _, shift_x), (_, scale_y, shift_y), _ = matrix.tolist()
    u0, u1, scale_x, shift_x = _snap(scale_x, shift_x, window[0], window[2], width)
    v0, v1, scale_y, shift_y = _snap(scale_y, shift_y, window[1], window[3], height)
    size = target.shape[1], target.shape[0]
    cv2.resize(pixels[v0:v1, u0:u1], size, dst=target, interpolation=cv2.INTER_LINEAR)
    if scale_x < 0 or scale_y < 0:
        cv2.flip(target, -1 if scale_x < 0 and scale_y < 0 else 1 if scale_x < 0 else 0, dst=target)
    return np.array([[scale_x, 0.0, shift_x], [0.0, scale_y, shift_y], [0.0, 0.0, 1.0]])


def _snap(scale: float, shift: float, start: int, stop: int, length: int) -> tuple[int, int, float, float]:
    """Rounds the source of output pixels start..stop to whole pixels: source range, scale and shift."""
    ends = sorted(((start - shift) / scale, (stop - shift) / scale))
    low = min(max(round(ends[0]), 0), length - 1)
    high = min(max(round(ends[1]), low + 1), length)
    snapped = math.copysign((stop - start) / (high - low), scale)
    return low, high, snapped, start - snapped * (low if scale > 0 else high)


def _warp(pixels: Image, matrix: Matrix, out: Image, window: Window) -> None:
    # Edge coordinates to the pixel centres OpenCV counts in, and to the window's own origin.
    local = translation(-0.5 - window[0], -0.5 - window[1]) @ matrix @ translation(0.5, 0.5)
    size, flags, border = (out.shape[1], out.shape[0]), cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
    if local[2, 0] == 0.0 and local[2, 1] == 0.0:
        cv2.warpAffine(pixels, local[:2], size, dst=out, flags=flags, borderMode=border)
    else:
        cv2.warpPerspective(pixels, local, size, dst=out, flags=flags, borderMode=border)
