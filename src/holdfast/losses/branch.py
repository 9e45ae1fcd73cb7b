"""The loss of one head branch: assignment, then class, overlap and distance terms, and those of its task.

Results are numerators and normalisers, not quotients. The published losses divide by sums over the whole
batch - S, the sum of target scores, or counts of anchors, keypoints or images - of at least 1. Numerators and
sums of parts of a batch add up, quotients do not. So a batch can be split: back-propagate numerators of each
part, add up the normalisers, clamp once, and rescale. That is why normalisers are not clamped here. `combine`
is the division for a batch in one piece.

A term whose sum is negative counts as zero; only the likelihood of keypoints can be.

The distance term depends on what the maps hold. With several bins per side it is the distribution focal loss.
With one bin, the distance itself, it is the mean absolute difference of the four distances, left and right as
shares of the image's width, top and bottom of its height.

Label smoothing e spreads the mass of each target: an anchor of score t aims at (1 - e) t + e t / C for its
class and e t / C for the others. Background stays at 0 and the sum of targets, hence S, does not change; with
one class it is no smoothing at all.

Everything is computed in float32, whatever the precision of the maps and of autocast.

Tasks beyond boxes are subclasses that answer the same questions: which anchors are candidates, how much do
objects overlap what is predicted there, which terms are there (`segment`, `pose`, `obb`).

Dimensions: B images, C classes, R bins per side, P assigned anchors, U candidate anchors, T terms, L losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from holdfast.geometry.anchors import constant
from holdfast.geometry.targets import Targets
from holdfast.losses.assign import Assignment, assign
from holdfast.losses.candidates import Candidates
from holdfast.losses.maps import columns
from holdfast.losses.overlap import BoxOverlap, Overlap
from holdfast.losses.terms import (
    ciou_loss,
    distance_loss,
    distribution_focal_loss,
    expected_distance,
    soft_bce,
    take_columns,
)
from holdfast.models.outputs import Branch

_DECODE = 1 << 15  # anchors decoded at a time: bounds memory, stays in the cache


class BranchLoss(NamedTuple):
    """Loss of one branch on some images, before division.

    Attributes:
        numerators: (T,) float32 sums of the terms, with gains; box, class and distance come first.
        normalisers: (T,) float32 without gradient, what each is divided by, not clamped.
        weight: of the branch in what is back-propagated.
        shown: of the branch in what is reported.
    """

    numerators: Tensor
    normalisers: Tensor
    weight: float = 1.0
    shown: float = 1.0

    @property
    def normaliser(self) -> Tensor:
        """() the normaliser of the first term: the sum of target scores where there is assignment."""
        return self.normalisers[0]


def sums_of(losses: Sequence[BranchLoss]) -> Tensor:
    """(L, 3T) detached numerators, normalisers, and numerators as shown."""
    parts = [(x.numerators.detach(), x.normalisers, x.numerators.detach() * x.shown) for x in losses]
    return torch.stack([torch.cat(row) for row in parts])


def quotients(sums: Tensor) -> Tensor:
    """(T,) reported terms of (L, 3T) sums of a whole batch."""
    _, normalisers, shown = sums.chunk(3, 1)
    return (shown.clamp(min=0) / normalisers.clamp(min=1)).sum(0)


def combine(branches: Sequence[BranchLoss], batch: int) -> tuple[Tensor, Tensor]:
    """Divides and adds up the branches of a whole batch.

    Args:
        branches: what a loss returned.
        batch: images in the batch; the total is proportional to it, as in the published recipes.

    Returns:
        The scalar to back-propagate, and the detached (T,) items (without `batch`).
    """
    terms = [part.numerators.clamp(min=0) / part.normalisers.clamp(min=1) for part in branches]
    total = torch.stack([q * part.weight for q, part in zip(terms, branches, strict=True)]).sum()
    items = torch.stack([q.detach() * part.shown for q, part in zip(terms, branches, strict=True)]).sum(0)
    return total * batch, items


class Positives(NamedTuple):
    """Assigned anchors, sorted by (level, image, cell).

    Attributes:
        anchor: (P,) int64 number among the candidates.
        image, cell: (P,) int64, where they are.
        point: (P, 2) float32 x and y in cells of their level.
        stride: (P, 1) float32 pixels per cell.
        target: (P,) int64 row of the targets.
        score: (P,) float32 target score.
        sizes: anchors of each level.
    """

    anchor: Tensor
    image: Tensor
    cell: Tensor
    point: Tensor
    stride: Tensor
    target: Tensor
    score: Tensor
    sizes: list[int]

    @staticmethod
    def of(found: Assignment, candidates: Candidates) -> Positives:
        """The anchors that an assignment gave objects."""
        a = found.anchor
        return Positives(
            a, candidates.of_image[a], candidates.cell[a], candidates.point[a],
            candidates.stride[a].unsqueeze(1), found.target, found.score, found.sizes,
        )  # fmt: skip

    def columns(self, maps: Sequence[Tensor]) -> Tensor:
        """Channels (P, K) float32 of maps, per level (B, K, H, W), with gradients."""
        places = zip(torch.split(self.image, self.sizes), torch.split(self.cell, self.sizes), strict=True)
        return torch.cat([take_columns(x, *place) for x, place in zip(maps, places, strict=True)])


class BranchCriterion:
    """Task-aligned loss of one branch.

    Attributes:
        terms: published names of the terms.
    """

    more_terms: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        strides: Sequence[int],
        reg_max: int,
        gains: tuple[float, float, float],
        label_smoothing: float,
        topk: int,
        alpha: float,
        beta: float,
        second_topk: int | None = None,
        contest: Literal["all", "candidates"] = "all",
    ) -> None:
        """Sets up the loss.

        Args:
            strides: input pixels per cell of each level.
            reg_max: R, bins per box side; 1 means that maps hold the distance itself.
            gains: of the overlap, the class and the distance term.
            label_smoothing: share in [0, 1) of each target spread evenly over all classes.
            topk, alpha, beta, second_topk, contest: as in `losses.assign`.
        """
        self.strides = tuple(strides)
        self.reg_max = reg_max
        self.gains = gains
        self.label_smoothing = label_smoothing
        self.topk, self.alpha, self.beta = topk, alpha, beta
        self.second_topk = second_topk
        self.contest: Literal["all", "candidates"] = contest
        self.terms = ("box", "cls", "dfl" if reg_max > 1 else "l1", *self.more_terms)

    def candidates(
        self,
        branch: Branch,
        targets: Targets,
        *,
        smallest_side: float,
        gated: bool = False,
        memory: int | None = None,
    ) -> Candidates:
        """The anchors inside objects, which several branches may share.

        Args:
            smallest_side, gated, memory: as in `Candidates`.
        """
        return Candidates(
            targets,
            batch=len(branch.scores[0]),
            shapes=[(int(x.shape[2]), int(x.shape[3])) for x in branch.scores],
            strides=self.strides,
            smallest_side=smallest_side,
            gated=gated,
            memory=memory,
        )

    def overlap(self, branch: Branch, targets: Targets, candidates: Candidates) -> Overlap:
        """How much objects overlap what the branch says, without gradients."""
        return BoxOverlap(candidates, self.predicted_boxes(branch, candidates))

    def box_terms(self, branch: Branch, targets: Targets, positives: Positives) -> tuple[Tensor, Tensor]:
        """Numerators of the overlap and the distance term, without gains."""
        point, stride = positives.point, positives.stride
        sides = positives.columns(branch.boxes)  # (P, 4R)
        true_box = targets.boxes[positives.target].float() / stride  # in cells
        true_distance = torch.cat((point - true_box[:, :2], true_box[:, 2:] - point), 1)
        if self.reg_max == 1:
            distance = sides
            difference = (distance - true_distance) * self.share_of_image(branch, stride)
            distance_term = distance_loss(difference, positives.score)
        else:
            log_probability = sides.view(-1, 4, self.reg_max).log_softmax(-1)
            distance = expected_distance(log_probability)  # (P, 4)
            distance_term = distribution_focal_loss(log_probability, true_distance, positives.score)
        box = torch.cat((point - distance[:, :2], point + distance[:, 2:]), 1)
        return ciou_loss(box, true_box, positives.score), distance_term

    def further_terms(
        self, branch: Branch, targets: Targets, positives: Positives
    ) -> list[tuple[Tensor, Tensor]]:
        """Numerators, with gains, and normalisers of the terms that `more_terms` names."""
        return []

    def __call__(self, branch: Branch, targets: Targets, candidates: Candidates) -> BranchLoss:
        """Assigns anchors and measures the branch; to be called with autocast off."""
        with torch.no_grad():
            overlap = self.overlap(branch, targets, candidates)
        found = assign(
            branch.scores,
            overlap,
            candidates,
            topk=self.topk,
            alpha=self.alpha,
            beta=self.beta,
            second_topk=self.second_topk,
            contest=self.contest,
        )
        positives = Positives.of(found, candidates)
        classes = targets.classes[found.target]
        parts = (positives.image, positives.cell, classes, found.score)
        per_level = zip(branch.scores, *(torch.split(x, found.sizes) for x in parts), strict=True)
        cls = torch.stack([soft_bce(*level, smoothing=self.label_smoothing) for level in per_level]).sum()
        box, distance = self.box_terms(branch, targets, positives)
        scores = found.score.sum()
        gained = [term * gain for term, gain in zip((box, cls, distance), self.gains, strict=True)]
        further = self.further_terms(branch, targets, positives)
        return BranchLoss(
            torch.stack([*gained, *(numerator for numerator, _ in further)]),
            torch.stack([scores, scores, scores, *(normaliser.to(scores) for _, normaliser in further)]),
        )

    def share_of_image(self, branch: Branch, stride: Tensor) -> Tensor:
        """(P, 4) what turns left, top, right, bottom in cells into shares of the image's sides."""
        height, width = (size * self.strides[0] for size in branch.boxes[0].shape[2:])
        size = constant((width, height, width, height), dtype=stride.dtype, device=stride.device)
        return stride / size

    def predicted_boxes(self, branch: Branch, candidates: Candidates) -> Tensor:
        """Predicted boxes (U, 4) at the candidate anchors, xyxy in input pixels."""
        distance, point = self.distances(branch, candidates), candidates.point
        boxes = torch.cat((point - distance[:, :2], point + distance[:, 2:]), 1)
        return boxes * candidates.stride.unsqueeze(1)

    @torch.no_grad()
    def distances(self, branch: Branch, candidates: Candidates) -> Tensor:
        """Predicted left, top, right, bottom (U, 4) at the candidate anchors, in cells."""
        bins = torch.arange(self.reg_max, dtype=torch.float32, device=branch.boxes[0].device)
        sides = [candidates.point[:0].new_zeros(0, 4)]
        for rows in candidate_columns(branch.boxes, candidates):
            expected = rows if self.reg_max == 1 else rows.view(-1, 4, self.reg_max).softmax(-1) @ bins
            sides.append(expected)
        return torch.cat(sides)


def candidate_columns(maps: Sequence[Tensor], candidates: Candidates) -> Iterator[Tensor]:
    """Channels (some, K) float32 of all candidate anchors in turn, without gradients."""
    parts = [torch.split(x, candidates.sizes) for x in (candidates.of_image, candidates.cell)]
    for level, images, cells in zip(maps, *parts, strict=True):
        for image, cell in zip(images.split(_DECODE), cells.split(_DECODE), strict=True):
            yield columns(level.detach(), image, cell).float()
