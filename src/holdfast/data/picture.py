"""One picture and what is on it: a mosaic or a single image through one random map, drawn into place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Boxes, Matrix, cut_boxes, keep_boxes, random_affine, scaling, warp_boxes
from holdfast.data.image import FILL, Image
from holdfast.data.index import Index
from holdfast.data.mosaic import (
    Corners,
    Placement,
    Window,
    outlines,
    paste,
    place_mosaic,
    place_nine,
    place_single,
    reduction,
    windows_of,
)
from holdfast.data.neighbours import Neighbours
from holdfast.data.objects import Objects
from holdfast.data.random import Draw, Place
from holdfast.data.reader import TrainReader
from holdfast.data.stand_ins import StandIns
from holdfast.data.warp import cut_objects, keep_objects, warp_objects

Tiles = Literal["4", "9", "auto"]


class _Tile(NamedTuple):
    image: int
    placed: Placement
    matrix: Matrix  # (3, 3), original pixels to those of the picture, as it was drawn


class Pictures:
    """Draws pictures of a data set.

    Args:
        index: the images.
        read: where the images come from.
        near: whom a mosaic's first image is joined with.
        mosaic_tiles: images of a mosaic, 4 or 9; "auto" takes either, evenly.
        flip_index: (K,) which keypoint each one becomes in a mirror.
        affine: keywords of `random_affine`: degrees, translate, scale, shear, perspective.

    Attributes:
        stand_ins: which images are left out, and what takes the place of those that cannot be used.
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
        self.stand_ins = StandIns(near, read)

    def draw(
        self,
        where: Place,
        first: int,
        tiled: bool,
        mosaic: Draw,
        affine: Draw,
        turn: Matrix,
        out: Image,
        others: Mapping[int, int],
    ) -> Objects:
        """Draws one mosaic or single image into `out` and returns what is on it.

        Args:
            where: the sample the picture is for.
            first: index of the image, one of several in a mosaic.
            tiled: whether it is a mosaic, then `out` is square.
            mosaic: the draw that decides about the mosaic.
            affine: the draw that decides about the map.
            turn: (3, 3), applied after the random map.
            out: (H, W, 3) uint8.
            others: image -> the one that takes its place in this sample.

        Raises:
            Unusable: an image that is to be seen cannot be read any more, or is left out.
        """
        height, width = out.shape[:2]
        first = others.get(first, first)
        if tiled:
            images, placements = self._mosaic(where, first, mosaic, width, others)
        else:
            images, placements = [first], [place_single(*self.index.size(first), height, width)]
        matrix, zoom = random_affine(
            where.numbers(affine, 8),
            canvas=(2 * width, 2 * height) if tiled else (width, height),
            size=(width, height),
            **self.affine,
        )
        maps = turn @ matrix @ np.array([placed.matrix for placed in placements])
        out.fill(FILL)
        corners = outlines(placements, maps)
        tiles: list[_Tile] = []
        for at, window in enumerate(windows_of(corners, height, width)):
            if window is not None:
                self.stand_ins.check(where.epoch, images[at])
                used = self._tile(images[at], placements[at].ratio, maps[at], corners[at], window, out)
                tiles.append(_Tile(images[at], placements[at], used))
        if not tiles:
            return self.index.objects(first).take(np.zeros(0, dtype=np.int64))
        objects = self._boxes if self.index.only_boxes else self._objects
        return objects(tiles, zoom, width=width, height=height)

    def _tile(
        self, image: int, ratio: float, matrix: Matrix, corners: Corners, window: Window, out: Image
    ) -> Matrix:
        """Draws one image and returns the map that was used."""
        pixels, scale_x, scale_y = self.read(image, reduction(matrix, ratio))
        if scale_x == scale_y == 1.0:
            return paste(out, pixels, matrix, corners, window)
        used = paste(out, pixels, matrix @ scaling(1 / scale_x, 1 / scale_y), corners, window)
        return used @ scaling(scale_x, scale_y)

    def _boxes(self, tiles: list[_Tile], zoom: float, *, width: int, height: int) -> Objects:
        """What `_objects` returns where there are only boxes: those of all tiles at once, in less time."""
        classes, boxes, counts = self.index.labels_of([tile.image for tile in tiles])
        areas = np.array([tile.placed.visible for tile in tiles], dtype=np.float32)
        ratios = np.array([[tile.placed.ratio] for tile in tiles], dtype=np.float32)
        maps = np.array([tile.matrix for tile in tiles])
        cut = cut_boxes(boxes, areas.repeat(counts, axis=0))
        after = warp_boxes(cut, maps.repeat(counts, axis=0), width=width, height=height)
        kept = keep_boxes(cut * ratios.repeat(counts, axis=0), after, zoom=zoom)
        return Objects.of_boxes(classes[kept], after[kept])

    def _objects(self, tiles: list[_Tile], zoom: float, *, width: int, height: int) -> Objects:
        """Returns what is to be seen of the objects of all tiles."""
        before: list[Boxes] = []
        after: list[Objects] = []
        for image, placed, matrix in tiles:
            cut = cut_objects(self.index.objects(image), placed.visible)
            before.append(cut.boxes * np.float32(placed.ratio))
            after.append(warp_objects(cut, matrix, width=width, height=height, flip_index=self.flip_index))
        return keep_objects(np.concatenate(before), Objects.join(after), zoom=zoom)

    def _mosaic(
        self, where: Place, first: int, draw: Draw, size: int, others: Mapping[int, int]
    ) -> tuple[list[int], list[Placement]]:
        """Draws the images of a mosaic, and where they lie."""
        nine = self.mosaic_tiles == "9" or (
            self.mosaic_tiles == "auto" and bool(where.draws(Draw.TILES).random() < 0.5)
        )
        # One number for whether a mosaic at all, then the partners, the order of four, and the centre.
        numbers = where.numbers(draw, 11 if nine else 10)
        partners = self.near.pick(where.epoch, where.sample, numbers[1:-2] if nine else numbers[1:4])
        partners = [others.get(i, i) for i in partners]
        if nine:
            images = [*partners[:4], first, *partners[4:]]
            # Nearer to the middle than the centre of four: the outer rows must reach the output's border.
            x, y = ((numbers[-2:] * 0.5 + 0.75) * size).tolist()
            return images, place_nine([self.index.size(i) for i in images], (x, y), size)
        order = np.argsort(numbers[4:8], kind="stable").tolist()
        images = [[first, *partners][i] for i in order]
        x, y = ((numbers[-2:] + 0.5) * size).tolist()
        return images, place_mosaic([self.index.size(i) for i in images], (x, y), size)
