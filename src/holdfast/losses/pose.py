"""The loss of keypoints: likeness (OKS), whether labelled, and the likelihood of errors under a learnt
density (RLE, arXiv 2107.11291).

Dimensions: P assigned anchors, U candidate anchors, G objects, K keypoints with D numbers each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from holdfast.geometry.keypoints import keypoint_errors, keypoint_sigmas
from holdfast.geometry.targets import Targets
from holdfast.losses.branch import BranchCriterion, Positives, candidate_columns
from holdfast.losses.candidates import Candidates
from holdfast.losses.overlap import BoxOverlap, KeypointOverlap, Overlap
from holdfast.models.outputs import Branch, Keypoints

# How much the likelihood of each of the 17 keypoints of COCO counts: elbows, knees 1.2, wrists, ankles 1.5.
COCO_WEIGHTS = (1.0,) * 7 + (1.2, 1.2, 1.5, 1.5, 1.0, 1.0, 1.2, 1.2, 1.5, 1.5)
_EPS = 1e-9
_LARGEST_ERROR = 100.0  # in units of the error to expect


class KeypointCriterion(BranchCriterion):
    """Task-aligned loss of one branch with keypoints; further arguments as in `BranchCriterion`.

    Args:
        pose: gain of the likeness.
        kobj: gain of the term that says which keypoints are labelled; there is none where D is 2.
        rle: gain of the likelihood, which only training mode has.
        sigmas: (K,) spreads of labels; empty for those of `keypoint_sigmas`.
    """

    more_terms = ("pose", "kobj", "rle")

    def __init__(
        self, *, pose: float, kobj: float, rle: float, sigmas: Sequence[float] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.pose, self.kobj, self.rle, self.sigmas = pose, kobj, rle, sigmas

    def candidates(
        self,
        branch: Branch,
        targets: Targets,
        *,
        smallest_side: float,
        gated: bool = True,
        memory: int | None = None,
    ) -> Candidates:
        """As in `BranchCriterion`; objects keep to levels of their size."""
        return super().candidates(
            branch, targets, smallest_side=smallest_side, gated=gated, memory=memory
        )

    def overlap(self, branch: Branch, targets: Targets, candidates: Candidates) -> Overlap:
        """As in `BranchCriterion`."""
        extra, truth = _keypoints(branch, targets)
        point, stride = candidates.point.unsqueeze(1), candidates.stride[:, None, None]
        found = candidate_columns(extra.points, candidates)
        rows = [torch.unflatten(x, 1, (-1, extra.dims))[..., :2] for x in found]
        points = (torch.cat(rows) + point) * stride if rows else truth.new_zeros(0, truth.shape[1], 2)
        boxes = BoxOverlap(candidates, self.predicted_boxes(branch, candidates))
        return KeypointOverlap(boxes, truth, targets.boxes.float(), points, self._sigmas(truth, extra.dims))

    def further_terms(
        self, branch: Branch, targets: Targets, positives: Positives
    ) -> list[tuple[Tensor, Tensor]]:
        """Likeness and labels, divided by the number of anchors, and likelihood, by that of keypoints."""
        extra, keypoints = _keypoints(branch, targets)
        truth = keypoints[positives.target]
        labelled = truth[..., 2] != 0  # (P, K)
        count = labelled.sum(1, keepdim=True)
        true_box = targets.boxes[positives.target].float() / positives.stride
        area = (true_box[:, 2:] - true_box[:, :2]).prod(1)
        true = truth[..., :2] / positives.stride.unsqueeze(1)
        found = torch.unflatten(positives.columns(extra.points), 1, (-1, extra.dims))
        points = found[..., :2] + positives.point.unsqueeze(1)  # (P, K, 2) in cells

        error = keypoint_errors(points, true, area, self._sigmas(keypoints, extra.dims))
        unlike = (1 - torch.exp(-error)) * labelled / (count + _EPS)
        anchors = positives.score.new_tensor(len(count))
        known = unlike.new_zeros(())
        if extra.dims == 3:
            logits = F.binary_cross_entropy_with_logits(found[..., 2], labelled.float(), reduction="sum")
            known = logits / labelled.shape[1]
        likelihood = self._likelihood(extra, positives, points, true, labelled)
        return [
            (unlike.sum() * self.pose, anchors),
            (known * self.kobj, anchors),
            (likelihood * self.rle, count.sum()),
        ]

    def _likelihood(
        self, extra: Keypoints, positives: Positives, points: Tensor, true: Tensor, labelled: Tensor
    ) -> Tensor:
        """Sum, over labelled keypoints, of the negative logarithm of their likelihood."""
        if extra.sigmas is None or extra.log_density is None:
            return points.new_zeros(())
        raw = torch.unflatten(positives.columns(extra.sigmas), 1, (-1, 2))[labelled]  # (N, 2)
        sigma = raw.sigmoid().clamp(min=torch.finfo(torch.float32).tiny)
        error = ((points - true)[labelled] / (sigma + _EPS)).clamp(-_LARGEST_ERROR, _LARGEST_ERROR)
        density = extra.log_density(error).unsqueeze(1)
        term = sigma.log() - density + (2 * sigma).log() + error.abs()
        weights = term.new_tensor(_weights(labelled.shape[1])).expand(labelled.shape)[labelled]
        total: Tensor = (term * weights.unsqueeze(1)).sum()
        return total

    def _sigmas(self, truth: Tensor, dims: int) -> Tensor:
        return truth.new_tensor(self.sigmas or keypoint_sigmas((truth.shape[1], dims)), dtype=torch.float32)


def _weights(count: int) -> tuple[float, ...]:
    return COCO_WEIGHTS if count == len(COCO_WEIGHTS) else (1.0,) * count


def _keypoints(branch: Branch, targets: Targets) -> tuple[Keypoints, Tensor]:
    assert isinstance(branch.extra, Keypoints)
    if targets.keypoints is None:
        raise ValueError("The loss of keypoints needs targets with keypoints.")
    return branch.extra, targets.keypoints.float()
