"""Samples for classifiers: an image fills the whole input, cut where its shape is another.

Training shows a random part of the image, its sides stretched to the square, then flips, a policy, colour and
a covered rectangle (random erasing, arXiv 1708.04896); evaluation shows the middle of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Matrix, scaling, translation
from holdfast.data.color import apply_hsv, hsv_gains
from holdfast.data.eval_samples import EvalSamples
from holdfast.data.faults import Unusable
from holdfast.data.image import FILL, Image
from holdfast.data.index import Index
from holdfast.data.mosaic import reduction
from holdfast.data.objects import Objects
from holdfast.data.policy import cutout, recolour
from holdfast.data.random import Draw, Place
from holdfast.data.samples import Sample, TrainSamples

_RATIO = (3 / 4, 4 / 3)  # of width and height of a random part, after Inception
_ERASED = (0.02, 0.33)  # share of the area, and
_ERASED_RATIO = (0.3, 3.3)  # height by width of an erased rectangle, as in the paper
_TRIES = 10
_LONGEST = 4.0  # shapes beyond it are read a little too small, and enlarged


class TrainCrops(TrainSamples):
    """Random parts of images; settings as of `TrainSamples`.

    A part has 1 - scale to 1 of the image's area. What joins, turns or shifts pictures does nothing here.
    """

    def mosaic_on(self, epoch: int) -> bool:
        """Never: one image has one class."""
        return False

    def mixing_on(self, epoch: int) -> bool:
        """Never."""
        return False

    def remarks(self) -> list[str]:
        """Says what was asked for and cannot act, but for mosaics, which are on by themselves."""
        names = [name for name in ("mixup", "cutmix", "copy_paste") if getattr(self, name)]
        names += [name for name in ("degrees", "shear", "perspective") if self.pictures.affine[name]]
        return [f"{', '.join(names)}: off, whole images are classified"] if names else []

    def _make(self, epoch: int, sample: int, out: Image, others: Mapping[int, int]) -> Sample:
        where, index = Place(self.seed, epoch, sample), sample % len(self.index)
        number = others.get(index, index)
        self.pictures.stand_ins.check(epoch, number)
        height, width = self.index.size(number)
        turn, changes = self._turn(where, *out.shape[:2])
        chances = where.numbers(Draw.AFFINE, 4 * _TRIES)
        part = random_part(chances, height, width, self.pictures.affine["scale"])
        matrix = turn @ onto(part, *out.shape[:2])
        divisor = reduction(matrix, max(out.shape) / max(height, width))
        pixels, scale_x, scale_y = self.pictures.read(number, divisor)
        picture, room = self._drawing_board(out.shape)
        _warp(pixels, matrix @ scaling(1 / scale_x, 1 / scale_y), picture)
        if changes:
            recolour(picture, changes)
            cutout(picture, changes)
        apply_hsv(picture, hsv_gains(where.numbers(Draw.COLOR, 3), **self.hsv), out, room=room)
        if self.bgr and where.draws(Draw.CHANNELS).random() < self.bgr:
            out[...] = cv2.cvtColor(out, cv2.COLOR_RGB2BGR)
        chance, *places = where.numbers(Draw.ERASING, 1 + 4 * _TRIES).tolist()
        if chance < self.erasing:
            x0, y0, x1, y1 = rectangle(places, *out.shape[:2])
            out[y0:y1, x0:x1] = 0
        return Sample(out, _whole(self.index.labels(number)[0], out), number)


class EvalCrops(EvalSamples):
    """The middle squares of images, whose short side is scaled to `imgsz`; arguments as of `EvalSamples`."""

    def get(self, position: int, *, out: Image | None = None) -> Sample:
        """Makes the sample at a position of the evaluation order; see `EvalSamples.get`."""
        index = int(self.order[position])
        if out is None:
            out = np.empty((self.imgsz, self.imgsz, 3), dtype=np.uint8)
        objects = _whole(self.index.labels(index)[0], out)
        try:
            middle(self.read(index), out)
        except Unusable:
            out.fill(FILL)
            return Sample(out, objects, index, unread=self.read.faults.reasons[index])
        return Sample(out, objects, index)


def middle(image: Image, out: Image) -> Image:
    """Draws the middle square of an image into `out` (S, S, 3), its short side scaled to S."""
    side = out.shape[0]
    height, width = image.shape[:2]
    ratio = side / min(height, width)
    tall, wide = max(round(height * ratio), side), max(round(width * ratio), side)
    if (tall, wide) != (height, width):
        method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (wide, tall), interpolation=method), np.uint8)
    top, left = (tall - side) // 2, (wide - side) // 2
    out[...] = image[top : top + side, left : left + side]
    return out


def random_part(
    chances: npt.NDArray[np.float64], height: int, width: int, scale: float
) -> tuple[float, float, float, float]:
    """A random part x, y, w, h of an image, pixels; its middle, of a shape within 3/4 to 4/3, if none fits.

    Args:
        chances: (4 * tries,) in [0, 1).
        scale: the part has 1 - scale to 1 of the image's area.
    """
    low, high = (math.log(ratio) for ratio in _RATIO)
    for area, shape, x, y in chances.reshape(-1, 4).tolist():
        target = height * width * (1 - scale * area)
        ratio = math.exp(low + (high - low) * shape)
        w, h = math.sqrt(target * ratio), math.sqrt(target / ratio)
        if w <= width and h <= height:
            return x * (width - w), y * (height - h), w, h
    w, h = min(width, height * _RATIO[1]), min(height, width / _RATIO[0])
    return (width - w) / 2, (height - h) / 2, w, h


def rectangle(chances: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
    """A random rectangle xyxy within a picture, to be erased; an empty one if none fits.

    Args:
        chances: 4 * tries numbers in [0, 1).
    """
    low, high = (math.log(ratio) for ratio in _ERASED_RATIO)
    for area, shape, x, y in zip(*(chances[at::4] for at in range(4)), strict=True):
        target = height * width * (_ERASED[0] + (_ERASED[1] - _ERASED[0]) * area)
        ratio = math.exp(low + (high - low) * shape)
        h, w = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if h < height and w < width:
            x0, y0 = int(x * (width - w + 1)), int(y * (height - h + 1))
            return x0, y0, x0 + w, y0 + h
    return 0, 0, 0, 0


def onto(part: tuple[float, float, float, float], height: int, width: int) -> Matrix:
    """The map of a part x, y, w, h of an image onto (height, width)."""
    x, y, w, h = part
    return scaling(width / w, height / h) @ translation(-x, -y)


def read_side(index: Index, imgsz: int, *, whole: bool) -> int:
    """Long side, pixels, that images must be read with: the short one fills the input where they are cut.

    Args:
        imgsz: side of the input.
        whole: whether images have one class each and are cut.
    """
    longest, shortest = index.sizes.max(axis=1), index.sizes.min(axis=1)
    return math.ceil(imgsz * min(float((longest / shortest).max()), _LONGEST)) if whole else imgsz


def _warp(pixels: Image, matrix: Matrix, out: Image) -> None:
    """Draws an image through a map of edges; its border goes on beyond it."""
    centres = translation(-0.5, -0.5) @ matrix @ translation(0.5, 0.5)  # OpenCV maps pixel centres
    cv2.warpPerspective(
        pixels, centres, (out.shape[1], out.shape[0]), dst=out, flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def _whole(classes: npt.NDArray[np.int64], out: Image) -> Objects:
    """The image as one object of its class."""
    return Objects.of_boxes(classes, np.array([[0, 0, out.shape[1], out.shape[0]]], np.float32))
