"""Task-aligned assignment of anchors to objects, computed over candidate pairs instead of dense tables.

Rule (TOOD, arXiv 2108.07755, with the constants of YOLOv9): every object picks the anchors inside its box with the
highest score^alpha * overlap^beta (score of its class, overlap = CIoU with the predicted box, at least 0); an anchor
picked by several objects goes to the one it overlaps most.

Unusual here:
* Candidates are enumerated: the cells inside a box are a rectangle on every level, found by arithmetic. Work and
  memory follow the number of (object, cell inside it) pairs, and the pairs are taken in chunks of bounded size, so
  memory does not grow with the number of objects in an image. No (B, objects, anchors) tensor is ever made.
* A contested anchor is given to the object of the image with the largest overlap even when that object did not pick
  the anchor or does not contain it. Trained networks and golden numbers depend on this; `contest="candidates"`
  restricts it to objects that contain the anchor.
* Pairs whose metric is 0 are never picked. (Implementations that take the top k of a dense table let them through with
  a target score of 0, chosen by the accident of how a sort breaks ties.)

Dimensions: B images, A anchors per image, G objects, C classes, M candidate pairs of a chunk, P assigned anchors, L
levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from holdfast.geometry.anchors import CellRanges, anchor_points, cells_inside
from holdfast.geometry.iou import BoxParts, box_parts, ciou_of_parts
from holdfast.geometry.targets import Targets

_EPS = 1e-9
_CHUNK_HOST = 1 << 18  # pairs at a time: the dozen arrays of a chunk stay in the cache of a core
_CHUNK_DEVICE = 1 << 23


class Assignment(NamedTuple):
    """Anchors that have an object, ascending by (image, anchor).

    Attributes:
        image: (P,) int64.
        anchor: (P,) int64, index among the A anchors of the image.
        target: (P,) int64, row of the targets.
        score: (P,) float32, target score of the object's class, in (0, 1].
    """

    image: Tensor
    anchor: Tensor
    target: Tensor
    score: Tensor


class _Scene(NamedTuple):
    """What all steps look at; predictions are flat over images and anchors (B * A)."""

    logits: tuple[Tensor, ...]  # per level (B, C, cells)
    offsets: tuple[int, ...]  # first anchor of each level
    anchors: int
    predicted: BoxParts  # (B * A,)
    truth: BoxParts  # (G,)
    image: Tensor  # (G,)
    classes: Tensor  # (G,)
    alpha: float
    beta: float


@torch.no_grad()
def assign(
    logits: Sequence[Tensor],
    boxes: Tensor,
    targets: Targets,
    *,
    strides: Sequence[int],
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    second_topk: int | None = None,
    smallest_side: float = 0.0,
    contest: Literal["all", "candidates"] = "all",
    chunk: int | None = None,
) -> Assignment:
    """Assigns anchors to objects and gives each its target score.

    Args:
        logits: per level (B, C, H, W) class logits, any float dtype and memory format.
        boxes: (B, A, 4) float32 predicted boxes, xyxy in input pixels.
        targets: ground truth, sorted by image. Objects without area or with non-finite corners get nothing.
        strides: input pixels per cell of each level.
        topk: anchors an object may pick.
        alpha: exponent of the score.
        beta: exponent of the overlap.
        second_topk: anchors an object may keep once contested anchors are settled; None keeps all.
        smallest_side: for the test "inside the box" only, shorter sides count as this long (pixels).
        contest: which objects of the image may win a contested anchor.
        chunk: pairs held at a time; None chooses by device.
    """
    device = boxes.device
    batch, anchors = boxes.shape[:2]
    shapes = [(int(level.shape[2]), int(level.shape[3])) for level in logits]
    cells = [h * w for h, w in shapes]
    truth = torch.where(torch.isfinite(targets.boxes).all(-1, keepdim=True), targets.boxes, 0.0)
    scene = _Scene(
        logits=tuple(level.detach().flatten(2) for level in logits),
        offsets=tuple(int(x) for x in np.cumsum([0, *cells[:-1]])),
        anchors=anchors,
        predicted=box_parts(boxes.reshape(-1, 4).float()),
        truth=box_parts(truth.float()),
        image=targets.image,
        classes=targets.classes,
        alpha=alpha,
        beta=beta,
    )
    if chunk is None:
        chunk = _CHUNK_HOST if device.type == "cpu" else _CHUNK_DEVICE
    reach = _enlarge(truth, smallest_side) if smallest_side > 0 else truth
    ranges = cells_inside(reach, shapes, strides, margin=_EPS)
    picked, picker = _pick(scene, ranges, [w for _, w in shapes], topk, chunk)

    owner = torch.full((batch * anchors,), -1, dtype=torch.int64, device=device)
    owner[picked] = picker
    contested = (torch.bincount(picked, minlength=batch * anchors) > 1).nonzero().squeeze(1)
    if len(contested):
        inside = (shapes, strides, reach) if contest == "candidates" else None
        owner[contested] = _settle(scene, contested, batch, chunk, inside)
    flat = (owner >= 0).nonzero().squeeze(1)
    target = owner[flat]
    overlap = _overlap(scene, target, flat)
    metric = _class_score(scene, target, flat) ** alpha * overlap**beta
    if second_topk is not None:
        keep = _best_of_each(metric, target, second_topk)
        flat, target, overlap, metric = flat[keep], target[keep], overlap[keep], metric[keep]
    count = len(truth)
    best_metric = metric.new_zeros(count).scatter_reduce_(0, target, metric, "amax")
    best_overlap = overlap.new_zeros(count).scatter_reduce_(0, target, overlap, "amax")
    score = metric / (best_metric[target] + _EPS) * best_overlap[target]
    image = torch.div(flat, anchors, rounding_mode="floor")
    return Assignment(image, flat - image * anchors, target, score)


def _pick(
    scene: _Scene, ranges: CellRanges, widths: Sequence[int], topk: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """Lets every object pick its best anchors: flat anchor and object of every pick."""
    counts = (ranges.width * ranges.height).cpu().numpy()  # (G, L); the one transfer that plans the chunks
    device = scene.image.device
    offset = torch.tensor(scene.offsets, device=device)
    pitch = torch.tensor(list(widths), device=device)
    corner = (
        scene.image.unsqueeze(1) * scene.anchors + offset + ranges.y * pitch + ranges.x
    )  # (G, L) flat anchor
    picked, picker = [], []
    for rows in _chunks(counts.sum(1), chunk):
        part = counts[rows]
        if not part.any():
            continue
        objects = torch.from_numpy(rows).to(device, non_blocking=True)
        anchor, place, sizes, longest = _enumerate(ranges, corner, pitch, objects, part)
        # Pairs are sorted by (level, object, cell): one slice per level.
        local = torch.div(place, longest, rounding_mode="floor")
        pair_object = objects[local]
        overlap = _overlap(scene, pair_object, anchor)
        logit = torch.cat(
            [
                _logit_at(scene, level, o, a)
                for level, (o, a) in enumerate(
                    zip(pair_object.split(sizes), anchor.split(sizes), strict=True)
                )
            ]
        )
        metric = logit.float().sigmoid_() ** scene.alpha * overlap**scene.beta
        table = metric.new_zeros(len(rows) * longest)
        table[place] = metric
        source = torch.zeros(len(rows) * longest, dtype=torch.int64, device=device)
        source[place] = anchor
        value, column = table.view(len(rows), longest).topk(min(topk, longest), dim=1)
        good = value > 0
        picked.append(source.view(len(rows), longest).gather(1, column)[good])
        picker.append(objects.unsqueeze(1).expand_as(column)[good])
    if not picked:
        nothing = torch.zeros(0, dtype=torch.int64, device=device)
        return nothing, nothing
    return torch.cat(picked), torch.cat(picker)


def _enumerate(
    ranges: CellRanges,
    corner: Tensor,
    pitch: Tensor,
    objects: Tensor,
    counts: np.ndarray[tuple[int, int], np.dtype[np.int64]],
) -> tuple[Tensor, Tensor, list[int], int]:
    """Lists the cells inside the boxes of `objects`, sorted by (level, object, cell).

    Returns:
        The flat anchor (M,) of every pair, its place (M,) in a (objects, longest) table, pairs per level, longest.
    """
    device = corner.device
    levels = corner.shape[1]
    longest = int(counts.sum(1).max())
    sizes = [int(n) for n in counts.sum(0)]
    # Segments are (level, object); they are cut into rows of cells, and rows into cells, by repetition alone.
    height = ranges.height[objects].T.reshape(-1)
    width = ranges.width[objects].T.reshape(-1)
    height = torch.where(width > 0, height, 0)
    start = corner[objects].T.reshape(-1)
    pairs = width * height
    before = (
        pairs.view(levels, -1).cumsum(0).view(-1) - pairs
    )  # cells of coarser levels follow those of finer ones
    base = torch.arange(len(objects), device=device).repeat(levels) * longest + before
    step = pitch.repeat_interleave(len(objects))

    segment = torch.repeat_interleave(height)
    row = torch.arange(len(segment), device=device) - (height.cumsum(0) - height)[segment]
    row_width = width[segment]
    total = int(counts.sum())
    cell_row = torch.repeat_interleave(row_width, output_size=total)
    first = row_width.cumsum(0) - row_width
    shift_anchor = start[segment] + row * step[segment] - first
    shift_place = base[segment] + row * row_width - first
    index = torch.arange(total, device=device)
    return index + shift_anchor[cell_row], index + shift_place[cell_row], sizes, longest


def _settle(
    scene: _Scene,
    contested: Tensor,
    batch: int,
    chunk: int,
    inside: tuple[Sequence[tuple[int, int]], Sequence[int], Tensor] | None,
) -> Tensor:
    """Gives each contested anchor (flat index) to the object of its image with the largest overlap, first on ties."""
    device = contested.device
    per_image = torch.bincount(scene.image, minlength=batch)
    first = per_image.cumsum(0) - per_image
    image = torch.div(contested, scene.anchors, rounding_mode="floor")
    winner = torch.empty_like(contested)
    lengths = per_image[image]
    if inside is not None:
        points, steps = anchor_points(inside[0], inside[1], device=device)
        points = points * steps.unsqueeze(1)
    host = lengths.cpu().numpy()
    for rows in _chunks(host, chunk):
        part = torch.from_numpy(rows).to(device, non_blocking=True)
        anchor, own = contested[part], image[part]
        column = torch.arange(int(host[rows].max()), device=device)
        real = column < lengths[part].unsqueeze(1)  # (rows, objects of the fullest image)
        candidate = torch.where(real, first[own].unsqueeze(1) + column, first[own].unsqueeze(1))
        overlap = ciou_of_parts(scene.truth.take(candidate), scene.predicted.take(anchor).column()).clamp_(
            min=0
        )
        if inside is not None:
            point = points[anchor - own * scene.anchors].unsqueeze(1)
            box = inside[2][candidate]
            gap = torch.minimum((point - box[..., :2]).amin(-1), (box[..., 2:] - point).amin(-1))
            real = real & (gap > _EPS)
        best = overlap.masked_fill_(~real, -1.0).argmax(1, keepdim=True)
        winner[part] = candidate.gather(1, best).squeeze(1)
    return winner


def _chunks(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]], budget: int
) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Splits rows of unequal length into groups whose padded table (rows x longest) fits the budget."""
    if not len(lengths):
        return
    if len(lengths) * int(lengths.max()) <= budget:
        yield np.arange(len(lengths))
        return
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        if longest == 0:
            return
        stop = start + max(1, budget // longest)
        yield order[start:stop]
        start = stop


def _overlap(scene: _Scene, objects: Tensor, anchors: Tensor) -> Tensor:
    return ciou_of_parts(scene.truth.take(objects), scene.predicted.take(anchors)).clamp_(min=0)


def _logit_at(scene: _Scene, level: int, objects: Tensor, anchors: Tensor) -> Tensor:
    """Logits of the objects' classes at flat anchors that all lie on `level`."""
    image = scene.image[objects]
    cell = anchors - image * scene.anchors - scene.offsets[level]
    return scene.logits[level][image, scene.classes[objects], cell]


def _class_score(scene: _Scene, objects: Tensor, anchors: Tensor) -> Tensor:
    """Probabilities of the objects' classes at flat anchors of any level."""
    image = torch.div(anchors, scene.anchors, rounding_mode="floor")
    classes = scene.classes[objects]
    place = anchors - image * scene.anchors
    logit = scene.logits[0].new_zeros(len(anchors))
    for offset, level in zip(scene.offsets, scene.logits, strict=True):
        cell = place - offset
        here = (cell >= 0) & (cell < level.shape[2])
        logit = torch.where(here, level[image, classes, cell.clamp(0, level.shape[2] - 1)], logit)
    return logit.float().sigmoid_()


def _best_of_each(metric: Tensor, target: Tensor, count: int) -> Tensor:
    """Indices, ascending, of the `count` highest metrics of each target."""
    order = metric.argsort(descending=True, stable=True)
    order = order[target[order].argsort(stable=True)]
    group = target[order]
    index = torch.arange(len(order), device=order.device)
    new = torch.ones_like(group, dtype=torch.bool)
    new[1:] = group[1:] != group[:-1]
    rank = index - torch.where(new, index, 0).cummax(0).values
    return order[rank < count].sort().values


def _enlarge(boxes: Tensor, side: float) -> Tensor:
    """Grows sides shorter than `side` about the centre; boxes (G, 4)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    grown = (high - low).clamp(min=side)
    middle = (low + high) / 2
    short = (high - low) < side
    return torch.cat(
        (torch.where(short, middle - grown / 2, low), torch.where(short, middle + grown / 2, high)), 1
    )
