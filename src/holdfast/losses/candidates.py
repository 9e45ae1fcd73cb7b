"""Candidate pairs of the assigner: which anchors lie inside which objects, listed without testing every pair.

The cells inside a box form a rectangle on each level, found by arithmetic (`geometry.anchors.cells_inside`). Work and
memory follow the number of cells inside boxes, and pairs are handed out in chunks of bounded size, so memory does not
grow with the number of objects of an image. Pairs depend on the ground truth alone: several branches share one list.

Anchors of a batch are numbered level by level: level, then image, then row, then column. So the anchors of a level are
one range of numbers, and sorting by number groups what lives in the same map.

Dimensions: B images, L levels, A anchors of a batch (over all images), G objects, M candidate pairs of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.geometry.anchors import anchor_points, cells_inside
from holdfast.geometry.iou import BoxParts, box_parts
from holdfast.geometry.targets import Targets

MARGIN = 1e-9  # an anchor on the edge of a box, or this near to it (pixels), is outside
_CHUNK_HOST = 1 << 18  # pairs at a time: the dozen arrays of a chunk stay in the cache of a core
_CHUNK_DEVICE = 1 << 23


class Pairs(NamedTuple):
    """Candidate pairs of some objects, sorted by (level, object, cell).

    Attributes:
        objects: (rows,) int64, the objects of this chunk.
        truth: (M,) parts of the object's box.
        target: (M,) int64, the object.
        image: (M,) int64, its image.
        classes: (M,) int64, its class.
        anchor: (M,) int64, number of the anchor within the batch.
        cell: (M,) int64, position of the anchor in the map of its level and image.
        place: (M,) int64, position in a (rows, longest) table, one row per object.
        longest: most pairs of one object.
        sizes: pairs of each level.
    """

    objects: Tensor
    truth: BoxParts
    target: Tensor
    image: Tensor
    classes: Tensor
    anchor: Tensor
    cell: Tensor
    place: Tensor
    longest: int
    sizes: list[int]


class Candidates:
    """Objects of a batch with the anchors inside them."""

    def __init__(
        self,
        targets: Targets,
        *,
        batch: int,
        shapes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        smallest_side: float = 0.0,
        chunk: int | None = None,
    ) -> None:
        """Measures the objects; pairs are listed later, by `pairs`.

        Args:
            targets: ground truth, sorted by image. Objects without area or with non-finite corners have no candidates.
            batch: B.
            shapes: (height, width) of each level in cells.
            strides: input pixels per cell of each level.
            smallest_side: for the test "inside the box" only, shorter sides count as this long (pixels).
            chunk: pairs held at a time; None chooses by device.
        """
        device = targets.boxes.device
        boxes = torch.where(torch.isfinite(targets.boxes).all(-1, keepdim=True), targets.boxes, 0.0).float()
        self.batch = batch
        self.image, self.classes = targets.image, targets.classes
        self.truth = box_parts(boxes)
        self.reach = _enlarge(boxes, smallest_side) if smallest_side > 0 else boxes
        self.chunk = chunk or (_CHUNK_HOST if device.type == "cpu" else _CHUNK_DEVICE)
        self.cells = [h * w for h, w in shapes]
        self.starts = [
            int(x) for x in np.cumsum([0, *(batch * n for n in self.cells)])
        ]  # (L + 1,) anchor numbers
        points, steps = anchor_points(shapes, strides, device=device)
        self.points, self.steps = points, steps  # per image: cells of the level, and stride
        self._cells = torch.tensor(self.cells, device=device)
        self._starts = torch.tensor(self.starts[:-1], device=device)
        self._pitch = torch.tensor([w for _, w in shapes], device=device)
        ranges = cells_inside(self.reach, shapes, strides, margin=MARGIN)
        self._width = ranges.width
        self._height = torch.where(ranges.width > 0, ranges.height, 0)
        self._corner = ranges.y * self._pitch + ranges.x  # (G, L) first cell
        self._counts = (self._width * self._height).cpu().numpy()  # the one transfer that plans the chunks
        self._only: Pairs | None = None

    def pairs(self) -> Iterator[Pairs]:
        """Yields all pairs in chunks; a list that is one chunk is kept for the next call."""
        if self._only is not None:
            yield self._only
            return
        for rows in chunks(self._counts.sum(1), self.chunk):
            if not self._counts[rows].any():
                continue
            pairs = self._list(rows)
            if len(rows) == len(self._counts):
                self._only = pairs
            yield pairs

    def locate(self, anchor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Splits anchor numbers into level, image and cell."""
        level = torch.bucketize(anchor, self._starts, right=True) - 1
        within = anchor - self._starts[level]
        cells = self._cells[level]
        image = torch.div(within, cells, rounding_mode="floor")
        return level, image, within - image * cells

    def of_cell(self, level: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Points (..., 2) in cells and strides (...) of cells on levels."""
        index = cell + (self._cells.cumsum(0) - self._cells)[level]
        return self.points[index], self.steps[index]

    def _list(self, rows: npt.NDArray[np.int64]) -> Pairs:
        counts = self._counts[rows]
        device = self._corner.device
        levels = counts.shape[1]
        longest, total = int(counts.sum(1).max()), int(counts.sum())
        objects = torch.from_numpy(rows).to(device, non_blocking=True)
        # Segments are (level, object). Repetition cuts them into rows of cells, and rows into cells.
        height, width = self._height[objects].T.reshape(-1), self._width[objects].T.reshape(-1)
        area = (height * width).view(levels, -1)
        table = (
            torch.arange(len(rows), device=device) * longest + area.cumsum(0) - area
        )  # (L, rows) coarser levels last
        shift = (self._starts + self.image[objects].unsqueeze(1) * self._cells).T.reshape(-1)
        corner = self._corner[objects].T.reshape(-1)

        segment = torch.repeat_interleave(height)
        row = torch.arange(len(segment), device=device) - (height.cumsum(0) - height)[segment]
        row_width = width[segment]
        first = row_width.cumsum(0) - row_width
        row_cell = corner[segment] + row * self._pitch.repeat_interleave(len(rows))[segment] - first
        row_place = table.view(-1)[segment] + row * row_width - first

        pair_row = torch.repeat_interleave(row_width, output_size=total)
        index = torch.arange(total, device=device)
        pair_segment = segment[pair_row]
        cell = index + row_cell[pair_row]
        target = objects.repeat(levels)[pair_segment]
        return Pairs(
            objects=objects,
            truth=self.truth.take(target),
            target=target,
            image=self.image[target],
            classes=self.classes[target],
            anchor=cell + shift[pair_segment],
            cell=cell,
            place=index + row_place[pair_row],
            longest=longest,
            sizes=[int(n) for n in counts.sum(0)],
        )


def chunks(lengths: npt.NDArray[np.int64], budget: int) -> Iterator[npt.NDArray[np.int64]]:
    """Splits rows of unequal length into groups whose padded table (rows x longest) fits the budget, if one row does."""
    if not len(lengths):
        return
    if len(lengths) * int(lengths.max()) <= budget:
        yield np.arange(len(lengths))
        return
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order) and (longest := int(lengths[order[start]])) > 0:
        stop = start + max(1, budget // longest)
        yield order[start:stop]
        start = stop


def _enlarge(boxes: Tensor, side: float) -> Tensor:
    """Grows sides shorter than `side` about the centre; boxes (G, 4)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    short, middle = (high - low) < side, (low + high) / 2
    return torch.cat(
        (torch.where(short, middle - side / 2, low), torch.where(short, middle + side / 2, high)), 1
    )
