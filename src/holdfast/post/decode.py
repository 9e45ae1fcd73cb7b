"""From raw head maps to detections: distances to boxes, thresholds, non-maximum suppression or the best rows.

`answer` takes the way that goes with a model's outputs. A one-to-one branch needs no suppression: its best
rows are the answer. For the other branches two ways lead to the same rows. `decode` + `select` go through all
anchors and are what validation of a loss, export and tests want to see. `detections` looks at class logits
first and decodes only the anchors that survive: at the usual confidence these are a few dozen of 8400, so
nearly all of the sigmoid and softmax work disappears.

What a branch says beyond boxes becomes further columns of the rows; `COLUMNS` lists how, by its type.

Traps: boxes are not clipped; the threshold is strict; suppression has no time limit (a limit silently empties
the later images of a batch); rows beyond the best 30,000 candidates of an image are dropped before
suppression.

Dimensions: B batch, A anchors over all levels, C classes, R bins per side, n candidates or detections, E
    further columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from holdfast.geometry.anchors import anchor_points
from holdfast.models.outputs import (
    Angles,
    Branch,
    ClassOutputs,
    Decoded,
    DetectOutputs,
    DualOutputs,
    Extra,
    FileOutputs,
    Keypoints,
    Masks,
    Outputs,
    Rows,
)  # fmt: skip
from holdfast.post.columns import AngleColumns, BoxColumns, KeypointColumns, MaskColumns

MAX_CANDIDATES = 30_000
END_TO_END_ROWS = 300  # rows a one-to-one branch is cut to before thresholds, at least

COLUMNS: dict[type, type[BoxColumns]] = {
    type(None): BoxColumns, Masks: MaskColumns, Keypoints: KeypointColumns, Angles: AngleColumns,
}  # fmt: skip


class _Image(NamedTuple):
    """The anchors of one image that may pass: boxes (a, 4), probabilities (a, C), columns (a, E)."""

    boxes: Tensor
    scores: Tensor
    columns: Tensor


def answering(outputs: DetectOutputs | DualOutputs) -> Branch:
    """The branch that answers: the one-to-one branch when there is one."""
    branch = outputs.main if isinstance(outputs, DetectOutputs) else outputs.one_to_one or outputs.one_to_many
    assert branch is not None
    return branch


def extra_of(outputs: DetectOutputs | DualOutputs | FileOutputs) -> Extra | None:
    """What the answering branch says beyond boxes; nothing in exported files."""
    return None if isinstance(outputs, Decoded | Rows) else answering(outputs).extra


def answer(
    outputs: Outputs | FileOutputs,
    *,
    strides: Sequence[int],
    reg_max: int,
    conf: float,
    iou: float,
    max_det: int,
    multi_label: bool = False,
    agnostic: bool = False,
    classes: Sequence[int] | None = None,
) -> list[Tensor]:
    """Detections of a model, in the way its outputs ask for: the one-to-one branch when there is one.

    Args:
        outputs: what the forward returned.
        strides, reg_max, conf, iou, max_det, multi_label, agnostic, classes: as in `detections`; `iou` and
            `multi_label` mean nothing to a one-to-one branch, nor `strides` and `reg_max` to decoded boxes.

    Returns:
        B tensors (n, 6 + E) by falling score, not clipped: xyxy in input pixels, score, class, and what the
        branch says beyond boxes: mask coefficients, keypoints (x, y in input pixels and, where there is one,
        the probability of being labelled), or an angle in radians, with which the first four numbers are cx,
        cy, w, h. Of a classifier B tensors (C,) of probabilities.
    """
    if isinstance(outputs, ClassOutputs):
        return list(outputs.logits.float().softmax(1))
    if isinstance(outputs, Rows):
        return [
            _chosen(rows, conf=conf, max_det=max_det, agnostic=agnostic, classes=classes)
            for rows in outputs.rows
        ]
    if isinstance(outputs, Decoded):
        return select(
            outputs.boxes,
            outputs.scores,
            conf=conf,
            iou=iou,
            max_det=max_det,
            multi_label=multi_label,
            agnostic=agnostic,
            classes=classes,
        )
    branch = answering(outputs)
    if isinstance(outputs, DualOutputs) and branch is outputs.one_to_one:
        return best_rows(
            branch,
            strides=strides,
            reg_max=reg_max,
            conf=conf,
            max_det=max_det,
            agnostic=agnostic,
            classes=classes,
        )
    return detections(
        branch,
        strides=strides,
        reg_max=reg_max,
        conf=conf,
        iou=iou,
        max_det=max_det,
        multi_label=multi_label,
        agnostic=agnostic,
        classes=classes,
    )


def decode(branch: Branch, *, strides: Sequence[int], reg_max: int) -> tuple[Tensor, Tensor]:
    """Decodes every anchor of a branch.

    Args:
        branch: raw maps.
        strides: pixels per cell of every level.
        reg_max: R, bins per box side; 1 means that the maps hold the distance itself.

    Returns:
        boxes (B, A, 4) float32 in input pixels, not clipped: xyxy, or cx, cy, w, h of branches with angles;
        probabilities (B, A, C) float32.
    """
    shapes = [(level.shape[2], level.shape[3]) for level in branch.boxes]
    points, scale = anchor_points(shapes, strides, device=branch.boxes[0].device)  # (A, 2), (A,)
    columns = COLUMNS[type(branch.extra)]

    def every(levels: Sequence[Tensor]) -> Tensor:  # (B, A, channels)
        return torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2).float()

    sides, logits = every(branch.boxes), every(branch.scores)
    maps = columns.maps(branch.extra)
    raw = every(maps) if maps else sides[..., :0]
    boxes = columns.boxes(_expected(sides, reg_max), raw, points, scale)
    return boxes, logits.sigmoid()


def select(
    boxes: Tensor,
    scores: Tensor,
    *,
    conf: float,
    iou: float,
    max_det: int,
    multi_label: bool = False,
    agnostic: bool = False,
    classes: Sequence[int] | None = None,
) -> list[Tensor]:
    """Thresholds and suppresses decoded boxes, image by image.

    Args:
        boxes: (B, A, 4) xyxy.
        scores: (B, A, C) probabilities.
        conf: only scores above it count (strictly).
        iou: boxes that overlap a better one by more than this are dropped.
        max_det: most detections per image.
        multi_label: every class above `conf` makes a candidate of its own, instead of the best class only.
        agnostic: boxes of different classes suppress each other too.
        classes: keep these class indices only.

    Returns:
        B tensors (n, 6): xyxy, score, class, by falling score.
    """
    result = []
    for image in map(_Image, boxes, scores, boxes[..., :0]):
        anchor = (image.scores.amax(dim=1) > conf).nonzero().flatten()  # (a,)
        chosen = _candidates(anchor, image.scores[anchor], conf, multi_label, classes)
        result.append(_suppress(image, *chosen, BoxColumns, iou, max_det, agnostic))
    return result


def detections(
    branch: Branch,
    *,
    strides: Sequence[int],
    reg_max: int,
    conf: float,
    iou: float,
    max_det: int,
    multi_label: bool = False,
    agnostic: bool = False,
    classes: Sequence[int] | None = None,
) -> list[Tensor]:
    """The same rows as `select(*decode(branch))`, decoding only the anchors that pass the threshold.

    Args:
        branch: raw maps.
        strides: pixels per cell of every level.
        reg_max: R, bins per box side.
        conf, iou, max_det, multi_label, agnostic, classes: as in `select`.

    Returns:
        B tensors (n, 6 + E), as in `answer`.
    """
    result = []
    columns = COLUMNS[type(branch.extra)]
    for image in _survivors(branch, strides, reg_max, conf):
        every = torch.arange(len(image.scores), device=image.scores.device)
        chosen = _candidates(every, image.scores, conf, multi_label, classes)
        result.append(_suppress(image, *chosen, columns, iou, max_det, agnostic))
    return result


def best_rows(
    branch: Branch,
    *,
    strides: Sequence[int],
    reg_max: int,
    conf: float,
    max_det: int,
    agnostic: bool = False,
    classes: Sequence[int] | None = None,
) -> list[Tensor]:
    """The best (anchor, class) pairs of the best anchors, without any test of overlap (YOLO26, end to end).

    Thresholds and classes are applied after the cut to max(max_det, 300) anchors, or all if there are fewer,
    and to as many pairs. One anchor can appear with several classes.

    Args:
        branch: raw maps of a one-to-one branch.
        strides: pixels per cell of every level.
        reg_max: R, bins per box side.
        conf: only scores above it count (strictly).
        max_det: most detections per image.
        agnostic: the best class of an anchor only.
        classes: keep these class indices only.

    Returns:
        B tensors (n, 6 + E), as in `answer`.
    """
    anchors = sum(level.shape[2] * level.shape[3] for level in branch.scores)
    limit = min(max(max_det, END_TO_END_ROWS), anchors)
    result = []
    for image in _survivors(branch, strides, reg_max, conf):
        if len(image.scores) > limit:
            best = _best(image.scores.amax(dim=1), limit)
            image = _Image(*(part[best] for part in image))
        every = torch.arange(len(image.scores), device=image.scores.device)
        row, score, label = _candidates(every, image.scores, conf, not agnostic, None)
        order = score.argsort(descending=True, stable=True)[:limit]
        if classes is not None:
            order = order[_is_wanted(label[order], classes)]
        order = order[:max_det]
        result.append(_rows(image, row[order], score[order], label[order]))
    return result


def _chosen(
    rows: Tensor, *, conf: float, max_det: int, agnostic: bool, classes: Sequence[int] | None
) -> Tensor:
    """Finished rows (n, 6) of one image, by falling score -> those that are wanted (k, 6)."""
    rows = rows[rows[:, 4] > conf]
    if agnostic and len(rows):  # the best class of an anchor only: its rows have one box
        same = (rows[:, None, :4] == rows[None, :, :4]).all(2).tril(-1)  # (n, n)
        rows = rows[~same.any(1)]
    if classes is not None:
        rows = rows[_is_wanted(rows[:, 5].long(), classes)]
    return rows[:max_det]


def _survivors(branch: Branch, strides: Sequence[int], reg_max: int, conf: float) -> list[_Image]:
    """The anchors, image by image, that may pass the threshold."""
    # A little below the exact logit: the strict test is repeated on the probability, immune to rounding.
    least = -math.inf if conf <= 0.0 else math.inf if conf >= 1.0 else math.log(conf / (1.0 - conf)) - 1e-3
    shapes = [(level.shape[2], level.shape[3]) for level in branch.boxes]
    points, scale = anchor_points(shapes, strides, device=branch.boxes[0].device)
    columns = COLUMNS[type(branch.extra)]
    maps = columns.maps(branch.extra)
    images, anchors, logits, sides, further = [], [], [], [], []
    offset = 0
    for number, (level_boxes, level_scores) in enumerate(zip(branch.boxes, branch.scores, strict=True)):
        flat = level_scores.flatten(2)  # (B, C, HW)
        image, cell = (flat.amax(dim=1).float() > least).nonzero(as_tuple=True)  # (a,)
        images.append(image)
        anchors.append(cell + offset)
        logits.append(flat[image, :, cell].float())  # (a, C)
        sides.append(level_boxes.flatten(2)[image, :, cell].float())  # (a, 4R)
        if maps:
            further.append(maps[number].flatten(2)[image, :, cell].float())  # (a, E)
        offset += flat.shape[2]
    image, anchor, logit, side = torch.cat(images), torch.cat(anchors), torch.cat(logits), torch.cat(sides)
    raw = torch.cat(further) if further else side[:, :0]
    found = _Image(
        columns.boxes(_expected(side, reg_max), raw, points[anchor], scale[anchor]),
        logit.sigmoid(),
        columns.decode(raw, points[anchor], scale[anchor], branch.extra),
    )
    # Levels follow each other, so the rows of an image are in anchor order.
    mine = [(image == index).nonzero().flatten() for index in range(branch.scores[0].shape[0])]
    return [_Image(*(part[rows] for part in found)) for rows in mine]


def _expected(sides: Tensor, reg_max: int) -> Tensor:
    """Distances (..., 4) in grid units of channels (..., 4R)."""
    if reg_max == 1:
        return sides
    bins = torch.arange(reg_max, dtype=sides.dtype, device=sides.device)
    shares = sides.reshape(*sides.shape[:-1], 4, reg_max).softmax(dim=-1)  # (..., 4, R)
    return (shares @ bins.unsqueeze(1)).squeeze(-1)  # by a matrix, because OpenCV knows no other product


def _candidates(
    index: Tensor, scores: Tensor, conf: float, multi_label: bool, classes: Sequence[int] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (a, C) of the anchors `index` (a,) -> anchor, score and class (n,) of every candidate."""
    if multi_label and scores.shape[1] > 1:
        row, label = (scores > conf).nonzero(as_tuple=True)
        score = scores[row, label]
    elif scores.shape[1]:
        score, label = scores.max(dim=1)
        row = (score > conf).nonzero().flatten()
        score, label = score[row], label[row]
    else:
        raise ValueError("a detector needs at least one class")
    if classes is not None:
        kept = _is_wanted(label, classes)
        row, score, label = row[kept], score[kept], label[kept]
    return index[row], score, label


