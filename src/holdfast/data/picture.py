"""One picture and what is on it: a mosaic or a single image through one random map, drawn into place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Boxes, Matrix, random_affine, scaling
from holdfast.data.image import FILL, Image
from holdfast.data.index import Index
from holdfast.data.mosaic import (
    Placement,
    outline,
    paste,
    place_mosaic,
    place_nine,
    place_single,
    reduction,
    window_of,
)
from holdfast.data.neighbours import Neighbours
from holdfast.data.objects import Objects
from holdfast.data.random import Draw, Place
from holdfast.data.reader import TrainReader
from holdfast.data.warp import cut_objects, keep_objects, warp_objects

Tiles = Literal["4", "9", "auto"]


class Pictures:
    """Draws pictures of a data set.

    Args:
        index: the images.
        read: where the images come from.
        near: whom a mosaic's first image is joined with.
        mosaic_tiles: images of a mosaic, 4 or 9; "auto" takes either, evenly.
        flip_index: (K,) which keypoint each one becomes in a mirror.
        affine: keywords of `random_affine`: degrees, translate, scale, shear, perspective.
    """

    def __init__(
        self,
        index: Index,
        *,
        read: TrainReader,
        near: Neighbours,
        mosaic_tiles: Tiles,
        flip_index: npt.NDArray[np.int64] | None,
        affine: Mapping[str, float],
    ) -> None:
        self.index = index
        self.read = read
        self.near = near
        self.mosaic_tiles = mosaic_tiles
        self.flip_index = flip_index
        self.affine = dict(affine)

    def draw(
        self, where: Place, first: int, tiled: bool, tiles: Draw, affine: Draw, turn: Matrix, out: Image
    ) -> Objects:
        """Draws one mosaic or single image into `out` and returns what is on it.

        Args:
            where: the sample the picture is for.
            first: index of the image, one of several in a mosaic.
            tiled: whether it is a mosaic, then `out` is square.
            tiles: the draw that decides about the mosaic.
            affine: the draw that decides about the map.
            turn: (3, 3), applied after the random map.
            out: (H, W, 3) uint8.

        Raises:
            DataError: an image cannot be read any more.
        """
        height, width = out.shape[:2]
        if tiled:
            images, placements = self._mosaic(where, first, tiles, width)
        else:
            images, placements = [first], [place_single(*self._size(first), height, width)]
        matrix, zoom = random_affine(
            where.draws(affine),
            canvas=(2 * width, 2 * height) if tiled else (width, height),
            size=(width, height),
            **self.affine,
        )
        matrix = turn @ matrix
        out.fill(FILL)
        before: list[Boxes] = []
        after: list[Objects] = []
        for image, placed in zip(images, placements, strict=True):
            used = self._tile(image, placed, matrix @ placed.matrix, out)
            if used is None:
                continue
            cut = cut_objects(self.index.objects(image), placed.visible)
            before.append(cut.boxes * np.float32(placed.ratio))
            after.append(warp_objects(cut, used, width=width, height=height, flip_index=self.flip_index))
        if not after:
            return self.index.objects(first).take(np.zeros(0, dtype=np.int64))
        return keep_objects(np.concatenate(before), Objects.join(after), zoom=zoom)

    def _mosaic(self, where: Place, first: int, tiles: Draw, size: int) -> tuple[list[int], list[Placement]]:
        """Draws the images of a mosaic, and where they lie."""
        nine = self.mosaic_tiles == "9" or (
            self.mosaic_tiles == "auto" and bool(where.draws(Draw.TILES).random() < 0.5)
        )
        rng = where.draws(tiles)
        rng.random()  # whether a mosaic at all
        partners = self.near.pick(where.epoch, where.sample, rng.random(8 if nine else 3))
        if nine:
            images = [*partners[:4], first, *partners[4:]]
            # Nearer to the middle than the centre of four: the outer rows must reach the output's border.
            x, y = ((rng.random(2) * 0.5 + 0.75) * size).tolist()
            return images, place_nine([self._size(i) for i in images], (x, y), size)
        order = np.argsort(rng.random(4), kind="stable").tolist()
        images = [[first, *partners][i] for i in order]
        x, y = ((rng.random(2) + 0.5) * size).tolist()
        return images, place_mosaic([self._size(i) for i in images], (x, y), size)

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self.index.sizes[index].tolist()
        return height, width

    def _tile(self, index: int, placed: Placement, matrix: Matrix, out: Image) -> Matrix | None:
        """Draws one image; returns the map of its objects, or None (nothing read) when off the picture."""
        corners = outline(placed, matrix)
        window = window_of(corners, out.shape[0], out.shape[1])
        if window is None:
            return None
        pixels, scale_x, scale_y = self.read(index, reduction(matrix, placed.ratio))
        used = paste(out, pixels, matrix @ scaling(1 / scale_x, 1 / scale_y), corners, window)
        return used @ scaling(scale_x, scale_y)
