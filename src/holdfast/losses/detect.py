"""The detection losses: one for models with an auxiliary branch (YOLOv9), one for models with two branches
that can answer (YOLO26), whatever else these say. `criterion` takes the one that goes with a model's outputs.

Differences from the published programs: the gains act (in official YOLOv9 they are constants), label
smoothing acts (there it is ignored), and a branch without positives has zero, not missing, gradients for its
box convolutions. The loss that is reported for YOLO26 is that of the branch that answers, as there.

Dimensions: B images, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from holdfast.geometry.targets import Targets
from holdfast.losses.branch import BranchCriterion, BranchLoss
from holdfast.losses.classify import ClassLoss
from holdfast.losses.obb import RotatedCriterion
from holdfast.losses.pose import KeypointCriterion
from holdfast.losses.segment import MaskCriterion
from holdfast.models.outputs import (
    Angles,
    ClassOutputs,
    DetectOutputs,
    DualOutputs,
    Extra,
    Keypoints,
    Masks,
    Outputs,
)


class DetectionLoss:
    """Loss of the main and the auxiliary branch, each assigned for itself; the same throughout a run.

    Attributes:
        strides: input pixels per cell of each level.
        terms: names of the three terms.
        assigner_bytes: memory of the pairs that are looked at together; None is the assigner's own choice. No
            result depends on it.
    """

    per_batch = True

    def __init__(
        self,
        *,
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
            strides: input pixels per cell of each level.
            reg_max: bins of the distance distribution.
            box: gain of the CIoU term.
            cls: gain of the class term.
            dfl: gain of the distance term.
            label_smoothing: share in [0, 1) of each target spread evenly over all classes.
            auxiliary_weight: weight of the auxiliary branch beside 1 for the main branch.
            topk: anchors an object may pick.
            alpha: exponent of the score in the assignment.
            beta: exponent of the overlap in the assignment.
        """
        self.assigner_bytes: int | None = None
        self.auxiliary_weight = auxiliary_weight
        self._branch = BranchCriterion(
            strides=strides,
            reg_max=reg_max,
            gains=(box, cls, dfl),
            label_smoothing=label_smoothing,
            topk=topk,
            alpha=alpha,
            beta=beta,
        )
        self.terms = self._branch.terms

    def __call__(
        self, outputs: DetectOutputs, targets: Targets, *, progress: float = 0.0
    ) -> list[BranchLoss]:
        """Returns the losses of the main and, where present, the auxiliary branch.

        Args:
            outputs: raw maps, any float dtype.
            targets: on the same device as the maps.
            progress: share of the run that is done; this loss does not change with it.
        """
        with torch.autocast(outputs.main.scores[0].device.type, enabled=False):
            candidates = self._branch.candidates(
                outputs.main, targets, smallest_side=0.0, memory=self.assigner_bytes
            )
            losses = [self._branch(outputs.main, targets, candidates)]
            if outputs.auxiliary is not None:
                extra = self._branch(outputs.auxiliary, targets, candidates)
                losses.append(extra._replace(weight=self.auxiliary_weight, shown=self.auxiliary_weight))
        return losses


