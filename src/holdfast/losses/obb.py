"""The loss of oriented boxes: Gaussians for the overlap, distances in the true box's frame, and the angle.

Objects narrower or lower than two pixels are left out, as published.

Dimensions: P assigned anchors, U candidate anchors, G objects.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from holdfast.geometry.rotated import probiou
from holdfast.geometry.targets import Targets
from holdfast.losses.branch import BranchCriterion, Positives, candidate_columns
from holdfast.losses.candidates import Candidates
from holdfast.losses.overlap import Overlap, RotatedOverlap
from holdfast.losses.terms import distance_loss
from holdfast.models.outputs import Angles, Branch

SMALLEST = 2.0  # pixels
_FLOOR = 0.01  # added to variances, in squared cells
_ASPECT = 9.0  # scale of squared log aspect ratios


class RotatedCriterion(BranchCriterion):
    """Task-aligned loss of one branch with angles; further arguments as in `BranchCriterion`.

    Args:
        angle: gain of the angle term.
    """

    more_terms = ("angle",)

    def __init__(self, *, angle: float, **options: Any) -> None:
        super().__init__(**options)
        self.angle = angle

    def candidates(
        self,
        branch: Branch,
        targets: Targets,
        *,
        smallest_side: float,
        gated: bool = False,
        memory: int | None = None,
    ) -> Candidates:
        """As in `BranchCriterion`."""
        large = (_rotated(targets)[:, 2:4] >= SMALLEST).all(1, keepdim=True)
        kept = torch.where(large, _rotated(targets), 0.0)
        targets = targets._replace(rotated=kept)
        return super().candidates(
            branch, targets, smallest_side=smallest_side, gated=gated, memory=memory
        )

    def overlap(self, branch: Branch, targets: Targets, candidates: Candidates) -> Overlap:
        """As in `BranchCriterion`."""
        assert isinstance(branch.extra, Angles)
        none = candidates.point[:0, :1]
        angle = torch.cat([none, *candidate_columns(branch.extra.angles, candidates)])
        boxes = rotated_boxes(self.distances(branch, candidates), angle, candidates.point)
        boxes = torch.cat((boxes[:, :4] * candidates.stride.unsqueeze(1), boxes[:, 4:]), 1)
        return RotatedOverlap(candidates, _rotated(targets).float(), boxes)

    def box_terms(self, branch: Branch, targets: Targets, positives: Positives) -> tuple[Tensor, Tensor]:
        """As in `BranchCriterion`."""
        assert isinstance(branch.extra, Angles)
        truth = self._truth(targets, positives)
        distance = positives.columns(branch.boxes)
        angle = positives.columns(branch.extra.angles)
        found = rotated_boxes(distance, angle, positives.point)
        box = ((1 - probiou(found, truth, floor=_FLOOR)) * positives.score).sum()
        offset = positives.point - truth[:, :2]
        cos, sin = truth[:, 4].cos(), truth[:, 4].sin()
        x, y = offset[:, 0] * cos + offset[:, 1] * sin, offset[:, 1] * cos - offset[:, 0] * sin
        w, h = truth[:, 2] / 2, truth[:, 3] / 2
        true_distance = torch.stack((w + x, h + y, w - x, h - y), 1)
        difference = (distance - true_distance) * self.share_of_image(branch, positives.stride)
        return box, distance_loss(difference, positives.score)

    def further_terms(
        self, branch: Branch, targets: Targets, positives: Positives
    ) -> list[tuple[Tensor, Tensor]]:
        """The angle, which counts the less the longer a box is, since the overlap then tells it."""
        assert isinstance(branch.extra, Angles)
        truth = self._truth(targets, positives)
        angle = positives.columns(branch.extra.angles).squeeze(1)
        weight = torch.exp(-((truth[:, 2] / truth[:, 3]).log() ** 2) / _ASPECT)
        term = (weight * torch.sin(2 * (angle - truth[:, 4])) ** 2 * positives.score).sum()
        return [(term * self.angle, positives.score.sum())]

    def _truth(self, targets: Targets, positives: Positives) -> Tensor:
        """True boxes (P, 5) in cells."""
        truth = _rotated(targets)[positives.target].float()
        return torch.cat((truth[:, :4] / positives.stride, truth[:, 4:]), 1)


def rotated_boxes(distance: Tensor, angle: Tensor, point: Tensor) -> Tensor:
    """Rotated boxes (..., 5), in cells, of anchors.

    Args:
        distance: (..., 4) left, top, right, bottom in the box's own frame.
        angle: (..., 1) radians.
        point: (..., 2) anchors.
    """
    low, high = distance[..., :2], distance[..., 2:]
    x, y = ((high - low) / 2).unbind(-1)
    cos, sin = angle[..., 0].cos(), angle[..., 0].sin()
    centre = point + torch.stack((x * cos - y * sin, x * sin + y * cos), -1)
    return torch.cat((centre, low + high, angle), -1)


def _rotated(targets: Targets) -> Tensor:
    if targets.rotated is None:
        raise ValueError("The loss of oriented boxes needs targets with rotated boxes.")
    return targets.rotated