def _is_wanted(label: Tensor, classes: Sequence[int]) -> Tensor:
    return torch.isin(label, torch.as_tensor(list(classes), dtype=label.dtype, device=label.device))


def _suppress(
    image: _Image,
    row: Tensor,
    score: Tensor,
    label: Tensor,
    columns: type[BoxColumns],
    iou: float,
    max_det: int,
    agnostic: bool,
) -> Tensor:
    """Candidates (n,) of one image -> kept rows (k, 6 + E)."""
    if len(score) > MAX_CANDIDATES:
        best = _best(score, MAX_CANDIDATES)
        row, score, label = row[best], score[best], label[best]
    groups = None if agnostic else label
    keep = columns.suppress(image.boxes[row], image.columns[row], score, iou, max_keep=max_det, groups=groups)
    return _rows(image, row[keep], score[keep], label[keep])


def _rows(image: _Image, row: Tensor, score: Tensor, label: Tensor) -> Tensor:
    boxes = image.boxes[row]
    parts = boxes, score.unsqueeze(1), label.unsqueeze(1).to(boxes.dtype), image.columns[row]
    return torch.cat(parts, dim=1)


def _best(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest scores in rising index order; far cheaper than sorting them all."""
    least = scores.kthvalue(len(scores) - count + 1).values
    chosen = scores > least
    ties = (scores == least).nonzero().flatten()
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen.nonzero().flatten()
