"""Greedy non-maximum suppression, exact, without a compiled extension.

The result is that of the textbook loop (take the best box left, drop every box of its group with IoU above
the threshold): same boxes, same order. Published programs separate classes by adding class * 7680 to
coordinates, which costs float32 precision; here groups are kept apart exactly.

Three observations make it fast. (1) The loop on the best m candidates keeps what the loop on all would keep
of them, so with `max_keep` a prefix is usually enough. (2) Boxes with IoU above t also have one-dimensional
IoU above t along both axes, which bounds the distance of their centres: where boxes are spread out, a sort
along x leaves few pairs to look at. (3) Where boxes pile up, the first few kept boxes remove nearly
everything, block by block.

Dimensions: N boxes in falling score, K boxes of one block, P pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]

_BLOCK = 64  # boxes decided at a time where boxes pile up
_TILE = 1 << 15  # elements per intermediate: a handful of them stay in the cache of one core
_CHUNK = 1 << 19  # pairs looked at one by one at a time
_EDGES = 24  # most overlapping pairs per box worth listing; beyond that boxes pile up and blocks are cheaper
_RECONSIDER = 256  # kept boxes after which the choice between the two ways is made again


def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    *,
    max_keep: int | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Suppresses boxes that overlap a better box.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,) any real numbers; equal scores are taken in index order.
        iou_threshold: a box falls when its IoU (no epsilon) with a kept box is greater than this.
        max_keep: stop after this many kept boxes.
        groups: (N,) integers; boxes of different groups never suppress each other. None means one group.

    Returns:
        Indices (at most N,) int64 of the kept boxes, falling score, on the device of `boxes`.
    """
    total = len(boxes)
    limit = total if max_keep is None else min(max_keep, total)
    if limit <= 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    order = scores.detach().argsort(descending=True, stable=True)
    for size in sorted({min(8 * limit, total), total}):  # the best few usually suffice
        best = order[:size]
        head, label = boxes.detach()[best].float(), None if groups is None else groups[best]
        if boxes.device.type == "cpu":
            kept = torch.from_numpy(_suppress_host(head.numpy(), iou_threshold, label))
        else:
            kept = _suppress_device(head, iou_threshold, label)
        if len(kept) >= limit:
            break
    return best[kept[:limit]]


def _suppress_host(boxes: _Floats, threshold: float, groups: Tensor | None) -> _Ints:
    """Returns the kept positions, ascending, of boxes (N, 4) that are in falling score."""
    columns = np.empty((5, len(boxes)), np.float32)  # x1, y1, x2, y2, area
    columns[:4] = boxes.T
    columns[4] = (columns[2] - columns[0]) * (columns[3] - columns[1])
    label = None if groups is None else groups.numpy().astype(np.int64)
    if len(boxes) > _BLOCK:
        kept = _by_pairs(columns, threshold, label, most=32 * len(boxes))
        if kept is not None:
            return kept
    if label is None:
        return _by_blocks(columns, threshold)
    by_group = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[by_group])) + 1
    parts = [part[_by_blocks(columns[:, part], threshold)] for part in np.split(by_group, cuts)]
    return np.sort(np.concatenate(parts))


