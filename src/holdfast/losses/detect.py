"""The YOLOv9 detection loss, one result per branch (main, and the PGI auxiliary branch in training form).

Results are numerators and a normaliser, not a quotient. The published loss divides by S = max(sum of target
scores over the whole batch, 1); numerators and sums of parts of a batch add up, quotients do not. So a batch
can be split: back-propagate numerators of each part, add up the normalisers, clamp once, and rescale. That is
why the normaliser is not clamped here. `combine` is the division for a batch in one piece.

Differences from the published program: the gains act (there they are constants), label smoothing acts (there
it is ignored), and a branch without positives has zero, not missing, gradients for its box convolutions.

Label smoothing e spreads the mass of each target: an anchor of score t aims at (1 - e) t + e t / C for its
class and e t / C for the others. Background stays at 0 and the sum of targets, hence S, does not change; with
one class it is no smoothing at all.

Everything is computed in float32, whatever the precision of the maps and of autocast.

Dimensions: B images, C classes, R bins per side, A anchors, P assigned anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from holdfast.geometry.targets import Targets
from holdfast.losses.assign import assign
from holdfast.losses.candidates import Candidates
from holdfast.losses.maps import columns
from holdfast.losses.terms import (
    ciou_loss,
    distribution_focal_loss,
    expected_distance,
    soft_bce,
    take_columns,
)
from holdfast.models.outputs import Branch, DetectOutputs

_DECODE = 1 << 15  # anchors decoded at a time: bounds memory, stays in the cache


class BranchLoss(NamedTuple):
    """Loss of one branch on some images, before division.

    Attributes:
        numerators: (3,) float32 box, class and distribution sums, with gains and the weight of the branch.
        normaliser: () float32 without gradient, the sum of target scores, not clamped.
    """

    numerators: Tensor
    normaliser: Tensor


def combine(branches: Sequence[BranchLoss], batch: int) -> tuple[Tensor, Tensor]:
    """Divides and adds up the branches of a whole batch.

    Args:
        branches: results of `DetectionLoss`.
        batch: images in the batch; the total is proportional to it, as in the published recipe.

    Returns:
        The scalar to back-propagate, and the detached (3,) items box, class, distribution (without `batch`).
    """
    items = torch.stack([part.numerators / part.normaliser.clamp(min=1) for part in branches]).sum(0)
    return items.sum() * batch, items.detach()


class DetectionLoss:
    """Task-aligned detection loss with CIoU, distribution focal loss and binary cross-entropy."""

    def __init__(
        self,
        *,
        classes: int,
        strides: Sequence[int],
        reg_max: int = 16,
        box: float = 7.5,
        cls: float = 0.5,
        dfl: float = 1.5,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.25,
        topk: int = 10,
        alpha: float = 0.5,
        beta: float = 6.0,
    ) -> None:
        """Sets up the loss.

        Args:
            classes: C.
            strides: input pixels per cell of each level.
            reg_max: R, bins of the distance distribution.
            box: gain of the CIoU term.
            cls: gain of the class term.
            dfl: gain of the distribution term.
            label_smoothing: share in [0, 1) of each target spread evenly over all classes.
            auxiliary_weight: weight of the auxiliary branch beside 1 for the main branch.
            topk: anchors an object may pick.
            alpha: exponent of the score in the assignment.
            beta: exponent of the overlap in the assignment.
        """
        self.classes = classes
        self.strides = tuple(strides)
        self.reg_max = reg_max
        self.gains = (box, cls, dfl)
        self.label_smoothing = label_smoothing
        self.auxiliary_weight = auxiliary_weight
        self.topk, self.alpha, self.beta = topk, alpha, beta

    def __call__(self, outputs: DetectOutputs, targets: Targets) -> list[BranchLoss]:
        """Returns the losses of the main and, where present, the auxiliary branch, each assigned for itself.

        Args:
            outputs: raw maps, any float dtype.
            targets: on the same device as the maps.
        """
        scores = outputs.main.scores
        with torch.autocast(scores[0].device.type, enabled=False):
            candidates = Candidates(
                targets,
                batch=len(scores[0]),
                shapes=[(int(x.shape[2]), int(x.shape[3])) for x in scores],
                strides=self.strides,
            )
            losses = [self._branch(outputs.main, targets, candidates, 1.0)]
            if outputs.auxiliary is not None:
                losses.append(self._branch(outputs.auxiliary, targets, candidates, self.auxiliary_weight))
        return losses

    def _branch(self, branch: Branch, targets: Targets, candidates: Candidates, weight: float) -> BranchLoss:
        found = assign(
            branch.scores,
            self._decode(branch.boxes, candidates),
            candidates,
            topk=self.topk,
            alpha=self.alpha,
            beta=self.beta,
        )
        image, cell = candidates.of_image[found.anchor], candidates.cell[found.anchor]
        point, stride = candidates.point[found.anchor], candidates.stride[found.anchor].unsqueeze(1)
        classes = targets.classes[found.target]
        parts = [torch.split(x, found.sizes) for x in (image, cell, classes, found.score)]
        rows, class_terms = [], []
        for boxes, scores, *here in zip(branch.boxes, branch.scores, *parts, strict=True):
            rows.append(take_columns(boxes, here[0], here[1]))
            class_terms.append(soft_bce(scores, *here, smoothing=self.label_smoothing))

        log_probability = torch.cat(rows).view(-1, 4, self.reg_max).log_softmax(-1)
        distance = expected_distance(log_probability)  # (P, 4)
        true_box = targets.boxes[found.target].float() / stride  # in cells
        box = torch.cat((point - distance[:, :2], point + distance[:, 2:]), 1)
        true_distance = torch.cat((point - true_box[:, :2], true_box[:, 2:] - point), 1)
        terms = (
            ciou_loss(box, true_box, found.score) * (self.gains[0] * weight),
            torch.stack(class_terms).sum() * (self.gains[1] * weight),
            distribution_focal_loss(log_probability, true_distance, found.score) * (self.gains[2] * weight),
        )
        return BranchLoss(torch.stack(terms), found.score.sum())

    @torch.no_grad()
    def _decode(self, maps: Sequence[Tensor], candidates: Candidates) -> Tensor:
        """Predicted boxes (U, 4) at the candidate anchors, xyxy in input pixels."""
        bins = torch.arange(self.reg_max, dtype=torch.float32, device=maps[0].device)
        parts = [torch.split(x, candidates.sizes) for x in (candidates.of_image, candidates.cell)]
        sides = [candidates.point[:0].new_zeros(0, 4)]
        for level, images, cells in zip(maps, *parts, strict=True):
            for image, cell in zip(images.split(_DECODE), cells.split(_DECODE), strict=True):
                rows = columns(level.detach(), image, cell).float().view(-1, 4, self.reg_max)
                sides.append(rows.softmax(-1) @ bins)
        distance, point = torch.cat(sides), candidates.point
        boxes = torch.cat((point - distance[:, :2], point + distance[:, 2:]), 1)
        return boxes * candidates.stride.unsqueeze(1)
