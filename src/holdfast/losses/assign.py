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

A GPU is waited for where the host has to know how long a result is: once for the candidates of a batch, once
for each branch (assigned and contested anchors), and once more with `second_topk`. Upper bounds would not do:
the tables of all images would be as large as that of the fullest.

Dimensions: B images, U candidate anchors of the batch, G objects, C classes, P assigned anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from holdfast.geometry.anchors import constant
from holdfast.losses.candidates import Candidates, chunks, true_at
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
    owner = picker.new_full((len(candidates.cell) + 1,), -1)  # the last is of nobody
    owner[picked] = picker
    times = torch.zeros_like(owner).index_add_(0, picked, torch.ones_like(picked))[:-1]
    taken, contested = times > 0, times > 1
    ranks = torch.stack((taken, contested)).cumsum(1)
    per_block = _up_to(ranks, candidates.ends).cpu().numpy()  # (2, L * B)
    sizes = np.diff(per_block[0, candidates.batch - 1 :: candidates.batch], prepend=0)
    rivals = np.diff(per_block[1], prepend=0)
    if rivals.any():
        anchor = true_at(contested, ranks[1] - 1, int(rivals.sum()))
        lengths = np.repeat(np.tile(candidates.objects, candidates.levels), rivals)
        owner[anchor] = _settle(anchor, lengths, overlap, candidates, contest)
    anchor = true_at(taken, ranks[0] - 1, int(sizes.sum()))
    target = owner.index_select(0, anchor)
    image, cell = candidates.of_image.index_select(0, anchor), candidates.cell.index_select(0, anchor)
    score = _class_score(
        logits, sizes.tolist(), image, candidates.classes.index_select(0, target), cell
    )
    shared = overlap(target, anchor)
    metric = score**alpha * shared**beta
    if second_topk is not None:
        keep = _best_of_each(metric, target, second_topk)
        rank = keep.cumsum(0)
        sizes = np.diff(_up_to(rank, constant(np.cumsum(sizes), device=rank.device)).cpu().numpy(), prepend=0)
        kept = true_at(keep, rank - 1, int(sizes.sum()))
        anchor, target, shared, metric = (x.index_select(0, kept) for x in (anchor, target, shared, metric))
    objects = len(candidates.image)
    best_metric = metric.new_zeros(objects).scatter_reduce_(0, target, metric, "amax")
    best_overlap = shared.new_zeros(objects).scatter_reduce_(0, target, shared, "amax")
    aligned = metric / (best_metric.index_select(0, target) + _EPS) * best_overlap.index_select(0, target)
    return Assignment(anchor, target, aligned, sizes.tolist())


def _up_to(ranks: Tensor, ends: Tensor) -> Tensor:
    """Of running sums (..., N), those of the first `ends` entries; 0 for none."""
    return torch.cat((ranks.new_zeros(*ranks.shape[:-1], 1), ranks), -1).index_select(-1, ends)


def _pick(
    logits: Sequence[Tensor],
    overlap: Overlap,
    candidates: Candidates,
    topk: int,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Lets every object pick its best anchors: candidate number and object of every pick. Picks that are left
    over have the number after the last candidate.
    """
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
        chosen = number.view(rows, -1).gather(1, column)
        picked.append(torch.where(value > 0, chosen, len(candidates.level)).flatten())
        picker.append(pairs.objects.repeat_interleave(column.shape[1]))
    return torch.cat(picked), torch.cat(picker)


def _settle(
    contested: Tensor,
    rivals: npt.NDArray[np.int64],
    overlap: Overlap,
    candidates: Candidates,
    contest: Literal["all", "candidates"],
) -> Tensor:
    """Gives contested anchors to the object of their image with the largest overlap, the first on ties.

    Args:
        contested: candidate numbers.
        rivals: objects of the image of each, on the host.
    """
    first = candidates.per_image.cumsum(0) - candidates.per_image
    image = candidates.of_image.index_select(0, contested)
    lengths = candidates.per_image.index_select(0, image)
    winner = torch.empty_like(contested)
    for rows in chunks(rivals, candidates.chunk):
        part = torch.from_numpy(rows).to(contested.device, non_blocking=True)
        anchor = contested[part]
        column = torch.arange(int(rivals[rows].max()), device=contested.device)
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
    """Which (P,) are among the `count` highest metrics of their target."""
    order = metric.argsort(descending=True, stable=True)
    order = order[target[order].argsort(stable=True)]
    group = target[order]
    new = torch.ones_like(group, dtype=torch.bool)
    new[1:] = group[1:] != group[:-1]
    index = torch.arange(len(order), device=order.device)
    rank = index - torch.where(new, index, 0).cummax(0).values
    return torch.zeros_like(new).index_copy_(0, order, rank < count)
