"""The YOLOv9 detection loss, one result per branch (main, and the PGI auxiliary branch in training form).

Results are numerators and a normaliser, not a quotient. The published loss divides by S = max(sum of target scores
over the whole batch, 1); numerators and sums of parts of a batch add up, quotients do not. So a batch can be split:
back-propagate numerators of each part, add up the normalisers, clamp once, and rescale. That is why the normaliser is
not clamped here. `combine` is the division for a batch in one piece.

Differences from the published program: the gains act (there they are constants), label smoothing acts (there it is
ignored), and a branch without positives has zero, not missing, gradients for its box convolutions.

Label smoothing e spreads the mass of each target: an anchor of score t aims at (1 - e) t + e t / C for its class and
e t / C for the others. Background stays at 0 and the sum of targets, hence S, does not change; with one class it is
no smoothing at all.

Everything is computed in float32, whatever the precision of the maps and of autocast.

Dimensions: B images, C classes, R bins per side, A anchors, P assigned anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from holdfast.geometry.anchors import anchor_points
from holdfast.geometry.targets import Targets
from holdfast.losses.assign import assign
from holdfast.losses.terms import background_bce, ciou_loss, distribution_focal_loss, expected_distance
from holdfast.models.outputs import Branch, DetectOutputs


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
        """Returns the loss of the main branch and, where present, of the auxiliary one, each with its own assignment.

        Args:
            outputs: raw maps, any float dtype.
            targets: on the same device as the maps.
        """
        losses = [self._branch(outputs.main, targets, 1.0)]
        if outputs.auxiliary is not None:
            losses.append(self._branch(outputs.auxiliary, targets, self.auxiliary_weight))
        return losses

    def _branch(self, branch: Branch, targets: Targets, weight: float) -> BranchLoss:
        device = branch.scores[0].device
        with torch.autocast(device.type, enabled=False):
            shapes = [(int(x.shape[2]), int(x.shape[3])) for x in branch.scores]
            points, steps = anchor_points(shapes, self.strides, device=device)
            scores = [x.float() for x in branch.scores]
            found = assign(
                scores,
                self._decode(branch.boxes, points, steps),
                targets,
                strides=self.strides,
                topk=self.topk,
                alpha=self.alpha,
                beta=self.beta,
            )
            cells = [h * w for h, w in shapes]
            where = _Places(found.image, found.anchor, cells)

            step = steps[found.anchor].unsqueeze(1)
            point = points[found.anchor]
            true_box = targets.boxes[found.target].float() / step  # (P, 4) in cells
            log_probability = where.take(branch.boxes).float().view(-1, 4, self.reg_max).log_softmax(-1)
            distance = expected_distance(log_probability)
            box = torch.cat((point - distance[:, :2], point + distance[:, 2:]), 1)
            box_term = ciou_loss(box, true_box, found.score)
            true_distance = torch.cat((point - true_box[:, :2], true_box[:, 2:] - point), 1)
            dfl_term = distribution_focal_loss(log_probability, true_distance, found.score)

            cls_term = torch.stack([background_bce(x) for x in scores]).sum()
            logits = where.take(scores)  # (P, C)
            own = logits.gather(1, targets.classes[found.target].unsqueeze(1)).squeeze(1)
            cls_term = cls_term - (own * found.score).sum() * (1 - self.label_smoothing)
            if self.label_smoothing > 0:
                cls_term = cls_term - (logits.mean(1) * found.score).sum() * self.label_smoothing

            gains = torch.tensor(self.gains, device=device) * weight
            return BranchLoss(torch.stack((box_term, cls_term, dfl_term)) * gains, found.score.sum())

    @torch.no_grad()
    def _decode(self, maps: Sequence[Tensor], points: Tensor, steps: Tensor) -> Tensor:
        """Predicted boxes (B, A, 4) xyxy in input pixels."""
        bins = torch.arange(self.reg_max, dtype=torch.float32, device=points.device)
        sides = [
            (x.detach().float().flatten(2).unflatten(1, (4, self.reg_max)).softmax(2).transpose(2, 3) @ bins)
            for x in maps
        ]
        distance = torch.cat(sides, 2).transpose(1, 2)  # (B, A, 4)
        return torch.cat((points - distance[..., :2], points + distance[..., 2:]), -1) * steps.unsqueeze(1)


class _Places:
    """Assigned anchors as positions on the level maps."""

    def __init__(self, image: Tensor, anchor: Tensor, cells: Sequence[int]) -> None:
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []  # per level: rows, image, cell
        start = 0
        for count in cells:
            rows = ((anchor >= start) & (anchor < start + count)).nonzero().squeeze(1)
            self.parts.append((rows, image[rows], anchor[rows] - start))
            start += count
        self.order = torch.cat([rows for rows, _, _ in self.parts]).argsort()

    def take(self, maps: Sequence[Tensor]) -> Tensor:
        """Columns of channels at the anchors: per level (B, K, H, W) -> (P, K)."""
        columns = [x.flatten(2)[image, :, cell] for x, (_, image, cell) in zip(maps, self.parts, strict=True)]
        return torch.cat(columns)[self.order]
