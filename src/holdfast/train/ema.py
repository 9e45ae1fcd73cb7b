"""Exponential moving average of weights and batch-norm statistics, as one multi-tensor operation.

decay(n) = decay * (1 - exp(-n / tau)) after n updates, so that early averages follow the young model
(YOLOv5 and later). Kept in float32; official YOLOv9 rounds its average to half precision at every
validation, which is not repeated here.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from holdfast.models.detector import Detector


class Ema:
    """Average of a model's floating state.

    Args:
        model: the model to follow.
        decay: limit of the decay, in [0, 1).
        tau: updates after which the decay has reached 63 % of its limit.
    """

    def __init__(self, model: Detector, *, decay: float, tau: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = 0
        ours, theirs = self.model.state_dict(), model.state_dict()
        self._pairs = [(ours[k], theirs[k]) for k in ours if ours[k].is_floating_point()]
        self._counters = [(ours[k], theirs[k]) for k in ours if not ours[k].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the followed model's present weights."""
        self.updates += 1
        decay = self.decay * (1.0 - math.exp(-self.updates / self.tau))
        average = [a for a, _ in self._pairs]
        torch._foreach_lerp_(average, [m for _, m in self._pairs], 1.0 - decay)
        for mine, live in self._counters:
            mine.copy_(live)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the averaged state, sharing memory with the average."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor], *, updates: int) -> None:
        """Restores the average and its counter."""
        self.model.load_state_dict(state)
        self.updates = updates
