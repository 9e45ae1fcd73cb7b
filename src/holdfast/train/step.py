"""One optimizer step: forward, loss, backward, clip, update, average.

The loss hands over undivided numerators and their normalising sums, so that splitting the batch later
leaves the gradient exact; here the batch runs whole. Gradients are those of loss * batch, as in YOLOv9: a
batch of B takes B / 64 of the nominal step, and learning rates need no rescaling with the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.data.batch import scaled
from holdfast.devices import Precision
from holdfast.geometry.targets import Targets
from holdfast.losses.branch import BranchLoss, combine
from holdfast.models.detector import Detector
from holdfast.train.ema import Ema


class Loss(Protocol):
    """A loss of `losses.detect`, for models whose forward returns the outputs it takes."""

    terms: tuple[str, str, str]

    def __call__(self, outputs: Any, targets: Targets, *, progress: float = ...) -> Sequence[BranchLoss]: ...


class Stepper:
    """Runs optimizer steps on one device.

    Args:
        model: training-form model, in training mode, on the device.
        loss: returns one `BranchLoss` per branch.
        optimizer: with `name`d groups.
        ema: average to update, or None.
        precision: autocast format.
        clip_norm: largest total gradient norm; 0 switches clipping off.
        channels_last: memory layout of images and features.
    """

    def __init__(
        self,
        model: Detector,
        loss: Loss,
        optimizer: Optimizer,
        *,
        ema: Ema | None,
        precision: Precision,
        clip_norm: float,
        channels_last: bool,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.ema = ema
        self.precision = precision
        self.clip_norm = clip_norm
        self.channels_last = channels_last
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type) if precision.scale_loss else None
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def prepare(self, images: Tensor) -> Tensor:
        """Moves uint8 images to the device and scales them there to [0, 1], (B, 3, H, W)."""
        moved = images.to(self.device, non_blocking=True)
        return scaled(moved, dtype=self.precision.dtype, channels_last=self.channels_last)

    def run(self, images: Tensor, targets: Targets, *, progress: float = 0.0) -> Tensor:
        """Does one step over a batch.

        Args:
            images: (B, 3, H, W) uint8.
            targets: ground truth in input pixels.
            progress: share of the run that is done, 0 to 1; the balance of a loss may depend on it.

        Returns:
            (3,) detached box, class and distance losses per image, gains included, on the device (no
            host sync).
        """
        x = self.prepare(images)
        with torch.autocast(self.device.type, dtype=self.precision.dtype, enabled=self.precision.mixed):
            outputs = self.model(x)
        targets = targets.to(self.device, non_blocking=True)
        total, items = combine(self.loss(outputs, targets, progress=progress), images.shape[0])
        del outputs, x
        if self.scaler is None:
            total.backward()  # type: ignore[no-untyped-call]
        else:
            self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
            self.scaler.unscale_(self.optimizer)
        if self.clip_norm > 0:
            nn.utils.clip_grad_norm_(self._parameters, self.clip_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        return items
