"""Task-aligned assignment of anchors to objects, computed over candidate pairs instead of dense tables.

Rule (TOOD, arXiv 2108.07755, with the constants of YOLOv9): every object picks the anchors inside its box
with the highest score^alpha * overlap^beta (score of its class, overlap = CIoU with the predicted box, at
least 0); an anchor picked by several objects goes to the one it overlaps most.

Unusual here:
* No (B, objects, anchors) tensor is ever made: see `candidates`.
* A contested anchor is given to the object of the image with the largest overlap even when that object did
  not pick the anchor or does not contain it. Trained networks and golden numbers depend on this;
  `contest="candidates"` restricts it to objects that contain the anchor.
* Pairs whose metric is 0 are never picked. (Implementations that take the top k of a dense table let them
  through with a target score of 0, chosen by the accident of how a sort breaks ties.)

Dimensions: B images, U candidate anchors of the batch, G objects, C classes, P assigned anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from holdfast.geometry.iou import BoxParts, box_parts, ciou_of_parts
from holdfast.losses.candidates import MARGIN, Candidates, chunks
from holdfast.losses.maps import values

_EPS = 1e-9


class Assignment(NamedTuple):
    """Anchors that have an object, sorted by (level, image, cell).

    Attributes:
        anchor: (P,) int64, ascending, number among the candidates.
        target: (P,) int64, row of the targets.
        score: (P,) float32, target score of the object's class, in (0, 1].
        sizes: assigned anchors of each level.
    """

    anchor: Tensor
    target: Tensor
    score: Tensor
    sizes: list[int]


@torch.no_grad()
def assign(
    logits: Sequence[Tensor],
    boxes: Tensor,
    candidates: Candidates,
    *,
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    second_topk: int | None = None,
    contest: Literal["all", "candidates"] = "all",
) -> Assignment:
    """Assigns anchors to objects and gives each its target score.

    Args:
        logits: per level (B, C, H, W) class logits, any float dtype and memory format.
        boxes: (U, 4) float32 predicted boxes at the candidate anchors, xyxy in input pixels.
        candidates: the objects, and the anchors inside them.
        topk: anchors an object may pick.
        alpha: exponent of the score.
        beta: exponent of the overlap.
        second_topk: anchors an object may keep once contested anchors are settled; None keeps all.
        contest: which objects of the image may win a contested anchor.
    """
    predicted = box_parts(boxes)
    picked, picker = _pick(logits, predicted, candidates, topk, alpha, beta)
    owner = torch.full((len(boxes),), -1, dtype=torch.int64, device=picked.device)
    owner[picked] = picker
    contested = (torch.bincount(picked, minlength=len(owner)) > 1).nonzero().squeeze(1)
    if len(contested):
        owner[contested] = _settle(contested, predicted, candidates, contest)
    anchor = (owner >= 0).nonzero().squeeze(1)
    target = owner.index_select(0, anchor)
    sizes = _sizes(anchor, candidates)
    image, cell = candidates.of_image.index_select(0, anchor), candidates.cell.index_select(0, anchor)
    score = _class_score(logits, sizes, image, candidates.classes.index_select(0, target), cell)
    overlap = _overlap(candidates.truth.take(target), predicted.take(anchor))
    metric = score**alpha * overlap**beta
    if second_topk is not None:
        keep = _best_of_each(metric, target, second_topk)
        anchor, target, overlap, metric = (x.index_select(0, keep) for x in (anchor, target, overlap, metric))
        sizes = _sizes(anchor, candidates)
    objects = len(candidates.image)
    best_metric = metric.new_zeros(objects).scatter_reduce_(0, target, metric, "amax")
    best_overlap = overlap.new_zeros(objects).scatter_reduce_(0, target, overlap, "amax")
    aligned = metric / (best_metric.index_select(0, target) + _EPS) * best_overlap.index_select(0, target)
    return Assignment(anchor, target, aligned, sizes)


def _sizes(anchor: Tensor, candidates: Candidates) -> list[int]:
    counts: list[int] = (
        candidates.level.index_select(0, anchor).bincount(minlength=candidates.levels).tolist()
    )
    return counts


def _pick(
    logits: Sequence[Tensor],
    predicted: BoxParts,
    candidates: Candidates,
    topk: int,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Lets every object pick its best anchors: candidate number and object of every pick."""
    nothing = candidates.image[:0]
    picked, picker = [nothing], [nothing]
    for pairs in candidates.pairs():
        score = _class_score(logits, pairs.sizes, pairs.image, pairs.classes, pairs.cell)
        metric = score**alpha * _overlap(pairs.truth, predicted.take(pairs.anchor)) ** beta
        rows = len(pairs.objects)
        table = metric.new_zeros(rows * pairs.longest)
        table[pairs.place] = metric
        number = torch.zeros_like(table, dtype=torch.int64)
        number[pairs.place] = pairs.anchor
        value, column = table.view(rows, -1).topk(min(topk, pairs.longest), dim=1)
        row, rank = (value > 0).nonzero(as_tuple=True)
        picked.append(number[row * pairs.longest + column[row, rank]])
        picker.append(pairs.objects[row])
    return torch.cat(picked), torch.cat(picker)


