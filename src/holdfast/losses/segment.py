"""The loss of masks: cross-entropy of each object's mask inside its box, and a semantic branch that teaches.

A mask is looked at inside the true box only, so what lies outside is never computed: every object multiplies
its coefficients with its own window of the prototypes. Value and gradient come from one pass, and none of the
maps stays in memory.

Dimensions: B images, C classes, P assigned anchors, M prototypes, H W height and width of masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from holdfast.geometry.targets import Targets
from holdfast.losses.branch import BranchCriterion, Positives, candidate_columns
from holdfast.losses.candidates import Candidates
from holdfast.losses.overlap import MaskOverlap, Overlap, TrueMasks, mask_windows
from holdfast.losses.terms import soft_bce
from holdfast.models.outputs import Branch, Masks


class MaskCriterion(BranchCriterion):
    """Task-aligned loss of one branch with masks; arguments as in `BranchCriterion`.

    The gain of the overlap of boxes is also that of masks, as published.
    """

    more_terms = ("seg", "sem")

    def overlap(self, branch: Branch, targets: Targets, candidates: Candidates) -> Overlap:
        """As in `BranchCriterion`."""
        extra, masks = _masks(branch, targets)
        none = candidates.point.new_zeros(0, extra.prototypes.shape[1])
        return MaskOverlap(
            candidates,
            self.predicted_boxes(branch, candidates),
            torch.cat([none, *candidate_columns(extra.coefficients, candidates)]),
            extra.prototypes.detach().float(),
            TrueMasks.of(masks, targets.image),
            scale=self._scale(branch),
            topk=self.topk,
            alpha=self.alpha,
            beta=self.beta,
        )

    def further_terms(
        self, branch: Branch, targets: Targets, positives: Positives
    ) -> list[tuple[Tensor, Tensor]]:
        """Masks, divided by the number of anchors, and the semantic branch, by that of images."""
        extra, masks = _masks(branch, targets)
        height, width = (int(size) for size in extra.prototypes.shape[2:])
        boxes = targets.boxes.float() * self._scale(branch)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-9)  # mask pixels
        truth = TrueMasks.of(masks, targets.image)
        seg: Tensor = _MaskBce.apply(  # type: ignore[no-untyped-call]
            positives.columns(extra.coefficients), extra.prototypes.float(), truth,
            mask_windows(boxes, height, width), area, positives.target,
        )  # fmt: skip
        sem = seg.new_zeros(())
        if extra.semantic is not None:
            sem = semantic_loss(extra.semantic, masks, targets)
        gain = self.gains[0]
        anchors = seg.new_tensor(len(positives.target))
        return [(seg * gain, anchors), (sem * gain, anchors.new_tensor(len(masks)))]

    def _scale(self, branch: Branch) -> float:
        """Mask pixels per input pixel."""
        assert isinstance(branch.extra, Masks)
        return float(branch.extra.prototypes.shape[3]) / (branch.scores[0].shape[3] * self.strides[0])


def semantic_loss(logits: Tensor, masks: Tensor, targets: Targets) -> Tensor:
    """Sum over images of half the mean cross-entropy and half the mean Dice loss of class maps.

    Args:
        logits: (B, C, h, w), any float dtype.
        masks: (B, L, H, W) object numbers, as in `Targets`; of several on a pixel the highest is seen.
        targets: classes of the objects.
    """
    batch, classes, height, width = logits.shape
    lowest, *higher = F.interpolate(masks.float(), size=(height, width), mode="nearest").long().unbind(1)
    small = reduce(lambda below, layer: torch.where(layer > 0, layer, below), higher, lowest)  # (B, h, w)
    first = torch.searchsorted(targets.image, torch.arange(batch, device=masks.device))
    image, cell = (small.flatten(1) > 0).nonzero(as_tuple=True)
    label = targets.classes[first[image] + small.flatten(1)[image, cell] - 1]
    ones = torch.ones_like(cell, dtype=torch.float32)
    bce = soft_bce(logits, image, cell, label, ones) / (classes * height * width)
    p = logits.float().sigmoid().flatten(2)
    place = image * classes + label
    both = p.new_zeros(batch * classes).index_add(0, place, p[image, label, cell])
    sizes = p.new_zeros(batch * classes).index_add(0, place, ones) + p.sum(2).flatten()
    dice = (1 - (2 * both + 1) / (sizes + 1)).sum() / classes
    return (bce + dice) / 2


class _MaskBce(Function):
    """Sum over anchors of the cross-entropy of their object's mask inside its box, per pixel of the box."""

    @staticmethod
    def forward(
        ctx: Any,
        coefficients: Tensor,
        prototypes: Tensor,
        truth: TrueMasks,
        windows: Tensor,
        area: Tensor,
        target: Tensor,
    ) -> Tensor:
        total = coefficients.new_zeros(())
        to_coefficients, to_prototypes = torch.zeros_like(coefficients), torch.zeros_like(prototypes)
        for index, rows in _groups(target):
            y1, y2, x1, x2 = windows[index].tolist()
            if y2 <= y1 or x2 <= x1:
                continue
            image = int(truth.image[index])
            part = prototypes[image, :, y1:y2, x1:x2].flatten(1)  # (M, pixels)
            own = coefficients[rows]
            logits = own @ part
            true = truth.window(index, y1, y2, x1, x2).flatten().float()
            share = 1 / area[index]
            total += (F.softplus(logits).sum() - (logits @ true).sum()) * share
            slope = logits.sigmoid_().sub_(true).mul_(share)
            to_coefficients[rows] = slope @ part.T
            to_prototypes[image, :, y1:y2, x1:x2] += (own.T @ slope).view(-1, y2 - y1, x2 - x1)
        ctx.save_for_backward(to_coefficients, to_prototypes)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_coefficients, to_prototypes = ctx.saved_tensors
        return to_coefficients * grad, to_prototypes * grad, None, None, None, None


def _groups(target: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Objects and the places of their anchors."""
    order = target.argsort(stable=True)
    objects, counts = torch.unique_consecutive(target[order], return_counts=True)
    yield from zip(objects.tolist(), torch.split(order, counts.tolist()), strict=True)


def _masks(branch: Branch, targets: Targets) -> tuple[Masks, Tensor]:
    assert isinstance(branch.extra, Masks)
    if targets.masks is None:
        raise ValueError("The loss of masks needs targets with masks.")
    if targets.masks.shape[2:] != branch.extra.prototypes.shape[2:]:
        sizes = tuple(targets.masks.shape[2:]), tuple(branch.extra.prototypes.shape[2:])
        raise ValueError(f"Masks are {sizes[0]}, prototypes {sizes[1]}.")
    return branch.extra, targets.masks
