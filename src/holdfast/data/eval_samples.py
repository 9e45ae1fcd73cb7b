"""Samples to validate on: whole images, letterboxed, in a fixed order."""

from __future__ import annotations

import numpy as np

from holdfast.data.faults import Unusable
from holdfast.data.files import TimedFiles
from holdfast.data.image import FILL, Image
from holdfast.data.index import Index
from holdfast.data.letterbox import apply, batch_shape, place
from holdfast.data.reader import EvalReader, fitted
from holdfast.data.samples import Sample
from holdfast.data.warp import move_objects
from holdfast.errors import DataError


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

    @property
    def files(self) -> TimedFiles:
        """Reads the images."""
        return self.read.files

    def shape(self, position: int) -> tuple[int, int]:
        """(H, W) of the sample at a position of the evaluation order."""
        return self.shapes[position // self.batch]

    def get(self, position: int, *, out: Image | None = None) -> Sample:
        """Makes the sample at a position of the evaluation order.

        Args:
            position: from 0; `Sample.index` tells which image that is.
            out: (H, W, 3) uint8 to draw into, of shape `shape(position)`.
        """
        index = int(self.order[position])
        out_height, out_width = self.shape(position)
        if out is None:
            out = np.empty((out_height, out_width, 3), dtype=np.uint8)
        height, width = self.index.size(index)
        box = place(height, width, *fitted(height, width, self.imgsz), out_height, out_width)
        found = self.index.objects(index)
        try:
            apply(self.read(index), box, out)
        except Unusable:
            out.fill(FILL)
            nothing = found.take(np.zeros(0, dtype=np.int64))
            return Sample(out, nothing, index, box, unread=self.read.faults.reasons[index])
        objects = move_objects(found, box.matrix).replace(boxes=box.to_input(found.boxes))
        return Sample(out, objects, index, box)
