"""The sums that losses are divided by, when a step is cut into parts that do not know them yet.

A loss is a sum of numerators divided by S, the sum of target scores over the whole batch
(`losses.branch`). S is known after the last part of the last rank only. So each part back-propagates
numerators times a guess of B / S, and at the end gradients are multiplied by true / guess: the guess cancels
and only keeps numbers of a common size. With several losses each has its own S, and a parameter takes the
factor of the loss that reaches it (`Detector.loss_modules`). That is exact for models with one loss and for
YOLO26, whose one-to-one head reads features without gradient.

Some models divide the terms of one loss by different sums: masks and keypoints by counts of anchors. The
first term's is the one that is put right; the others keep the ratio that was guessed, or are exact where
`exact` has the sums measured first.

In YOLOv9 both losses reach the trunk, which takes the factor of the main loss. The auxiliary loss then has
the weight 0.25 e there, with e = guessed / true ratio of the two sums. The ratio of earlier steps is a good
guess, because both branches see the same objects: docs/records has the error of the gradient.

Dimensions: B images of the step over all ranks, L losses, T terms of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from holdfast.models.detector import Detector

KEPT = 0.8  # share of the old average that one step keeps


class Normalisers:
    """Guesses the sums of a step, and replaces guesses by true sums in the gradients.

    Args:
        model: whose gradients they are.
        terms: T, numbers per loss.
        per_batch: whether the loss of a batch is multiplied by its images.

    Attributes:
        average: (L, 3T) float32 moving average of sums per image, or None before the first step.
    """

    def __init__(self, model: Detector, *, terms: int, per_batch: bool = True) -> None:
        self.device = next(model.parameters()).device
        self.terms, self.per_batch = terms, per_batch
        self.average: Tensor | None = None
        own = [dict(model.get_submodule(path).named_parameters()) for path in model.loss_modules]
        taken = {id(p) for parameters in own for p in parameters.values()}
        rest = [p for p in model.parameters() if id(p) not in taken]
        self._owners = [rest, *(list(parameters.values()) for parameters in own)]

    def zeros(self) -> Tensor:
        """(L, 3T) room for the sums of a step, as `losses.branch.sums_of` has them."""
        return torch.zeros(len(self._owners), 3 * self.terms, device=self.device)

    def factors(self, sums: Tensor, images: Tensor | int) -> Tensor:
        """(L, T) what numerators are multiplied by: B / S, and 0 for terms whose sum is negative.

        Args:
            sums: (L, 3T) of B images.
        """
        numerators, normalisers, _ = sums.chunk(3, 1)
        scale = images if self.per_batch else 1
        return torch.where(numerators < 0, 0.0, scale / normalisers.clamp(min=1))

    def guess(self, images: int) -> Tensor:
        """(L, T) factors as earlier steps suggest for B = `images`; all ones before the first."""
        if self.average is None:
            return torch.ones(len(self._owners), self.terms, device=self.device)
        return self.factors(self.average * images, images)

    @torch.no_grad()
    def correct(self, used: Tensor, true: Tensor) -> None:
        """Multiplies gradients by true / used, the factors (L, T) of the first term of each loss."""
        ratios = (true[:, 0] / used[:, 0]).unbind()
        for parameters, ratio in zip(self._owners, ratios, strict=True):
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                torch._foreach_mul_(gradients, ratio)

    def learn(self, per_image: Tensor) -> None:
        """Takes the true sums per image (L, 3T) of a step into the average."""
        self.average = per_image if self.average is None else torch.lerp(per_image, self.average, KEPT)
