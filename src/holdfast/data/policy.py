"""RandAugment and AutoAugment for detection: which changes a picture gets, and what they do.

RandAugment (arXiv 1909.13719) draws two of fourteen changes at one strength. AutoAugment draws one of five
pairs that were learned on COCO (arXiv 1906.11172, after arXiv 1805.09501). Left out of these are the changes
inside boxes only, which move pixels away from under outlines and keypoints.

Changes of place become part of the one map of a picture, so they move objects of every kind and cost no
second resampling. Colours change through tables where a pixel's new value depends on the old one alone.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Matrix, translation
from holdfast.data.image import FILL, Image

Policy = Literal["none", "randaugment", "autoaugment"]
Table = npt.NDArray[np.uint8]

_CHANGES = 2
_STRENGTH = 0.3
_GRAY = np.array([[0.299, 0.587, 0.114]] * 3)
_BLUR = np.array([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]], np.float32) / 13.0

# What full strength means, and whether it may go either way. Shares of the picture's side, degrees, slopes;
# for colours the distance of the factor from 1; bits dropped; share of the levels that are inverted.
_RANGES: dict[str, tuple[float, bool]] = {
    "identity": (0.0, False),
    "autocontrast": (0.0, False),
    "equalize": (0.0, False),
    "posterize": (4.0, False),
    "solarize": (1.0, False),
    "brightness": (0.9, True),
    "contrast": (0.9, True),
    "color": (0.9, True),
    "sharpness": (0.9, True),
    "rotate": (30.0, True),
    "shear_x": (0.3, True),
    "shear_y": (0.3, True),
    "translate_x": (0.45, True),
    "translate_y": (0.45, True),
}
_EITHER_WAY = frozenset(("rotate", "shear_x", "shear_y", "translate_x", "translate_y"))

# (change, probability, amount in the units above); cutout: share of the side.
_LEARNED: tuple[tuple[tuple[str, float, float], ...], ...] = (
    (("translate_x", 0.6, 0.094), ("equalize", 0.8, 0.0)),
    (("cutout", 0.8, 0.25),),
    (("shear_x", 0.4, 0.0),),
    (("shear_y", 1.0, 0.06),),
    (("rotate", 0.6, 30.0), ("color", 1.0, 0.18)),
)


class Change(NamedTuple):
    """One change of a picture.

    Attributes:
        name: what is changed.
        amount: by how much, signed; the unit depends on the change.
        place: (x, y) for changes that have one, as shares of the sides.
    """

    name: str
    amount: float
    place: tuple[float, float] = (0.5, 0.5)


def draw_changes(rng: np.random.Generator, policy: Policy) -> list[Change]:
    """Draws the changes of one picture."""
    numbers = rng.random((_CHANGES, 5)).tolist()
    changes = []
    if policy == "randaugment":
        names = list(_RANGES)
        for which, sign, *_ in numbers:
            name = names[int(which * len(names))]
            most, either = _RANGES[name]
            changes.append(Change(name, _STRENGTH * most * (-1.0 if either and sign < 0.5 else 1.0)))
    elif policy == "autoaugment":
        pair = _LEARNED[int(numbers[0][0] * len(_LEARNED))]
        for (name, probability, amount), (_, sign, chance, x, y) in zip(pair, numbers, strict=False):
            if chance < probability:
                turned = -amount if name in _EITHER_WAY and sign < 0.5 else amount
                changes.append(Change(name, turned, (x, y)))
    return changes


def geometry(changes: list[Change], *, height: int, width: int) -> Matrix | None:
    """Returns the map (3, 3) of all changes of place, about the middle of the output; None without any."""
    matrix = None
    for change in changes:
        if change.name not in _EITHER_WAY:
            continue
        step = np.eye(3)
        if change.name == "rotate":
            cosine, sine = math.cos(math.radians(change.amount)), math.sin(math.radians(change.amount))
            step[:2, :2] = (cosine, sine), (-sine, cosine)
        elif change.name == "shear_x":
            step[0, 1] = change.amount
        elif change.name == "shear_y":
            step[1, 0] = change.amount
        elif change.name == "translate_x":
            step[0, 2] = change.amount * width
        else:
            step[1, 2] = change.amount * height
        matrix = step if matrix is None else step @ matrix
    if matrix is None:
        return None
    return translation(width / 2, height / 2) @ matrix @ translation(-width / 2, -height / 2)


def recolour(image: Image, changes: list[Change]) -> None:
    """Makes all changes of colour, in place."""
    for change in changes:
        if change.name in _TABLES:
            cv2.LUT(image, _TABLES[change.name](image, change.amount), dst=image)
        elif change.name == "color":
            mix = _GRAY * -change.amount + np.eye(3) * (1.0 + change.amount)
            image[...] = cv2.transform(image, mix)
        elif change.name == "sharpness":
            smooth = cv2.filter2D(image, -1, _BLUR, borderType=cv2.BORDER_REPLICATE)
            cv2.addWeighted(image, 1.0 + change.amount, smooth, -change.amount, 0.0, dst=image)


def cutout(image: Image, changes: list[Change]) -> tuple[float, float, float, float] | None:
    """Covers a square with the gray of the letterbox, in place; returns it xyxy, None where none is drawn."""
    for change in changes:
        if change.name == "cutout":
            height, width = image.shape[:2]
            reach = change.amount * min(height, width) / 2
            x, y = change.place[0] * width, change.place[1] * height
            x0, y0 = max(round(x - reach), 0), max(round(y - reach), 0)
            x1, y1 = min(round(x + reach), width), min(round(y + reach), height)
            image[y0:y1, x0:x1] = FILL
            return x0, y0, x1, y1
    return None


def _levels(values: npt.NDArray[np.floating[Any]]) -> Table:
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def _brightness(_image: Image, amount: float) -> Table:
    return _levels(np.arange(256) * (1.0 + amount))


def _contrast(image: Image, amount: float) -> Table:
    means = [float(np.average(np.arange(256), weights=counts)) for counts in _histograms(image)]
    mean = float(np.dot(means, _GRAY[0]))
    return _levels(mean + (np.arange(256) - mean) * (1.0 + amount))


def _posterize(_image: Image, amount: float) -> Table:
    return (np.arange(256) & (0xFF << round(amount))).astype(np.uint8)


def _solarize(_image: Image, amount: float) -> Table:
    levels = np.arange(256)
    return np.where(levels >= 256 * (1.0 - amount), 255 - levels, levels).astype(np.uint8)


def _autocontrast(image: Image, _amount: float) -> Table:
    tables = np.empty((1, 256, 3), dtype=np.uint8)
    for channel, counts in enumerate(_histograms(image)):
        present = np.flatnonzero(counts)
        low, high = int(present[0]), int(present[-1])
        levels = np.arange(256.0)
        tables[0, :, channel] = _levels((levels - low) * (255.0 / (high - low)) if high > low else levels)
    return tables


def _equalize(image: Image, _amount: float) -> Table:
    tables = np.empty((1, 256, 3), dtype=np.uint8)
    for channel, counts in enumerate(_histograms(image)):
        below = counts.cumsum()
        first = below[np.flatnonzero(counts)[0]]  # the darkest level becomes 0, the brightest 255
        room = below[-1] - first
        levels = np.arange(256.0) if room == 0 else (below - first) * (255.0 / room)
        tables[0, :, channel] = _levels(levels)
    return tables


def _histograms(image: Image) -> list[npt.NDArray[np.float64]]:
    """How often each level occurs in each channel, (256,) each.

    The gray around pictures is not content: its level counts as often as the levels beside it.
    """
    found = []
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256]).reshape(256).astype(np.float64)
        beside = (counts[FILL - 1] + counts[FILL + 1]) / 2
        if counts.sum() > counts[FILL]:
            counts[FILL] = min(counts[FILL], beside)
        found.append(counts)
    return found


_TABLES = {
    "brightness": _brightness,
    "contrast": _contrast,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
