"""A sample as a function of its place: (seed, epoch, index) in, pixels and objects out.

A sample never depends on the sample before it, on the worker that makes it, or on when it is made. Order of a
training sample: mosaic (or the single image), random affine, policy and flips in one warp; copy-paste, mixup,
cutmix; colour.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.augment import Boxes, Matrix, flip
from holdfast.data.batches import batch_side, similar_order
from holdfast.data.color import apply_hsv, hsv_gains, hsv_room
from holdfast.data.faults import Faults, Unusable
from holdfast.data.files import TimedFiles
from holdfast.data.image import Image
from holdfast.data.index import Index
from holdfast.data.letterbox import Letterbox, batch_shape
from holdfast.data.mix import cutmix, free_window, hidden_share, mixup, paste_objects
from holdfast.data.neighbours import Neighbours
from holdfast.data.objects import Objects
from holdfast.data.picture import Pictures, Tiles
from holdfast.data.policy import Change, Policy, cutout, draw_changes, geometry, recolour
from holdfast.data.random import Draw, Place
from holdfast.data.reader import TrainReader
from holdfast.data.warp import warp_objects
from holdfast.data.weighing import weights_of
from holdfast.errors import DataError

Classes = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]

_HIDDEN = 0.9  # an object of which a cutout covers more is not there any more
_LOOKED_AT = 1000  # images, to find out whether labels have outlines


@dataclass(frozen=True)
class Sample:
    """One image ready for a batch.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        objects: what is on it, in pixels of `image`.
        index: index of the image in the data set.
        letterbox: the way back to the original image (evaluation only).
        unread: why the image could not be read (evaluation only): then `image` is plain gray without objects.
        masks: which object is where, as `rasterise.numbered` has it, or None.
    """

    image: Image
    objects: Objects
    index: int
    letterbox: Letterbox | None = None
    unread: str = ""
    masks: npt.NDArray[np.int16] | None = None

    @property
    def classes(self) -> Classes:
        """(M,) int64."""
        return self.objects.classes

    @property
    def boxes(self) -> Boxes:
        """(M, 4) float32 xyxy in pixels of `image`."""
        return self.objects.boxes


class TrainSamples:
    """Augmented samples.

    Images that cannot be read any more, and those that are left out, are replaced wherever they would be seen
    (`stand_ins.py`).

    Args:
        index: the images.
        imgsz: side of the square output in pixels.
        seed: seed of the run.
        epochs: epochs of the run.
        close_mosaic: pictures are not mixed (mosaic, mixup, cutmix, copy-paste) in the last so many epochs;
            as many as `epochs` or more means never.
        mosaic: probability of a mosaic.
        mosaic_tiles: images of a mosaic, 4 or 9; "auto" takes either, evenly.
        mixup: probability that a mosaic is blended with a second one.
        cutmix: probability that a window without objects shows another picture.
        copy_paste: share of the objects that could be pasted that are.
        copy_paste_mode: paste from the mirrored picture ("flip") or from another one ("mixup").
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
        bgr: probability that red and blue are exchanged.
        autoaugment: further changes by a policy, see policy.py.
        erasing: probability that a rectangle is covered, of images that are classified (`crops.py`).
        multi_scale: the side of a batch lies within 1 +- multi_scale of `imgsz`.
        rect: batches of similar shapes, padded only to the largest, without mosaic, mixup and cutmix.
        image_weights: epochs draw images by how rare and how poorly found their classes are (`weighing.py`).
        stride: sides of batches are multiples of it.
        flip_index: which keypoint each one becomes in a mirror; without it pictures with keypoints are not
            flipped.
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
        mosaic_tiles: Tiles = "4",
        mixup: float = 0.0,
        cutmix: float = 0.0,
        copy_paste: float = 0.0,
        copy_paste_mode: Literal["flip", "mixup"] = "flip",
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
        bgr: float = 0.0,
        autoaugment: Policy = "none",
        erasing: float = 0.0,
        multi_scale: float = 0.0,
        rect: bool = False,
        image_weights: bool = False,
        stride: int = 32,
        flip_index: Sequence[int] | None = None,
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
        self.cutmix = cutmix
        self.copy_paste = copy_paste
        self.copy_paste_mode = copy_paste_mode
        self.hsv = {"hue": hsv_h, "saturation": hsv_s, "value": hsv_v}
        self.flipud = flipud
        self.fliplr = fliplr
        self.bgr = bgr
        self.autoaugment = autoaugment
        self.erasing = erasing
        self.multi_scale = multi_scale
        self.rect = rect
        self.stride = stride
        self.flip_index = None if flip_index is None else np.array(flip_index, dtype=np.int64)
        self.near = Neighbours(len(index), seed)
        self.image_weights = image_weights
        self.weigh(())
        self._boards = threading.local()
        self.pictures = Pictures(
            index,
            read=read or TrainReader(index, side=round(imgsz * (1 + multi_scale))),
            near=self.near,
            mosaic_tiles=mosaic_tiles,
            flip_index=self.flip_index,
            affine={
                "degrees": degrees,
                "translate": translate,
                "scale": scale,
                "shear": shear,
                "perspective": perspective,
            },
        )
        self.can_flip = self.flip_index is not None or index.objects(0).keypoints is None

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_boards"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _boards=threading.local())

    def __len__(self) -> int:
        return len(self.index)

    def order(self, epoch: int, *, batch: int) -> Indices:
        """The samples of an epoch, (N,), to be cut into batches of `batch`: a permutation of the images, or
        images drawn by their weights, N higher for each time that one was drawn before.
        """
        order = self.near.order(epoch)
        if not self.rect:
            return order
        ratios = self.index.sizes[:, 0] / self.index.sizes[:, 1]
        return similar_order(order, ratios, batch=batch, seed=self.seed, epoch=epoch)

    def shape(self, epoch: int, number: int, members: Sequence[int]) -> tuple[int, int]:
        """(H, W) of batch `number` of an epoch, which has the samples `members`."""
        side = batch_side(
            self.imgsz, self.multi_scale, stride=self.stride, seed=self.seed, epoch=epoch, number=number
        )
        if not self.rect:
            return side, side
        ratios = [
            height / width for height, width in self.index.sizes[np.array(members) % len(self.index)].tolist()
        ]
        return batch_shape(ratios, side, stride=self.stride, pad=0.0)

    def mosaic_on(self, epoch: int) -> bool:
        """Says whether an epoch may show mosaics."""
        return self.mosaic > 0 and not self.rect and self.mixing_on(epoch)

    def mixing_on(self, epoch: int) -> bool:
        """Says whether an epoch may show parts of several pictures in one."""
        return epoch < self.epochs - self.close_mosaic

    def remarks(self) -> list[str]:
        """One sentence for each augmentation that was asked for and cannot act."""
        asked = {
            "mosaic": self.mosaic,
            "mixup": self.mixup,
            "cutmix": self.cutmix,
            "copy_paste": self.copy_paste,
        }
        mixing = [name for name, share in asked.items() if share]
        found: list[str] = []
        if mixing and not self.mixing_on(0):
            return [f"{', '.join(mixing)}: off from the start, close_mosaic covers all {self.epochs} epochs"]
        if self.rect and any(name != "copy_paste" for name in mixing):
            names = ", ".join(name for name in mixing if name != "copy_paste")
            found.append(f"{names}: off, rect keeps images whole")
        elif self.mixup and not self.mosaic:
            found.append("mixup: off, it blends mosaics and mosaic is 0")
        if not self.can_flip:
            flips = [name for name in ("flipud", "fliplr") if getattr(self, name)]
            if self.copy_paste and self.copy_paste_mode == "flip":
                flips.append("copy_paste")
            if flips:
                found.append(f"{', '.join(flips)}: off, there are keypoints but no flip_idx in data.yaml")
        some = range(min(len(self.index), _LOOKED_AT))
        if self.copy_paste and not any(len(self.index.objects(i).points) for i in some):
            found.append("copy_paste: off, the labels have no outlines to cut along")
        return found

    @property
    def faults(self) -> Faults:
        """The images that could not be read."""
        return self.pictures.read.faults

    def leave_out(self, numbers: Iterable[int], *, start: int) -> None:
        """Leaves images out from the beginning of an epoch on; others take their places.

        Batches are made ahead, so only an epoch that has not begun is the same for any number of workers.
        Call it in the same way on all ranks, before the loader's `epoch(start)`, and after a resume with what
        `left_out` was, which a checkpoint can keep as it is.

        Args:
            numbers: indices in the data set, such as those of `Batch.indices`.
            start: first epoch without them.
        """
        self.pictures.stand_ins.leave_out(numbers, start=start)

    def weigh(self, quality: Sequence[float]) -> None:
        """Sets the weights of images anew, if there are any, for the epochs that have not begun.

        Call it in the same way on all ranks.

        Args:
            quality: from 0 to 1 per class, how well it was found by the last validation; empty before it.
        """
        self.quality = tuple(quality)
        if self.image_weights:
            self.near.weigh(weights_of(self.index, self.quality))

    @property
    def left_out(self) -> list[tuple[int, int]]:
        """The images that are left out and the first epoch of each, sorted."""
        return self.pictures.stand_ins.left_out

    @property
    def files(self) -> TimedFiles:
        """Reads the images."""
        return self.pictures.read.files

    def get(self, epoch: int, sample: int, *, out: Image | None = None) -> Sample:
        """Makes a sample.

        Args:
            epoch: epoch from 0.
            sample: one of `order`; if below N, the index of the image in the data set.
            out: (H, W, 3) uint8 to draw into, square unless `rect`; a new (imgsz, imgsz, 3) when None.

        Returns:
            The sample, whose `index` is another one if the image cannot be used.

        Raises:
            DataError: no image, or too few, can be read any more.
        """
        if out is None:
            out = np.empty((self.imgsz, self.imgsz, 3), dtype=np.uint8)
        others: dict[int, int] = {}
        while True:
            try:
                return self._make(epoch, sample, out, others)
            except Unusable as fault:  # noqa: PERF203 - once more without that image
                instead = self.pictures.stand_ins.of(epoch, fault.number)
                others = {image: other for image, other in others.items() if other != fault.number}
                others[fault.number] = instead

    def _make(self, epoch: int, sample: int, out: Image, others: Mapping[int, int]) -> Sample:
        """`get`, with other images in the place of some."""
        where, index = Place(self.seed, epoch, sample), sample % len(self.index)
        turn, changes = self._turn(where, *out.shape[:2])
        tiled = self.mosaic_on(epoch) and bool(where.numbers(Draw.MOSAIC, 1)[0] < self.mosaic)
        picture, room = self._drawing_board(out.shape)
        objects = self.pictures.draw(where, index, tiled, Draw.MOSAIC, Draw.AFFINE, turn, picture, others)
        if self.mixing_on(epoch):
            objects = self._mixed(where, tiled, turn, objects, picture, others)
        if changes:
            recolour(picture, changes)
            covered = cutout(picture, changes)
            if covered is not None:
                hidden = hidden_share(np.array([covered], np.float32), objects.boxes)[0]
                objects = objects.take(hidden <= _HIDDEN)
        apply_hsv(picture, hsv_gains(where.numbers(Draw.COLOR, 3), **self.hsv), out, room=room)
        if self.bgr and where.draws(Draw.CHANNELS).random() < self.bgr:
            out[...] = cv2.cvtColor(out, cv2.COLOR_RGB2BGR)
        return Sample(out, objects, others.get(index, index))

    def _drawing_board(self, shape: tuple[int, ...]) -> tuple[Image, npt.NDArray[np.uint8]]:
        """Memory of this thread to draw in and to colour in: it stays in the cache, a batch does not."""
        kept: tuple[Image, npt.NDArray[np.uint8]] | None = getattr(self._boards, "kept", None)
        if kept is None or kept[0].shape != shape:
            kept = self._boards.kept = np.empty(shape, dtype=np.uint8), hsv_room()
        return kept

    def _turn(self, where: Place, height: int, width: int) -> tuple[Matrix, list[Change]]:
        """Returns the flips of a sample with the policy's changes of place, and all changes of the policy."""
        sides = where.numbers(Draw.FLIP, 2)
        turn = flip(
            width,
            height,
            horizontal=self.can_flip and bool(sides[0] < self.fliplr),
            vertical=self.can_flip and bool(sides[1] < self.flipud),
        )
        if self.autoaugment == "none":
            return turn, []
        changes = draw_changes(where.draws(Draw.POLICY), self.autoaugment)
        moved = geometry(changes, height=height, width=width)
        return turn if moved is None else turn @ moved, changes

    def _mixed(
        self,
        where: Place,
        tiled: bool,
        turn: Matrix,
        objects: Objects,
        out: Image,
        others: Mapping[int, int],
    ) -> Objects:
        """Adds parts of other pictures to a picture, in place, and returns what is to be seen then."""
        if self.copy_paste:
            objects = self._pasted(where, tiled, turn, objects, out, others)
        if self.mixup and tiled:
            chance = where.draws(Draw.MIXUP)
            if chance.random() < self.mixup:
                (partner,) = self.near.pick(where.epoch, where.sample, chance.random(1))
                ratio = float(chance.beta(32.0, 32.0))
                other = np.empty_like(out)
                found = self.pictures.draw(
                    where, partner, True, Draw.MIXUP_MOSAIC, Draw.MIXUP_AFFINE, turn, other, others
                )
                mixup(out, other, ratio)
                objects = Objects.join([objects, found])
        if self.cutmix and not self.rect:
            chance = where.draws(Draw.CUTMIX)
            if chance.random() < self.cutmix:
                (partner,) = self.near.pick(where.epoch, where.sample, chance.random(1))
                window = free_window(chance, objects.boxes, height=out.shape[0], width=out.shape[1])
                if window is not None:
                    other = np.empty_like(out)
                    found = self.pictures.draw(
                        where, partner, tiled, Draw.CUTMIX_MOSAIC, Draw.CUTMIX_AFFINE, turn, other, others
                    )
                    objects = cutmix(out, objects, other, found, window)
        return objects

    def _pasted(
        self,
        where: Place,
        tiled: bool,
        turn: Matrix,
        objects: Objects,
        out: Image,
        others: Mapping[int, int],
    ) -> Objects:
        """Pastes objects of the mirrored picture or of another one, in place."""
        if self.copy_paste_mode == "mixup":
            (partner,) = self.near.pick(where.epoch, where.sample, where.draws(Draw.PASTE).random(1))
            other = np.empty_like(out)
            found = self.pictures.draw(
                where, partner, tiled, Draw.PASTE_MOSAIC, Draw.PASTE_AFFINE, turn, other, others
            )
            return paste_objects(out, objects, other, found, self.copy_paste)
        if not self.can_flip or not len(objects.points):
            return objects
        height, width = out.shape[:2]
        mirror = flip(width, height, horizontal=True, vertical=False)
        found = warp_objects(objects, mirror, width=width, height=height, flip_index=self.flip_index)
        other = np.empty_like(out)
        cv2.flip(out, 1, dst=other)
        return paste_objects(out, objects, other, found, self.copy_paste)
