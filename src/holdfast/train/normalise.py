"""The sums that losses are divided by, when a step is cut into parts that do not know them yet.

A loss is a sum of numerators divided by S, the sum of target scores over the whole batch
(`losses.branch`). S is known after the last part of the last rank only. So each part back-propagates
numerators times a guess of B / S, and at the end gradients are multiplied by true / guess: the guess cancels
and only keeps numbers of a common size. With several losses each has its own S, and a parameter takes the
factor of the loss that reaches it (`Detector.loss_modules`). That is exact for models with one loss and for
YOLO26, whose one-to-one head reads features without gradient.

In YOLOv9 both losses reach the trunk, which takes the factor of the main loss. The auxiliary loss then has
the weight 0.25 e there, with e = guessed / true ratio of the two sums. The ratio of earlier steps is a good
guess, because both branches see the same objects: docs/records has the error of the gradient.

Dimensions: B images of the step over all ranks, L losses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from holdfast.losses.branch import BranchLoss
from holdfast.models.detector import Detector

KEPT = 0.8  # share of the old average that one step keeps


class Normalisers:
    """Guesses the sums of a step, and replaces guesses by true sums in the gradients.

    Args:
        model: whose gradients they are.

    Attributes:
        average: (L,) float32 moving average of S per image, or None before the first step.
    """

    def __init__(self, model: Detector) -> None:
        self.device = next(model.parameters()).device
        self.average: Tensor | None = None
        own = [dict(model.get_submodule(path).named_parameters()) for path in model.loss_modules]
        taken = {id(p) for parameters in own for p in parameters.values()}
        rest = [p for p in model.parameters() if id(p) not in taken]
        self._owners = [rest, *(list(parameters.values()) for parameters in own)]

    def zeros(self) -> Tensor:
        """(L, 4) room for the sums of a step: box, class and distance numerators as shown, and S."""
        return torch.zeros(len(self._owners), 4, device=self.device)

    def guess(self, images: int) -> Tensor:
        """(L,) B / S as earlier steps suggest for B = `images`; all ones before the first."""
        if self.average is None:
            return torch.ones(len(self._owners), device=self.device)
        return images / (self.average * images).clamp(min=1)

    @torch.no_grad()
    def correct(self, used: Tensor, true: Tensor) -> None:
        """Multiplies gradients by true / used, the factors (L,) B / S of each loss."""
        ratios = (true / used).unbind()
        for parameters, ratio in zip(self._owners, ratios, strict=True):
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                torch._foreach_mul_(gradients, ratio)

    def learn(self, per_image: Tensor) -> None:
        """Takes the true S per image (L,) of a step into the average."""
        self.average = per_image if self.average is None else torch.lerp(per_image, self.average, KEPT)


def sums_of(losses: Sequence[BranchLoss]) -> Tensor:
    """(L, 4) detached numerators, as shown, and S."""
    rows = [torch.cat((x.numerators.detach() * x.shown, x.normaliser.reshape(1))) for x in losses]
    return torch.stack(rows)
