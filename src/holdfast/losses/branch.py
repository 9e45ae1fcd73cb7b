"""The loss of one head branch: assignment, then class, overlap and distance terms.

Results are numerators and a normaliser, not a quotient. The published losses divide by S = max(sum of target
scores over the whole batch, 1); numerators and sums of parts of a batch add up, quotients do not. So a batch
can be split: back-propagate numerators of each part, add up the normalisers, clamp once, and rescale. That is
why the normaliser is not clamped here. `combine` is the division for a batch in one piece.

The distance term depends on what the maps hold. With several bins per side it is the distribution focal loss.
With one bin, the distance itself, it is the mean absolute difference of the four distances, left and right as
shares of the image's width, top and bottom of its height.

Label smoothing e spreads the mass of each target: an anchor of score t aims at (1 - e) t + e t / C for its
class and e t / C for the others. Background stays at 0 and the sum of targets, hence S, does not change; with
one class it is no smoothing at all.

Everything is computed in float32, whatever the precision of the maps and of autocast.

Dimensions: B images, C classes, R bins per side, P assigned anchors, U candidate anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from holdfast.geometry.anchors import constant
from holdfast.geometry.targets import Targets
from holdfast.losses.assign import assign
from holdfast.losses.candidates import Candidates
from holdfast.losses.maps import columns
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
        numerators: (3,) float32 box, class and distance sums, with gains.
        normaliser: () float32 without gradient, the sum of target scores, not clamped.
        weight: of the branch in what is back-propagated.
        shown: of the branch in what is reported.
    """

    numerators: Tensor
    normaliser: Tensor
    weight: float = 1.0
    shown: float = 1.0


def combine(branches: Sequence[BranchLoss], batch: int) -> tuple[Tensor, Tensor]:
    """Divides and adds up the branches of a whole batch.

    Args:
        branches: what a loss returned.
        batch: images in the batch; the total is proportional to it, as in the published recipes.

    Returns:
        The scalar to back-propagate, and the detached (3,) items box, class, distance (without `batch`).
    """
    quotients = [part.numerators / part.normaliser.clamp(min=1) for part in branches]
    total = torch.stack([q * part.weight for q, part in zip(quotients, branches, strict=True)]).sum()
    items = torch.stack([q.detach() * part.shown for q, part in zip(quotients, branches, strict=True)]).sum(0)
    return total * batch, items


class BranchCriterion:
    """Task-aligned loss of one branch."""

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

    def __call__(self, branch: Branch, targets: Targets, candidates: Candidates) -> BranchLoss:
        """Assigns anchors and measures the branch; to be called with autocast off."""
        found = assign(
            branch.scores,
            self._decode(branch.boxes, candidates),
            candidates,
            topk=self.topk,
            alpha=self.alpha,
            beta=self.beta,
            second_topk=self.second_topk,
            contest=self.contest,
        )
        image, cell = candidates.of_image[found.anchor], candidates.cell[found.anchor]
        point, stride = candidates.point[found.anchor], candidates.stride[found.anchor].unsqueeze(1)
        classes = targets.classes[found.target]
        parts = [torch.split(x, found.sizes) for x in (image, cell, classes, found.score)]
        rows, class_terms = [], []
        for boxes, scores, *here in zip(branch.boxes, branch.scores, *parts, strict=True):
            rows.append(take_columns(boxes, here[0], here[1]))
            class_terms.append(soft_bce(scores, *here, smoothing=self.label_smoothing))

        sides = torch.cat(rows)  # (P, 4R)
        true_box = targets.boxes[found.target].float() / stride  # in cells
        true_distance = torch.cat((point - true_box[:, :2], true_box[:, 2:] - point), 1)
        if self.reg_max == 1:
            distance = sides
            height, width = (size * self.strides[0] for size in branch.boxes[0].shape[2:])
            image_size = constant((width, height, width, height), dtype=sides.dtype, device=sides.device)
            difference = (distance - true_distance) * (stride / image_size)
            distance_term = distance_loss(difference, found.score)
        else:
            log_probability = sides.view(-1, 4, self.reg_max).log_softmax(-1)
            distance = expected_distance(log_probability)  # (P, 4)
            distance_term = distribution_focal_loss(log_probability, true_distance, found.score)
        box = torch.cat((point - distance[:, :2], point + distance[:, 2:]), 1)
        terms = ciou_loss(box, true_box, found.score), torch.stack(class_terms).sum(), distance_term
        gained = torch.stack([term * gain for term, gain in zip(terms, self.gains, strict=True)])
        return BranchLoss(gained, found.score.sum())

    @torch.no_grad()
    def _decode(self, maps: Sequence[Tensor], candidates: Candidates) -> Tensor:
        """Predicted boxes (U, 4) at the candidate anchors, xyxy in input pixels."""
        bins = torch.arange(self.reg_max, dtype=torch.float32, device=maps[0].device)
        parts = [torch.split(x, candidates.sizes) for x in (candidates.of_image, candidates.cell)]
        sides = [candidates.point[:0].new_zeros(0, 4)]
        for level, images, cells in zip(maps, *parts, strict=True):
            for image, cell in zip(images.split(_DECODE), cells.split(_DECODE), strict=True):
                rows = columns(level.detach(), image, cell).float()
                if self.reg_max > 1:
                    rows = rows.view(-1, 4, self.reg_max).softmax(-1) @ bins
                sides.append(rows)
        distance, point = torch.cat(sides), candidates.point
        boxes = torch.cat((point - distance[:, :2], point + distance[:, 2:]), 1)
        return boxes * candidates.stride.unsqueeze(1)
