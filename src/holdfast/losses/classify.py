"""The loss of a classifier: cross-entropy over images.

Unlike the losses of boxes it is not multiplied by the batch, as published.

Dimensions: B images, C classes.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from holdfast.geometry.targets import Targets
from holdfast.losses.branch import BranchLoss
from holdfast.models.outputs import ClassOutputs


class ClassLoss:
    """Mean cross-entropy.

    Args:
        label_smoothing: share in [0, 1) of each target spread evenly over all classes.

    Attributes:
        assigner_bytes: as of other losses; nothing is assigned here.
    """

    terms = ("cls",)
    per_batch = False
    assigner_bytes: int | None = None

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(
        self, outputs: ClassOutputs, targets: Targets, *, progress: float = 0.0
    ) -> list[BranchLoss]:
        """Returns the one loss.

        Args:
            outputs: logits, any float dtype.
            targets: one object per image, of which the class counts.
            progress: share of the run that is done; this loss does not change with it.
        """
        with torch.autocast(outputs.logits.device.type, enabled=False):
            total = F.cross_entropy(
                outputs.logits.float(), targets.classes, reduction="sum", label_smoothing=self.label_smoothing
            )
        return [BranchLoss(total.reshape(1), total.new_full((1,), len(targets.classes)))]
