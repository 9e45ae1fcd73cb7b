"""Task-aligned assignment of anchors to objects, computed over candidate pairs instead of dense tables.

Rule (TOOD, arXiv 2108.07755, with the constants of YOLOv9): every object picks the anchors inside its box
with the highest score^alpha * overlap^beta (score of its class; overlap with what is predicted there, at
least 0: of boxes the CIoU, other tasks have measures of their own in `overlap`); an anchor picked by several
objects goes to the one it overlaps most.

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

from holdfast.losses.candidates import Candidates, chunks
from holdfast.losses.maps import values
from holdfast.losses.overlap import Overlap

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
    overlap: Overlap,
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
        overlap: of objects with what is predicted at the candidate anchors.
        candidates: the objects, and the anchors inside them.
        topk: anchors an object may pick.
        alpha: exponent of the score.
        beta: exponent of the overlap.
        second_topk: anchors an object may keep once contested anchors are settled; None keeps all.
        contest: which objects of the image may win a contested anchor.
    """
    picked, picker = _pick(logits, overlap, candidates, topk, alpha, beta)
    owner = torch.full((len(candidates.cell),), -1, dtype=torch.int64, device=picked.device)
    owner[picked] = picker
    contested = (torch.bincount(picked, minlength=len(owner)) > 1).nonzero().squeeze(1)
    if len(contested):
        owner[contested] = _settle(contested, overlap, candidates, contest)
    anchor = (owner >= 0).nonzero().squeeze(1)
    target = owner.index_select(0, anchor)
    sizes = _sizes(anchor, candidates)
    image, cell = candidates.of_image.index_select(0, anchor), candidates.cell.index_select(0, anchor)
    score = _class_score(logits, sizes, image, candidates.classes.index_select(0, target), cell)
    shared = overlap(target, anchor)
    metric = score**alpha * shared**beta
    if second_topk is not None:
        keep = _best_of_each(metric, target, second_topk)
        anchor, target, shared, metric = (x.index_select(0, keep) for x in (anchor, target, shared, metric))
        sizes = _sizes(anchor, candidates)
    objects = len(candidates.image)
    best_metric = metric.new_zeros(objects).scatter_reduce_(0, target, metric, "amax")
    best_overlap = shared.new_zeros(objects).scatter_reduce_(0, target, shared, "amax")
    aligned = metric / (best_metric.index_select(0, target) + _EPS) * best_overlap.index_select(0, target)
    return Assignment(anchor, target, aligned, sizes)


def _sizes(anchor: Tensor, candidates: Candidates) -> list[int]:
    counts: list[int] = (
        candidates.level.index_select(0, anchor).bincount(minlength=candidates.levels).tolist()
    )
    return counts


def _pick(
    logits: Sequence[Tensor],
    overlap: Overlap,
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
        metric = score**alpha * overlap.of_pairs(pairs, score) ** beta
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
    contested: Tensor, overlap: Overlap, candidates: Candidates, contest: Literal["all", "candidates"]
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
        if contest == "candidates":
            real = real & candidates.holds(rival, anchor.unsqueeze(1))
        shared = overlap(rival, anchor.unsqueeze(1))
        best = shared.masked_fill_(~real, -1.0).argmax(1, keepdim=True)
        winner[part] = rival.gather(1, best).squeeze(1)
    return winner


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