def _by_blocks(columns: _Floats, threshold: float) -> _Ints:
    """Decides a block of best boxes at a time, then drops what it suppresses among the rest."""
    left = np.arange(columns.shape[1])
    kept: list[_Ints] = []
    budget = _RECONSIDER
    block = 16
    while left.size:
        if budget <= 0:
            budget = _RECONSIDER
            sparse = _by_pairs(columns, threshold, None, most=left.size**2 // 16)
            if sparse is not None:
                kept.append(left[sparse])
                break
        head = columns[:, :block]
        keep = _first_come(_overlap(head, head, threshold))
        kept.append(left[:block][keep])
        budget -= len(kept[-1])
        rest = columns[:, block:]
        alive = ~_hit(head[:, keep], rest, threshold)
        columns, left = rest[:, alive], left[block:][alive]
        block = min(_BLOCK, block * 2)
    return np.concatenate(kept)


def _first_come(overlap: _Bools) -> _Bools:
    """Solves the greedy loop within a block: overlap (K, K) -> kept (K,).

    Box j is kept when no kept box before it overlaps it. Iterating that rule from "all kept" settles box
    after box from the front, in as many rounds as the longest chain of suppressions, seldom more than five.
    """
    before = np.triu(overlap, 1).astype(np.float32)
    keep = np.ones(len(overlap), np.float32)
    while True:
        again = ((keep @ before) == 0).astype(np.float32)
        if np.array_equal(again, keep):
            return keep.astype(np.bool_)
        keep = again


def _overlap(a: _Floats, b: _Floats, threshold: float, buffers: list[_Floats] | None = None) -> _Bools:
    """IoU of a (5, K) with b (5, N) above the threshold: (K, N)."""
    shape = (a.shape[1], b.shape[1])
    w, h, t = (
        (x[: shape[0], : shape[1]] for x in buffers)
        if buffers
        else (np.empty(shape, np.float32) for _ in range(3))
    )
    ax1, ay1, ax2, ay2, area = a[:, :, None]
    np.minimum(ax2, b[2], out=w)
    np.maximum(ax1, b[0], out=t)
    w -= t
    np.maximum(w, 0, out=w)
    np.minimum(ay2, b[3], out=h)
    np.maximum(ay1, b[1], out=t)
    h -= t
    np.maximum(h, 0, out=h)
    w *= h  # intersection
    np.add(area, b[4], out=t)
    t -= w
    with np.errstate(divide="ignore", invalid="ignore"):
        w /= t
    above: _Bools = w > threshold
    return above


def _hit(head: _Floats, rest: _Floats, threshold: float) -> _Bools:
    """Which of rest (5, N) any of head (5, K) suppresses: (N,)."""
    count, total = head.shape[1], rest.shape[1]
    hit = np.zeros(total, np.bool_)
    if count == 0:
        return hit
    step = max(256, _TILE // count)
    buffers = [np.empty((count, step), np.float32) for _ in range(3)]
    for start in range(0, total, step):
        tile = rest[:, start : start + step]
        _overlap(head, tile, threshold, buffers).any(axis=0, out=hit[start : start + step])
    return hit


def _by_pairs(columns: _Floats, threshold: float, groups: _Ints | None, *, most: int) -> _Ints | None:
    """Lists the overlapping pairs and decides on that graph; None when that means looking at too many pairs.

    With one-dimensional IoU above t the centres are nearer than w (1 - t) / (2 t), w the width of either box.
    """
    if threshold <= 0:
        return None
    x1, y1, x2, y2 = columns[:4].astype(np.float64)
    reach = 1.0001 * (1 - threshold) / (2 * threshold)
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    rx, ry = (x2 - x1) * reach + 1e-3, (y2 - y1) * reach + 1e-3
    if groups is not None:
        _, rank = np.unique(groups, return_inverse=True)
        cx = cx + rank * (np.ptp(cx) + rx.max() + 1)
    order = np.argsort(cx)
    cx, cy, ry = cx[order], cy[order], ry[order]
    index = np.arange(len(order))
    count = np.maximum(np.searchsorted(cx, cx + rx[order], side="right") - index - 1, 0)
    ends = np.cumsum(count)
    if ends[-1] > most:
        return None
    better, worse, edges, start = [index[:0]], [index[:0]], 0, 0
    while start < len(order):
        done = ends[start] - count[start]
        stop = max(start + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        share = count[start:stop]
        first = np.repeat(index[start:stop], share)
        second = np.arange(len(first)) + np.repeat(
            index[start:stop] + 1 - (ends[start:stop] - share - done), share
        )
        near = np.flatnonzero(np.abs(cy[second] - cy[first]) < ry[first])
        one, two = order[first[near]], order[second[near]]
        one, two = np.minimum(one, two), np.maximum(one, two)
        edge = _overlap_of_pairs(columns, one, two, threshold)
        better.append(one[edge])
        worse.append(two[edge])
        edges += len(better[-1])
        if edges > _EDGES * len(order):
            return None
        start = stop
    return _first_come_graph(np.concatenate(better), np.concatenate(worse), len(order))


def _overlap_of_pairs(columns: _Floats, one: _Ints, two: _Ints, threshold: float) -> _Bools:
    ax1, ay1, ax2, ay2, area = (column[one] for column in columns)
    bx1, by1, bx2, by2, other = (column[two] for column in columns)
    w = np.maximum(np.minimum(ax2, bx2) - np.maximum(ax1, bx1), 0)
    h = np.maximum(np.minimum(ay2, by2) - np.maximum(ay1, by1), 0)
    inter = w * h
    with np.errstate(divide="ignore", invalid="ignore"):
        above: _Bools = inter / (area + other - inter) > threshold
    return above


def _first_come_graph(better: _Ints, worse: _Ints, size: int) -> _Ints:
    """Solves the greedy loop on a graph: pairs (P,) of positions -> kept positions, ascending."""
    alive = np.ones(size, np.bool_)
    while better.size:
        free = np.ones(size, np.bool_)
        free[worse] = False  # nobody left can suppress these: they are kept for good
        falls = worse[free[better]]
        alive[falls] = False
        down = np.zeros(size, np.bool_)
        down[falls] = True
        open_ = ~(free[better] | down[better] | down[worse])
        better, worse = better[open_], worse[open_]
    return np.flatnonzero(alive)


def _suppress_device(boxes: Tensor, threshold: float, groups: Tensor | None, block: int = 1024) -> Tensor:
    """The same by blocks with tensor operations only, for accelerators: few launches per block."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    data: list[Any] = [boxes, area, torch.arange(len(boxes), device=boxes.device)]
    if groups is not None:
        data.append(groups)
    kept = []
    while len(data[0]):
        head, rest = [x[:block] for x in data], [x[block:] for x in data]
        before = _overlap_device(head, head, threshold).triu(1)
        keep = torch.ones(len(head[0]), dtype=torch.bool, device=boxes.device)
        while True:
            again = ~(before & keep.unsqueeze(1)).any(0)
            if torch.equal(again, keep):
                break
            keep = again
        head = [x[keep] for x in head]
        kept.append(head[2])
        alive = ~_overlap_device(head, rest, threshold).any(0)
        data = [x[alive] for x in rest]
    return torch.cat(kept)


def _overlap_device(a: list[Tensor], b: list[Tensor], threshold: float) -> Tensor:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a[0].unsqueeze(1).unbind(-1), b[0].unsqueeze(0).unbind(-1)
    w = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_(min=0)
    h = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_(min=0)
    inter = w.mul_(h)
    above = inter / (a[1].unsqueeze(1) + b[1] - inter) > threshold
    return above if len(a) == 3 else above & (a[3].unsqueeze(1) == b[3])
