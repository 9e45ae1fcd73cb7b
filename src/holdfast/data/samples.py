"""A sample as a function of its place: (seed, epoch, index) in, pixels and boxes out.

A sample never depends on the sample before it, on the worker that makes it, or on when it is made. Order of a
training sample: mosaic (or the single image) and random affine and flips in one warp, mixup, colour.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Boxes, Matrix, flip, keep_boxes, mixup, random_affine, scaling, warp_boxes
from holdfast.data.color import apply_hsv, hsv_gains
from holdfast.data.image import FILL, Image
from holdfast.data.index import Index
from holdfast.data.letterbox import Letterbox, apply, batch_shape, place
from holdfast.data.mosaic import Placement, outline, paste, place_mosaic, place_single, reduction, window_of
from holdfast.data.neighbours import Neighbours
from holdfast.data.random import Draw, draws
from holdfast.data.reader import EvalReader, TrainReader, fitted
from holdfast.errors import DataError

Classes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """One image ready for a batch.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        classes: (M,) int64.
        boxes: (M, 4) float32 xyxy in pixels of `image`.
        index: index of the image in the data set.
        letterbox: the way back to the original image (evaluation only).
    """

    image: Image
    classes: Classes
    boxes: Boxes
    index: int
    letterbox: Letterbox | None = None


class TrainSamples:
    """Augmented samples.

    Args:
        index: the images.
        imgsz: side of the square output in pixels.
        seed: seed of the run.
        epochs: epochs of the run.
        close_mosaic: mosaic and mixup are off in the last so many epochs; as many as `epochs` or more means
            never on.
        mosaic: probability of a mosaic of four.
        mixup: probability that a mosaic is blended with a second one.
        degrees: rotation within +-degrees.
        translate: shift within +-translate of the side.
        scale: zoom within 1 +- scale.
        shear: shear within +-shear degrees.
        perspective: perspective terms within +-perspective.
        hsv_h: hue shift within +-hsv_h of the circle.
        hsv_s: saturation factor within 1 +- hsv_s.
        hsv_v: value factor within 1 +- hsv_v.
        flipud: probability of an upside-down flip.
        fliplr: probability of a left-right flip.
        read: where the images come from; the files when None.
    """

    def __init__(
        self,
        index: Index,
        *,
        imgsz: int,
        seed: int = 0,
        epochs: int,
        close_mosaic: int = 0,
        mosaic: float = 1.0,
        mixup: float = 0.0,
        degrees: float = 0.0,
        translate: float = 0.1,
        scale: float = 0.5,
        shear: float = 0.0,
        perspective: float = 0.0,
        hsv_h: float = 0.015,
        hsv_s: float = 0.7,
        hsv_v: float = 0.4,
        flipud: float = 0.0,
        fliplr: float = 0.5,
        read: TrainReader | None = None,
    ) -> None:
        if not len(index):
            raise DataError("the data set holds no images.", hint="Check the paths in data.yaml.")
        self.index = index
        self.imgsz = imgsz
        self.seed = seed
        self.epochs = epochs
        self.close_mosaic = close_mosaic
        self.mosaic = mosaic
        self.mixup = mixup
        self.affine = {
            "degrees": degrees,
            "translate": translate,
            "scale": scale,
            "shear": shear,
            "perspective": perspective,
        }
        self.hsv = {"hue": hsv_h, "saturation": hsv_s, "value": hsv_v}
        self.flipud = flipud
        self.fliplr = fliplr
        self.read = read or TrainReader(index, side=imgsz)
        self.near = Neighbours(len(index), seed)
        self._boards = threading.local()

    def __len__(self) -> int:
        return len(self.index)

    def shape(self, _position: int = 0) -> tuple[int, int]:
        """(H, W) of every sample."""
        return self.imgsz, self.imgsz

    def mosaic_on(self, epoch: int) -> bool:
        """Says whether an epoch may show mosaics."""
        return self.mosaic > 0 and epoch < self.epochs - self.close_mosaic

    def get(self, epoch: int, index: int, *, out: Image | None = None) -> Sample:
        """Makes a sample.

        Args:
            epoch: epoch from 0.
            index: index of the image in the data set.
            out: (imgsz, imgsz, 3) uint8 to draw into; a new array when None.

        Raises:
            DataError: an image cannot be read any more.
        """
        if out is None:
            out = np.empty((self.imgsz, self.imgsz, 3), dtype=np.uint8)
        sides = draws(self.seed, epoch, index, Draw.FLIP).random(2)
        turn = flip(
            self.imgsz,
            self.imgsz,
            horizontal=bool(sides[0] < self.fliplr),
            vertical=bool(sides[1] < self.flipud),
        )
        tiled = self.mosaic_on(epoch) and bool(
            draws(self.seed, epoch, index, Draw.MOSAIC).random() < self.mosaic
        )
        picture = self._drawing_board(out.shape)
        classes, boxes = self._picture(epoch, index, index, tiled, Draw.MOSAIC, Draw.AFFINE, turn, picture)
        chance = draws(self.seed, epoch, index, Draw.MIXUP) if tiled and self.mixup else None
        if chance is not None and chance.random() < self.mixup:
            (partner,) = self.near.pick(epoch, index, chance.random(1))
            ratio = float(chance.beta(32.0, 32.0))
            other = np.empty_like(out)
            more_classes, more_boxes = self._picture(
                epoch, index, partner, True, Draw.MIXUP_MOSAIC, Draw.MIXUP_AFFINE, turn, other
            )
            mixup(picture, other, ratio)
            classes, boxes = np.concatenate([classes, more_classes]), np.concatenate([boxes, more_boxes])
        apply_hsv(picture, hsv_gains(draws(self.seed, epoch, index, Draw.COLOR), **self.hsv), out)
        return Sample(out, classes, boxes, index)

    def _drawing_board(self, shape: tuple[int, ...]) -> Image:
        """Memory of this thread to draw in: it stays in the processor's cache, a batch does not."""
        board: Image | None = getattr(self._boards, "board", None)
        if board is None or board.shape != shape:
            board = self._boards.board = np.empty(shape, dtype=np.uint8)
        return board

    def _picture(
        self,
        epoch: int,
        index: int,
        first: int,
        tiled: bool,
        tiles: Draw,
        affine: Draw,
        turn: Matrix,
        out: Image,
    ) -> tuple[Classes, Boxes]:
        """Draws one mosaic or single image into `out` and returns its labels."""
        size = self.imgsz
        if tiled:
            rng = draws(self.seed, epoch, index, tiles)
            rng.random()  # whether a mosaic at all
            partners = self.near.pick(epoch, index, rng.random(3))
            order = np.argsort(rng.random(4), kind="stable").tolist()
            images = [[first, *partners][i] for i in order]
            x, y = ((rng.random(2) + 0.5) * size).tolist()
            placements = place_mosaic([self._size(i) for i in images], (x, y), size)
        else:
            images, placements = [first], [place_single(*self._size(first), size)]
        matrix, zoom = random_affine(
            draws(self.seed, epoch, index, affine),
            canvas=2 * size if tiled else size,
            size=size,
            **self.affine,
        )
        matrix = turn @ matrix
        out.fill(FILL)
        classes, before, after = [], [], []
        for image, placed in zip(images, placements, strict=True):
            used = self._tile(image, placed, matrix @ placed.matrix, out)
            if used is None:
                continue
            labels, boxes = self.index.labels(image)
            cut = placed.cut(boxes)
            classes.append(labels)
            before.append(cut * np.float32(placed.ratio))
            after.append(warp_boxes(cut, used, width=size, height=size))
        if not classes:
            return np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32)
        labels, boxes = np.concatenate(classes), np.concatenate(after)
        keep = keep_boxes(np.concatenate(before), boxes, zoom=zoom)
        return labels[keep], boxes[keep]

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self.index.sizes[index].tolist()
        return height, width

    def _tile(self, index: int, placed: Placement, matrix: Matrix, out: Image) -> Matrix | None:
        """Draws one image; returns the map of its boxes, or None (nothing read) when off the picture."""
        corners = outline(placed, matrix)
        window = window_of(corners, self.imgsz)
        if window is None:
            return None
        pixels, scale_x, scale_y = self.read(index, reduction(matrix, placed.ratio))
        used = paste(out, pixels, matrix @ scaling(1 / scale_x, 1 / scale_y), corners, window)
        return used @ scaling(scale_x, scale_y)


