"""Learning rate and momentum as pure functions of the step number, so that resuming needs one integer.

Warm-up follows YOLOv9: biases fall from `warmup_bias_lr`, all other groups rise from zero, momentum rises
from `warmup_momentum`. Official YOLOv9 lags its epoch schedule by one epoch and never reaches `lrf`; here
epoch e uses factor(e) and the last epoch ends at `lrf` (docs/differences.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Shape = Literal["linear", "cosine", "flat-cosine", "fixed"]


def shape_of(*, cosine: bool, flat: bool, fixed: bool) -> Shape:
    """The shape that switches ask for, at most one of which is on; none means a line."""
    if cosine:
        return "cosine"
    if flat:
        return "flat-cosine"
    return "fixed" if fixed else "linear"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning-rate and momentum schedule of a run.

    Attributes:
        shape: curve from 1 to `lrf` over the run.
        epochs: length of the run.
        steps_per_epoch: optimizer steps in one epoch.
        lr0: peak learning rate.
        lrf: final learning rate as a fraction of `lr0`.
        momentum: momentum (SGD) or beta1 (Adam family) after warm-up.
        warmup_epochs: length of the warm-up, at most the run less one epoch.
        warmup_momentum: momentum at step 0.
        warmup_bias_lr: learning rate of biases at step 0.
    """

    shape: Shape
    epochs: int
    steps_per_epoch: int
    lr0: float
    lrf: float
    momentum: float
    warmup_epochs: float
    warmup_momentum: float
    warmup_bias_lr: float

    @property
    def warmup_steps(self) -> int:
        """Number of warm-up steps."""
        return round(min(self.warmup_epochs, self.epochs - 1) * self.steps_per_epoch)

    def progress(self, epoch: int) -> float:
        """Returns the share of the run, 0 to 1, that lies before an epoch (from 0); 1 in the last."""
        return epoch / max(self.epochs - 1, 1)

    def factor(self, epoch: int) -> float:
        """Returns the fraction of `lr0` in force in an epoch (from 0), between 1 and `lrf`."""
        done = self.progress(epoch)
        if self.shape == "fixed":
            return 1.0
        if self.shape == "linear":
            return (1.0 - done) * (1.0 - self.lrf) + self.lrf
        if self.shape == "flat-cosine":
            done = max(0.0, 2.0 * done - 1.0)
        return self.lrf + (1.0 - self.lrf) * (1.0 + math.cos(math.pi * done)) / 2.0

    def at(self, step: int, *, bias: bool, scale: float = 1.0) -> tuple[float, float]:
        """Returns (learning rate, momentum) of a step counted from the start of the run.

        Args:
            step: global optimizer step, from 0.
            bias: True for the group of biases.
            scale: factor on the group's learning rate, except on where the warm-up of biases starts.
        """
        lr = scale * self.lr0 * self.factor(step // self.steps_per_epoch)
        warm = self.warmup_steps
        if step >= warm:
            return lr, self.momentum
        share = step / warm
        start = self.warmup_bias_lr if bias else 0.0
        return start + (lr - start) * share, self.warmup_momentum + (
            self.momentum - self.warmup_momentum
        ) * share
