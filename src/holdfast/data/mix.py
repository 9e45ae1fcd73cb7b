"""Two pictures in one: blended, with a window of the other, or with objects of the other pasted in.

Pixels change in place; what is then to be seen is returned.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Boxes
from holdfast.data.image import Image
from holdfast.data.objects import Floats, Objects
from holdfast.data.warp import cut_objects, keep_objects

MAX_HIDDEN = 0.3  # share of any object that a pasted one may cover
_TRIES = 3
_SUBPIXELS = 4  # bits behind the point in OpenCV's polygons

Window = tuple[int, int, int, int]  # xyxy in whole pixels


def mixup(image: Image, other: Image, ratio: float) -> None:
    """Sets `image` to ratio * image + (1 - ratio) * other, in place; the labels of both count in full."""
    cv2.addWeighted(image, ratio, other, 1.0 - ratio, 0.0, dst=image)


def free_window(rng: np.random.Generator, boxes: Boxes, *, height: int, width: int) -> Window | None:
    """Draws a window of the picture that touches no box; None when three tries find none.

    Its area is a uniform share of the picture's, before the part beyond the border is cut off.
    """
    for share, x, y in rng.random((_TRIES, 3)).tolist():
        side = math.sqrt(share)
        x0, x1 = (round(min(max((x + part * side) * width, 0.0), width)) for part in (-0.5, 0.5))
        y0, y1 = (round(min(max((y + part * side) * height, 0.0), height)) for part in (-0.5, 0.5))
        apart = (boxes[:, 2] <= x0) | (boxes[:, 0] >= x1) | (boxes[:, 3] <= y0) | (boxes[:, 1] >= y1)
        if x0 < x1 and y0 < y1 and apart.all():
            return x0, y0, x1, y1
    return None


def cutmix(image: Image, objects: Objects, other: Image, found: Objects, window: Window) -> Objects:
    """Fills a window of `image` from `other`, and adds what can be seen there of its objects."""
    x0, y0, x1, y1 = window
    image[y0:y1, x0:x1] = other[y0:y1, x0:x1]
    return Objects.join([objects, keep_objects(found.boxes, cut_objects(found, window), zoom=1.0)])


def paste_objects(image: Image, objects: Objects, other: Image, found: Objects, share: float) -> Objects:
    """Cuts objects out of `other` along their outlines and pastes them on the same place of `image`.

    Pasted are those that hide less than 30 % of every object that is there, a share of them, least hiding
    first.

    Args:
        image: (H, W, 3) uint8, changed in place.
        objects: what is on `image`.
        other: (H, W, 3) uint8.
        found: what is on `other`; objects without outline cannot be cut out.
        share: of the objects that would fit.

    Returns:
        `objects` and those pasted.
    """
    found = found.take(np.diff(found.starts) >= 3)
    hidden = hidden_share(found.boxes, objects.boxes).max(axis=1, initial=0.0)
    fitting = np.flatnonzero(hidden < MAX_HIDDEN)
    count = round(share * len(fitting))
    if not count:
        return objects
    pasted = found.take(fitting[np.argsort(hidden[fitting], kind="stable")[:count]])
    cv2.copyTo(other, fill_outlines(pasted, height=image.shape[0], width=image.shape[1]), image)
    return Objects.join([objects, pasted])


def hidden_share(boxes: Boxes, others: Boxes) -> Floats:
    """Which share of each of `others` (M, 4) each of `boxes` (N, 4) covers: (N, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    both = np.maximum(high - low, 0.0).prod(axis=2)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return np.asarray(both / np.maximum(areas, 1e-9), dtype=np.float32)


def fill_outlines(objects: Objects, *, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Returns a mask (height, width) uint8, 255 inside the outline of any object and on its edge."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for number in range(len(objects)):
        points = np.rint((objects.outline(number) - 0.5) * (1 << _SUBPIXELS)).astype(np.int32)
        if len(points) >= 3:  # one by one: together, overlaps would be holes
            cv2.fillPoly(mask, [points], 255, shift=_SUBPIXELS)
    return mask
