"""Candidate pairs of the assigner: which anchors lie inside which objects, listed without testing every pair.

The cells inside a box form a rectangle on each level, found by arithmetic (`geometry.anchors.cells_inside`).
Work and memory follow the number of cells inside boxes, and pairs are handed out in chunks of bounded size,
so memory does not grow with the number of objects of an image. All of this depends on the ground truth alone:
several branches share one list.

Of rotated boxes the upright hull is listed; pairs outside of the box itself have no overlap (`holds`).

An anchor that lies in no box plays no part, so anchors that lie in some box ("candidates") are numbered by
themselves: level, then image, then row, then column. Those of one level are one range of numbers.

A GPU is asked for counts once: what the lists of a chunk will be long is known on the host from then on.

Dimensions: B images, L levels, U candidate anchors of the batch, G objects, M candidate pairs of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.geometry.anchors import CellRanges, anchor_points, cells_inside, constant
from holdfast.geometry.iou import BoxParts, box_parts
from holdfast.geometry.rotated import inside_rotated, rotated_hull
from holdfast.geometry.targets import Targets

MARGIN = 1e-9  # an anchor on the edge of a box, or this near to it (pixels), is outside
_SLACK = 1e-3  # pixels by which the hull of a rotated box is listed wider than it is
_CHUNK_HOST = 1 << 18  # most pairs at a time: the dozen arrays of a chunk stay in the cache of a core
_CHUNK_DEVICE = 1 << 23
PAIR_BYTES = 192  # of a pair in all arrays that are alive together, counted


class Pairs(NamedTuple):
    """Candidate pairs of some objects, sorted by (level, object, cell).

    Attributes:
        objects: (rows,) int64, the objects of this chunk.
        target: (M,) int64, the object.
        truth: (M,) parts of the object's box.
        image: (M,) int64, its image.
        classes: (M,) int64, its class.
        cell: (M,) int64, position of the anchor in the map of its level and image.
        anchor: (M,) int64, number of the anchor among the candidates.
        place: (M,) int64, position in a (rows, longest) table, one row per object.
        longest: most pairs of one object.
        sizes: pairs of each level.
    """

    objects: Tensor
    target: Tensor
    truth: BoxParts
    image: Tensor
    classes: Tensor
    cell: Tensor
    anchor: Tensor
    place: Tensor
    longest: int
    sizes: list[int]


class Candidates:
    """Objects of a batch with the anchors inside them.

    Attributes:
        batch: B.
        levels: L.
        image, classes: (G,) int64 of the objects.
        truth: (G,) parts of their boxes.
        reach: (G, 4) boxes of the test "inside"; of rotated boxes their hull.
        turned: (G, 5) rotated boxes of that test, or None.
        level, of_image, cell: (U,) int64, where each candidate anchor is.
        point: (U, 2) float32, x and y of the anchor in cells of its level.
        stride: (U,) float32, input pixels per cell.
        sizes: candidate anchors of each level.
        ends: (L * B,) int64, candidate anchors up to the end of each image on each level.
        objects: (B,) of each image, on the host; `per_image` the same on the device.
        chunk: pairs held at a time.
    """

    def __init__(
        self,
        targets: Targets,
        *,
        batch: int,
        shapes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        smallest_side: float = 0.0,
        gated: bool = False,
        memory: int | None = None,
    ) -> None:
        """Measures the objects and finds the anchors inside any of them; pairs are listed later, by `pairs`.

        Args:
            targets: ground truth, sorted by image. Objects without area or with non-finite corners have no
                candidates.
            batch: B.
            shapes: (height, width) of each level in cells.
            strides: input pixels per cell of each level.
            smallest_side: for the test "inside the box" only, shorter sides count as this long (pixels).
            gated: whether objects keep to levels that fit their size: a stride s is for boxes whose area has
                a root of 2 s to 12 s, the first also for smaller ones and the last also for larger ones.
                Objects left without any anchor keep all.
            memory: bytes that the pairs held at a time, and what is made of them, may take; at least those
                of one object are held, and no more than the device has use for. None takes the latter.
        """
        device = targets.boxes.device
        boxes = torch.where(torch.isfinite(targets.boxes).all(-1, keepdim=True), targets.boxes, 0.0).float()
        self.batch, self.levels = batch, len(shapes)
        self.image, self.classes = targets.image, targets.classes
        self.truth = box_parts(boxes)
        self.turned = None if targets.rotated is None else _enlarge_rotated(targets.rotated, smallest_side)
        if self.turned is not None:
            self.reach = rotated_hull(self.turned)
        else:
            self.reach = _enlarge(boxes, smallest_side) if smallest_side > 0 else boxes
        self.chunk = _CHUNK_HOST if device.type == "cpu" else _CHUNK_DEVICE
        if memory is not None:
            self.chunk = max(min(self.chunk, memory // PAIR_BYTES), 1)

        margin = MARGIN if self.turned is None else -_SLACK
        ranges = cells_inside(self.reach, shapes, strides, margin=margin)
        self._levels = _fitting(boxes, ranges, strides) if gated else None
        if self._levels is not None:
            ranges = ranges._replace(width=ranges.width * self._levels)
        self._width = ranges.width
        self._height = torch.where(ranges.width > 0, ranges.height, 0)
        self._pitch = constant([w for _, w in shapes], device=device)
        self._corner = ranges.y * self._pitch + ranges.x  # (G, L) first cell
        self._only: Pairs | None = None

        cells = np.array([h * w for h, w in shapes])
        blocks = np.repeat(cells, batch)  # anchors of each image on each level
        self._cells = constant(cells.tolist(), device=device)
        self._starts = constant((np.cumsum(batch * cells) - batch * cells).tolist(), device=device)
        covered = torch.cat([_covered(ranges, self.image, i, batch, shape) for i, shape in enumerate(shapes)])
        self._rank = covered.cumsum(0) - 1  # candidate number of every anchor
        self.ends = self._rank.index_select(0, constant(np.cumsum(blocks) - 1, device=device)) + 1
        self.per_image = self.image.new_zeros(batch).index_add_(0, self.image, torch.ones_like(self.image))
        counts = self._width * self._height  # (G, L)
        told = [self.ends, self.per_image, self._height.sum(1), counts.flatten()]
        ends, self.objects, self._rows, flat = np.split(  # the one transfer that plans the chunks
            torch.cat(told).cpu().numpy(), np.cumsum([len(x) for x in told])[:-1]
        )
        self._counts = flat.reshape(-1, self.levels)
        self.sizes = np.diff(ends[batch - 1 :: batch], prepend=0).tolist()
        number = true_at(covered, self._rank, sum(self.sizes))  # level, image and cell in one
        self.level = torch.bucketize(number, self._starts, right=True) - 1
        within = number - self._starts.index_select(0, self.level)
        per_image = self._cells.index_select(0, self.level)
        self.of_image = torch.div(within, per_image, rounding_mode="floor")
        self.cell = within - self.of_image * per_image
        points, steps = anchor_points(shapes, strides, device=device)
        index = self.cell + (self._cells.cumsum(0) - self._cells).index_select(0, self.level)
        self.point, self.stride = points.index_select(0, index), steps.index_select(0, index)

    def holds(self, objects: Tensor, anchors: Tensor) -> Tensor:
        """Whether objects have candidate anchors among theirs; int64 numbers that broadcast."""
        point = (self.point * self.stride.unsqueeze(1))[anchors]
        if self.turned is not None:
            return inside_rotated(point, self.turned[objects])
        box = self.reach[objects]
        inside = torch.minimum(point - box[..., :2], box[..., 2:] - point).amin(-1) > MARGIN
        if self._levels is not None:
            inside = inside & self._levels[objects, self.level[anchors]]
        return inside

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

    def _list(self, rows: npt.NDArray[np.int64]) -> Pairs:
        counts = self._counts[rows]
        device = self._corner.device
        longest, total = int(counts.sum(1).max()), int(counts.sum())
        objects = torch.from_numpy(rows).to(device, non_blocking=True)
        # Segments are (level, object). Repetition cuts them into rows of cells, and rows into cells.
        height, width = (x.index_select(0, objects).T.reshape(-1) for x in (self._height, self._width))
        corner = self._corner.index_select(0, objects).T.reshape(-1)
        area = (height * width).view(self.levels, -1)
        table = torch.arange(len(rows), device=device) * longest + area.cumsum(0) - area  # (L, rows)
        image = self.image.index_select(0, objects)
        shift = (self._starts.unsqueeze(1) + image * self._cells.unsqueeze(1)).view(-1)

        segment = torch.repeat_interleave(height, output_size=int(self._rows[rows].sum()))
        row = torch.arange(len(segment), device=device) - (height.cumsum(0) - height).index_select(0, segment)
        row_width = width.index_select(0, segment)
        first = row_width.cumsum(0) - row_width
        pitch = self._pitch.repeat_interleave(len(rows)).index_select(0, segment)
        row_cell = corner.index_select(0, segment) + row * pitch - first
        row_place = table.view(-1).index_select(0, segment) + row * row_width - first

        pair_row = torch.repeat_interleave(row_width, output_size=total)
        index = torch.arange(total, device=device)
        pair_segment = segment.index_select(0, pair_row)
        cell = index + row_cell.index_select(0, pair_row)
        target = objects.repeat(self.levels).index_select(0, pair_segment)
        return Pairs(
            objects=objects,
            target=target,
            truth=self.truth.take(target),
            image=self.image.index_select(0, target),
            classes=self.classes.index_select(0, target),
            cell=cell,
            anchor=self._rank.index_select(0, cell + shift.index_select(0, pair_segment)),
            place=index + row_place.index_select(0, pair_row),
            longest=longest,
            sizes=counts.sum(0).tolist(),
        )


def chunks(lengths: npt.NDArray[np.int64], budget: int) -> Iterator[npt.NDArray[np.int64]]:
    """Splits rows of unequal length into groups whose padded table (rows x longest) fits the budget."""
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


def true_at(mask: Tensor, rank: Tensor, count: int) -> Tensor:
    """Ascending positions of the true entries of a mask, without asking a device how many there are.

    Args:
        mask: (N,) bool.
        rank: (N,) int64, number of each true entry among them, from 0.
        count: how many are true.
    """
    if mask.device.type == "cpu":
        return mask.nonzero().squeeze(1)  # quicker there
    return scattered(mask, rank, count)


def scattered(mask: Tensor, rank: Tensor, count: int) -> Tensor:
    """What `true_at` does on a device: every entry writes its position, those that are not true into one
    place behind the others.
    """
    place = torch.where(mask, rank, count)
    positions = torch.arange(len(mask), device=mask.device)
    return torch.zeros(count + 1, dtype=torch.int64, device=mask.device).scatter_(0, place, positions)[:count]


def _covered(ranges: CellRanges, image: Tensor, level: int, batch: int, shape: tuple[int, int]) -> Tensor:
    """Which cells of a level any rectangle covers: (B * H * W,) bool.

    Rectangles are added as four signed corners; running sums over rows and columns then count them at every
    cell.
    """
    height, width = shape[0] + 1, shape[1] + 1
    x, y, w, h = (field[:, level] for field in ranges)
    w, h = torch.where(h > 0, w, 0), torch.where(w > 0, h, 0)
    low = (image * height + y) * width + x
    high = low + h * width
    corner = torch.cat((low, low + w, high, high + w))
    sign = constant([1, -1, -1, 1], dtype=torch.int32, device=x.device).repeat_interleave(len(x))
    count = torch.zeros(batch * height * width, dtype=torch.int32, device=x.device).index_add_(
        0, corner, sign
    )
    table = count.view(batch, height, width).cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
    return (table[:, :-1, :-1] > 0).reshape(-1)


def _enlarge(boxes: Tensor, side: float) -> Tensor:
    """Grows sides shorter than `side` about the centre; boxes (G, 4)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    short, middle = (high - low) < side, (low + high) / 2
    return torch.cat(
        (torch.where(short, middle - side / 2, low), torch.where(short, middle + side / 2, high)), 1
    )


def _enlarge_rotated(boxes: Tensor, side: float) -> Tensor:
    """Grows shorter sides of boxes (G, 5) to `side`; empty and non-finite boxes get none."""
    real = torch.isfinite(boxes).all(-1, keepdim=True) & (boxes[:, 2:4] > 0).all(-1, keepdim=True)
    sides = torch.where(real, boxes[:, 2:4].clamp(min=side), -1.0)
    return torch.cat((torch.where(real, boxes[:, :2], 0.0), sides, torch.where(real, boxes[:, 4:], 0.0)), 1)


def _fitting(boxes: Tensor, ranges: CellRanges, strides: Sequence[int]) -> Tensor:
    """Which levels (G, L) objects keep to."""
    root = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=0).sqrt().unsqueeze(1)
    stride = constant(list(strides), dtype=root.dtype, device=root.device).unsqueeze(0)
    low, high = 2 * stride, 12 * stride
    low[:, 0], high[:, -1] = 0, float("inf")
    fits = (root >= low) & (root <= high)
    any_left = (fits & (ranges.width * ranges.height > 0)).any(1, keepdim=True)
    return fits | ~any_left