class EvalSamples:
    """Letterboxed samples in a fixed order, long side scaled to `imgsz`.

    With `rect` images are sorted by aspect ratio and each batch gets the smallest shape that holds its
    images; `pad` widens that shape by a part of a stride, as published results were measured (squares at 640
    then run at 672).

    Args:
        index: the images.
        imgsz: long side in pixels.
        stride: shapes are multiples of it.
        rect: one shape per batch; False gives squares.
        pad: part of a stride.
        batch: images per batch, which decides the shapes.
        read: where the images come from; the files when None.
    """

    def __init__(
        self,
        index: Index,
        *,
        imgsz: int,
        stride: int = 32,
        rect: bool = True,
        pad: float = 0.5,
        batch: int,
        read: EvalReader | None = None,
    ) -> None:
        if not len(index):
            raise DataError("the data set holds no images.", hint="Check the paths in data.yaml.")
        self.index = index
        self.imgsz = imgsz
        self.batch = batch
        self.read = read or EvalReader(index, side=imgsz)
        ratios = index.sizes[:, 0] / index.sizes[:, 1]
        self.order = np.argsort(ratios, kind="stable") if rect else np.arange(len(index))
        self.shapes: list[tuple[int, int]] = []
        for at in range(0, len(index), batch):
            members = ratios[self.order[at : at + batch]].tolist()
            shape = batch_shape(members, imgsz, stride=stride, pad=pad) if rect else (imgsz, imgsz)
            self.shapes.append(shape)

    def __len__(self) -> int:
        return len(self.index)

    def shape(self, position: int) -> tuple[int, int]:
        """(H, W) of the sample at a position of the evaluation order."""
        return self.shapes[position // self.batch]

    def get(self, position: int, *, out: Image | None = None) -> Sample:
        """Makes the sample at a position of the evaluation order.

        Args:
            position: from 0; `Sample.index` tells which image that is.
            out: (H, W, 3) uint8 to draw into, of shape `shape(position)`.

        Raises:
            DataError: the image cannot be read any more.
        """
        index = int(self.order[position])
        out_height, out_width = self.shape(position)
        if out is None:
            out = np.empty((out_height, out_width, 3), dtype=np.uint8)
        height, width = self.index.sizes[index].tolist()
        box = place(height, width, *fitted(height, width, self.imgsz), out_height, out_width)
        apply(self.read(index), box, out)
        classes, boxes = self.index.labels(index)
        return Sample(out, classes, box.to_input(boxes), index, box)