class DualLoss:
    """Loss of a one-to-many and a one-to-one branch whose balance shifts over the run (YOLO26).

    The one-to-many branch has the weight 0.8 in the first epoch and 0.1 in the last, falling along a line;
    the one-to-one branch has the rest. An object of the one-to-one branch picks 7 anchors and keeps the best
    of those that are left to it when contested anchors are settled.

    Small-target-aware assignment: for the test "anchor inside the box" only, sides shorter than the second
    stride count as that long, so that every object has anchors to learn from.
    """

    per_batch = True

    def __init__(
        self,
        *,
        strides: Sequence[int],
        reg_max: int = 1,
        box: float = 7.5,
        cls: float = 0.5,
        dfl: float = 1.5,
        label_smoothing: float = 0.0,
        many_start: float = 0.8,
        many_end: float = 0.1,
        topk: int = 10,
        one_topk: int = 7,
        alpha: float = 0.5,
        beta: float = 6.0,
        branch: Callable[..., BranchCriterion] = BranchCriterion,
    ) -> None:
        """Sets up the loss.

        Args:
            strides: input pixels per cell of each level.
            reg_max: bins per box side.
            box: gain of the CIoU term.
            cls: gain of the class term.
            dfl: gain of the distance term.
            label_smoothing: share in [0, 1) of each target spread evenly over all classes.
            many_start: weight of the one-to-many branch at the start of the run.
            many_end: its weight at the end.
            topk: anchors an object may pick in the one-to-many branch.
            one_topk: anchors an object may pick in the one-to-one branch, before it keeps one.
            alpha: exponent of the score in the assignment.
            beta: exponent of the overlap in the assignment.
            branch: makes the loss of a branch: the class of the task, which takes these arguments.
        """
        self.assigner_bytes: int | None = None
        self.many_start, self.many_end = many_start, many_end
        self.smallest_side = float(strides[min(1, len(strides) - 1)])

        def make(topk: int, second_topk: int | None) -> BranchCriterion:
            return branch(
                strides=strides,
                reg_max=reg_max,
                gains=(box, cls, dfl),
                label_smoothing=label_smoothing,
                topk=topk,
                alpha=alpha,
                beta=beta,
                second_topk=second_topk,
                contest="candidates",
            )

        self._many, self._one = make(topk, None), make(one_topk, 1)
        self.terms = self._many.terms

    def many_weight(self, progress: float) -> float:
        """Weight of the one-to-many branch when a share of the run, 0 to 1, is done."""
        return self.many_end + (self.many_start - self.many_end) * max(1.0 - progress, 0.0)

    def __call__(self, outputs: DualOutputs, targets: Targets, *, progress: float = 0.0) -> list[BranchLoss]:
        """Returns the losses of the branches that are there.

        Args:
            outputs: raw maps, any float dtype; those of a deployed model have one branch.
            targets: on the same device as the maps.
            progress: share of the run that is done, epoch / (epochs - 1).
        """
        weight = self.many_weight(progress)
        one, many = outputs.one_to_one, outputs.one_to_many
        some = one if one is not None else many
        assert some is not None
        losses = []
        with torch.autocast(some.scores[0].device.type, enabled=False):
            candidates = self._many.candidates(
                some, targets, smallest_side=self.smallest_side, memory=self.assigner_bytes
            )
            if many is not None:
                loss = self._many(many, targets, candidates)
                losses.append(loss._replace(weight=weight, shown=float(one is None)))
            if one is not None:
                losses.append(self._one(one, targets, candidates)._replace(weight=1.0 - weight))
        return losses


Criterion = DetectionLoss | DualLoss | ClassLoss


def criterion(
    outputs: type[Outputs],
    *,
    strides: Sequence[int],
    reg_max: int,
    box: float,
    cls: float,
    dfl: float,
    label_smoothing: float,
    extra: type[Extra] | None = None,
    pose: float = 12.0,
    kobj: float = 1.0,
    rle: float = 1.0,
    angle: float = 1.0,
    sigmas: Sequence[float] = (),
) -> Criterion:
    """The loss for models whose forward returns `outputs`, and whose branches say `extra` beyond boxes.

    Args:
        outputs, extra: types, as models state them.
        strides, reg_max, box, cls, dfl, label_smoothing: as in the classes.
        pose, kobj, rle: gains of the terms of keypoints.
        angle: gain of the term of angles.
        sigmas: spread of each keypoint's labels; empty: those of COCO for its keypoints, else equal ones.
    """
    if outputs is ClassOutputs:
        return ClassLoss(label_smoothing=label_smoothing)
    branch: dict[type[Extra] | None, Callable[..., BranchCriterion]] = {
        None: BranchCriterion,
        Masks: MaskCriterion,
        Keypoints: partial(KeypointCriterion, pose=pose, kobj=kobj, rle=rle, sigmas=sigmas),
        Angles: partial(RotatedCriterion, angle=angle),
    }
    common: dict[str, Any] = {"strides": strides, "reg_max": reg_max, "box": box, "cls": cls, "dfl": dfl}
    if outputs is DualOutputs:
        return DualLoss(**common, label_smoothing=label_smoothing, branch=branch[extra])
    return DetectionLoss(**common, label_smoothing=label_smoothing)
