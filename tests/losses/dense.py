"""The assignment rule written as dense tables, straight from its definition: the sparse one must equal it."""

from __future__ import annotations

import torch
from torch import Tensor

from holdfast.geometry.anchors import anchor_points
from holdfast.geometry.iou import ciou
from holdfast.geometry.targets import Targets


def dense_scores(
    logits: list[Tensor],
    boxes: Tensor,
    targets: Targets,
    *,
    strides: tuple[int, ...],
    topk: int = 10,
    second_topk: int | None = None,
    smallest_side: float = 0.0,
    contest: str = "all",
) -> Tensor:
    """Target scores (B, A, C) for predicted boxes (B, A, 4)."""
    points, steps = anchor_points([tuple(x.shape[2:]) for x in logits], strides)
    points = points * steps.unsqueeze(1)
    scores = torch.cat([x.flatten(2) for x in logits], 2).transpose(1, 2).sigmoid()  # (B, A, C)
    result = torch.zeros_like(scores)
    for image in range(len(scores)):
        mine = (targets.image == image).nonzero().squeeze(1)
        if not len(mine):
            continue
        truth, classes = targets.boxes[mine], targets.classes[mine]
        low, high = truth[:, :2], truth[:, 2:]
        grow = ((smallest_side - (high - low)) / 2).clamp(min=0)
        gap = torch.minimum(points - (low - grow).unsqueeze(1), (high + grow).unsqueeze(1) - points).amin(-1)
        inside = gap > 1e-9  # (G, A)
        overlap = ciou(truth.unsqueeze(1), boxes[image].unsqueeze(0)).clamp(min=0)
        if contest == "candidates":
            overlap = overlap * inside
        metric = scores[image][:, classes].T ** 0.5 * overlap**6
        tried = metric * inside
        pick = torch.zeros_like(inside)
        pick.scatter_(1, tried.topk(topk, dim=1).indices, True)
        pick &= tried > 0
        several = pick.sum(0) > 1
        pick[:, several] = False
        pick[overlap.argmax(0)[several], several.nonzero().squeeze(1)] = True
        metric = metric * pick
        if second_topk is not None:
            keep = torch.zeros_like(pick).scatter_(1, metric.topk(second_topk, dim=1).indices, True)
            pick, metric = pick & keep, metric * keep
        best = (overlap * pick).amax(1, keepdim=True)
        score = metric / (metric.amax(1, keepdim=True) + 1e-9) * best
        for g, label in enumerate(classes.tolist()):
            result[image, :, label] = torch.maximum(result[image, :, label], score[g])
    return result
