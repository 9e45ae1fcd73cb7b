"""Whether an exported file says what the model says, number by number.

Anchors are compared one to one. Rows are compared by looking for each row of one side its nearest on the
other, because equal scores may stand in any order; rows at the end of a list that was cut off are left out,
as which of two nearly equal anchors comes last is chance.

Dimensions: B batch, A anchors, C classes, n rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from holdfast.export.suppress import Suppression
from holdfast.models.detector import Detector
from holdfast.models.outputs import Decoded, DualOutputs, FileOutputs, Rows
from holdfast.post.decode import answer, answering, decode


class Difference(NamedTuple):
    """How far two answers are apart at most.

    Attributes:
        boxes: in input pixels.
        scores: of probabilities.
    """

    boxes: float
    scores: float

    def within(self, limit: Difference) -> bool:
        """Whether both are at most the limit's; what is not a number never is."""
        return self.boxes <= limit.boxes and self.scores <= limit.scores

    def __str__(self) -> str:
        return f"boxes {self.boxes:.2g} px, scores {self.scores:.2g}"


FULL = Difference(boxes=0.05, scores=1e-3)
"""Most that 32 bits may differ: runtimes add up in different orders."""

HALF = Difference(boxes=2.0, scores=2e-2)
"""Most that 16 bits may differ from 32."""

TIE = 1e-6  # scores this near are taken for equal


def expected(
    model: Detector, images: Tensor, *, max_det: int, suppression: Suppression | None
) -> FileOutputs:
    """What a file of a deployed model is to give for images (B, 3, H, W), found in the way of `predict`."""
    outputs = model(images)
    one_to_one = isinstance(outputs, DualOutputs) and outputs.one_to_one is not None
    if suppression is None and not one_to_one:
        return Decoded(*decode(answering(outputs), strides=model.strides, reg_max=model.reg_max))
    conf, iou, _, agnostic = suppression or (0.0, 1.0, max_det, False)
    found = answer(
        outputs, strides=model.strides, reg_max=model.reg_max, conf=conf, iou=iou, max_det=max_det,
        agnostic=agnostic,
    )  # fmt: skip
    return Rows(torch.stack([F.pad(rows, (0, 0, 0, max_det - len(rows))) for rows in found]))


def compare(found: FileOutputs, wanted: FileOutputs, *, thresholded: bool = False) -> Difference:
    """The largest difference between what a file gave and what the model gives for the same images.

    Args:
        found: what the file gave.
        wanted: what the model gives.
        thresholded: whether rows end where scores are too low, and not where there are too many.
    """
    if isinstance(found, Decoded) and isinstance(wanted, Decoded):
        return Difference(_largest(found.boxes - wanted.boxes), _largest(found.scores - wanted.scores))
    if isinstance(found, Decoded) or isinstance(wanted, Decoded):
        return Difference(float("inf"), float("inf"))  # another layout than was asked for
    boxes = scores = 0.0
    for one, other in zip(found.rows, wanted.rows, strict=True):
        scores = max(scores, _largest(one[:, 4] - other[:, 4]))
        for mine, theirs in ((one, other), (other, one)):
            kept = mine[mine[:, 4] > 0]
            if len(kept) and not (thresholded and len(kept) < len(mine)):
                kept = kept[kept[:, 4] > kept[-1, 4] + scores + TIE]
            boxes = max(boxes, _farthest(kept, theirs, tolerance=scores + TIE))
    return Difference(boxes, scores)


def _largest(difference: Tensor) -> float:
    value = difference.abs().max() if difference.numel() else torch.zeros(())
    return float(value) if bool(value.isfinite()) else float("inf")


def _farthest(rows: Tensor, others: Tensor, *, tolerance: float) -> float:
    """Pixels, at most, from a row (n, 6) to the nearest other one of its class and nearly its score."""
    if not len(rows):
        return 0.0
    apart = (rows[:, None, :4] - others[None, :, :4]).abs().amax(2)  # (n, n)
    near = (rows[:, None, 4] - others[None, :, 4]).abs() <= tolerance
    same = (rows[:, None, 5] == others[None, :, 5]) & near
    return float(apart.masked_fill(~same, float("inf")).amin(1).max())