def _settle(
    contested: Tensor, predicted: BoxParts, candidates: Candidates, contest: Literal["all", "candidates"]
) -> Tensor:
    """Gives contested anchors to the object of their image with the largest overlap, the first on ties."""
    per_image = torch.bincount(candidates.image, minlength=candidates.batch)
    first = per_image.cumsum(0) - per_image
    image = candidates.of_image.index_select(0, contested)
    lengths = per_image[image]
    host = lengths.cpu().numpy()
    winner = torch.empty_like(contested)
    for rows in chunks(host, candidates.chunk):
        part = torch.from_numpy(rows).to(contested.device, non_blocking=True)
        anchor = contested[part]
        column = torch.arange(int(host[rows].max()), device=contested.device)
        real = column < lengths[part].unsqueeze(1)  # (rows, objects of the fullest image)
        rival = first[image[part]].unsqueeze(1) + torch.where(real, column, 0)
        overlap = _overlap(candidates.truth.take(rival), predicted.take(anchor).column())
        if contest == "candidates":
            point = (candidates.point[anchor] * candidates.stride[anchor].unsqueeze(1)).unsqueeze(1)
            box = candidates.reach[rival]
            gap = torch.minimum(point - box[..., :2], box[..., 2:] - point).amin(-1)
            real = real & (gap > MARGIN)
        best = overlap.masked_fill_(~real, -1.0).argmax(1, keepdim=True)
        winner[part] = rival.gather(1, best).squeeze(1)
    return winner


def _overlap(truth: BoxParts, predicted: BoxParts) -> Tensor:
    return ciou_of_parts(truth, predicted).clamp_(min=0)


def _class_score(
    logits: Sequence[Tensor], sizes: list[int], image: Tensor, classes: Tensor, cell: Tensor
) -> Tensor:
    """Probabilities at (image, class, cell) of entries sorted by level."""
    parts, start = [], 0
    for level, size in zip(logits, sizes, strict=True):
        here = slice(start, start + size)
        parts.append(values(level.detach(), image[here], classes[here], cell[here]))
        start += size
    return torch.cat(parts).float().sigmoid_()


def _best_of_each(metric: Tensor, target: Tensor, count: int) -> Tensor:
    """Indices, ascending, of the `count` highest metrics of each target."""
    order = metric.argsort(descending=True, stable=True)
    order = order[target[order].argsort(stable=True)]
    group = target[order]
    new = torch.ones_like(group, dtype=torch.bool)
    new[1:] = group[1:] != group[:-1]
    index = torch.arange(len(order), device=order.device)
    rank = index - torch.where(new, index, 0).cummax(0).values
    return order[rank < count].sort().values
