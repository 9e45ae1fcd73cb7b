"""One optimizer step over a batch of any size: forward, loss and backward in micro-batches, then one update.

Gradients are those of loss * batch, as in YOLOv9: a batch of B takes B / 64 of the nominal step, and learning
rates need no rescaling with the batch. They are those of the whole batch however it is cut (`normalise`),
except that batch norm takes its statistics over a micro-batch.

When memory runs out, gradients so far are dropped, running statistics are put back, the micro-batch shrinks,
and the same step is done again. Ranks need not agree on that: each cuts its own share as it must, while the
others wait where gradients are added up. Where batch norm takes its statistics over all ranks, they are in
step (`turns`), and all do it again.

A step counts only when the guard agrees: its loss and the norm of its gradient, one number each after all
ranks are added up, are read before weights, average and optimizer change (the one wait for the device).
Where 16-bit numbers overflowed under a loss scale, the scale falls and the step is done again.

Dimensions: B images of the step over all ranks, b images of this rank, L losses, T terms of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.data.batch import scaled
from holdfast.devices import Precision
from holdfast.errors import OutOfMemory
from holdfast.geometry.targets import Targets, filled_out
from holdfast.losses.branch import BranchLoss, quotients, sums_of
from holdfast.memory.recover import attempt, free_memory
from holdfast.models.detector import Detector
from holdfast.nn.sync_norm import Exchange
from holdfast.train.dist import Ranks
from holdfast.train.ema import Ema
from holdfast.train.guard import Guard
from holdfast.train.layers import non_finite_layers
from holdfast.train.micro import MicroBatch
from holdfast.train.normalise import Normalisers
from holdfast.train.room import TRIES, Room
from holdfast.train.statistics import Statistics
from holdfast.train.turns import Turns


class Loss(Protocol):
    """A loss of `losses.detect`, for models whose forward returns the outputs it takes."""

    @property
    def terms(self) -> tuple[str, ...]: ...

    @property
    def per_batch(self) -> bool: ...

    def __call__(self, outputs: Any, targets: Targets, *, progress: float = ...) -> Sequence[BranchLoss]: ...


class Outcome(NamedTuple):
    """What a step came to, the same on every rank.

    Attributes:
        items: (T,) float32 on the CPU: terms of the loss per image over all ranks, gains
            included.
        norm: of all gradients together, before clipping.
        refused: why the step does not count, in which case nothing has changed; empty for a good one.
        layers: parameters whose gradients were not finite, by name.
    """

    items: Tensor
    norm: float
    refused: str = ""
    layers: Sequence[str] = ()


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
        micro: how many images go through the network at a time; by default the whole batch.
        tidy: called before each micro-batch.
        exact: where losses share parameters, measure their sums before each step that is cut.
        ranks: the processes that share a step; by default this one alone.
        exchange: of the model's batch norms, where they take statistics over all ranks.
        guard: decides whether a step counts.
        say: told when memory ran out and what follows.
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
        micro: MicroBatch | None = None,
        tidy: Callable[[], None] = lambda: None,
        exact: bool = False,
        ranks: Ranks | None = None,
        exchange: Exchange | None = None,
        guard: Guard | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.ema = ema
        self.precision = precision
        self.clip_norm = clip_norm
        self.channels_last = channels_last
        self.micro = micro or MicroBatch()
        self.tidy = tidy
        self.exact = exact
        self.ranks = ranks or Ranks.alone()
        self.turns = Turns(exchange, self.ranks)
        self.guard = guard or Guard()
        self.say = say
        self.device = next(model.parameters()).device
        self.scaler = torch.amp.GradScaler(self.device.type) if precision.scale_loss else None
        self.normalisers = Normalisers(model, terms=len(loss.terms), per_batch=loss.per_batch)
        self._statistics = Statistics(model)
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.room = Room(self.micro, device=self.device, say=say)

    def prepare(self, images: Tensor) -> Tensor:
        """Moves uint8 images to the device and scales them there to [0, 1], (b, 3, H, W)."""
        moved = images.to(self.device, non_blocking=True)
        return scaled(moved, dtype=self.precision.dtype, channels_last=self.channels_last)

    def run(self, images: Tensor, targets: Targets, *, progress: float = 0.0) -> Outcome:
        """Does one step over this rank's images of a batch.

        Args:
            images: (b, 3, H, W) uint8; b may be 0 where other ranks have images.
            targets: ground truth in input pixels, on the CPU.
            progress: share of the run that is done, 0 to 1; the balance of a loss may depend on it.

        Raises:
            OutOfMemory: not even one image at a time fits. Weights and statistics are as before the step.
        """
        self._statistics.keep()
        if self.turns.uncounted:
            self._count_exchanges()
        while True:
            sums, count = self._gradients_of(images, targets, progress)
            items, norm = self._read(quotients(sums))
            if not self._overflowed(norm, items):
                break
            self._drop()
        refused, layers = self.guard.judge(norm, items), []
        if refused:
            layers = [] if math.isfinite(norm) else non_finite_layers(self.model)
            self._drop()
        else:
            self.normalisers.learn(sums / count)
            self._update(norm)
            self.room.quiet(len(images))
        return Outcome(torch.tensor(items), norm, refused, layers)

    def trial(self, images: Tensor, targets: Targets, *, progress: float = 0.0) -> tuple[float, list[float]]:
        """Norm of the gradient, and losses, that images of this rank would give alone; nothing changes.

        Raises:
            OutOfMemory: they do not fit.
        """
        self._statistics.keep()
        with ExitStack() as stack:
            if self.turns.exchange is not None:  # other ranks try other images
                stack.enter_context(self.turns.exchange.counting())
            sums, failure = attempt(
                lambda: self._passes(self.micro.parts(len(images)), images, targets, progress, None)
            )
        if sums is None:
            self._drop()
            free_memory(self.device)
            raise OutOfMemory(f"Memory ran out while a step was looked into ({failure}).")
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self.scaler is not None:
            torch._foreach_div_(gradients, self.scaler.get_scale())
        losses = quotients(sums)
        norm, *items = torch.cat((nn.utils.get_total_norm(gradients).reshape(1), losses)).tolist()
        self._drop()
        return norm, items

    def state(self) -> dict[str, Any]:
        """What a resumed run must know of the steps before it."""
        return {"sums": self.normalisers.average, "guard": self.guard.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes over what `state` returned."""
        sums = state.get("sums")
        self.normalisers.average = None if sums is None else sums.to(self.device, copy=True)
        self.guard.load_state(state.get("guard", ()))

    def leave_16_bits(self) -> None:
        """Computes in float32 from now on."""
        self.precision = Precision(torch.float32, False, "float32, because 16 bits did not stay finite")
        self.scaler = None

    def _gradients_of(
        self, images: Tensor, targets: Targets, progress: float
    ) -> tuple[Tensor, Tensor | int]:
        """Computes the gradient of the whole batch; returns (L, 3T) sums and B, over all ranks."""
        used: Tensor | None = None
        sums: Tensor | None = None
        while sums is None:
            if used is None and self._is_cut(len(images)):
                used = self._guess(images, targets, progress)
            factors = used
            sums = self._try(
                lambda parts: self._passes(parts, images, targets, progress, factors),  # noqa: B023
                len(images),
            )
        sums, true, count = self._over_ranks(sums, len(images), gradients=used is not None)
        if used is not None:
            self.normalisers.correct(used, true)
        return sums, count

    def _read(self, losses: Tensor) -> tuple[list[float], float]:
        """Returns the losses and the norm of the gradients, in one transfer."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        *items, length = torch.cat((losses, norm.to(losses.device).reshape(1))).tolist()
        return items, length

    def _overflowed(self, norm: float, items: Sequence[float]) -> bool:
        """Whether the gradient overflowed for a loss scale that can fall; it has fallen then."""
        if self.scaler is None or math.isfinite(norm) or not all(map(math.isfinite, items)):
            return False
        scale = self.scaler.get_scale()
        if scale <= 1.0:
            return False
        self.scaler.update()
        self.say(
            f"gradients overflowed 16-bit numbers with a loss scale of {scale:g}; doing the step again with "
            f"{self.scaler.get_scale():g}"
        )
        return True

    def _drop(self) -> None:
        """Puts everything back to where the step began."""
        self.optimizer.zero_grad(set_to_none=True)
        self._statistics.put_back()

    def _is_cut(self, images: int) -> bool:
        """Whether the sums of a step are unknown when its first backward pass starts."""
        return self.ranks.world > 1 or len(self.micro.parts(images)) > 1

    def _guess(self, images: Tensor, targets: Targets, progress: float) -> Tensor:
        """(L, T) what numerators will be multiplied by, more or less."""
        if not self.model.shares_trunk or not (self.exact or self.normalisers.average is None):
            return self.normalisers.guess(max(len(images), 1) * self.ranks.world)
        sums = None
        while sums is None:
            sums = self._try(
                lambda parts: self._look(parts, images, targets, progress), len(images), backward=False
            )
            self._statistics.put_back()
        return self._over_ranks(sums, len(images))[1]

    def _try(
        self, work: Callable[[Sequence[tuple[int, int]]], Tensor], images: int, *, backward: bool = True
    ) -> Tensor | None:
        """Does work over this rank's micro-batches. None when memory ran out here, or on another rank of an
        attempt that only all can finish; all is as before then, and the micro-batch smaller where it was.
        """
        parts = self.turns.parts(self.micro.parts(images), images)
        self.turns.begin(len(parts), backward=backward)
        sums, failure = attempt(lambda: work(parts))
        if self.turns.end(sums is not None):
            return sums
        self._drop()
        if sums is None:
            self.room.give_way(failure, images)
        return None

    def _count_exchanges(self) -> None:
        """Passes one small image through, forward and backward, and leaves nothing of it."""
        side = 2 * max(self.model.strides)
        image = torch.zeros(1, 3, side, side, dtype=torch.uint8)
        one = torch.zeros(1, dtype=torch.int64)
        keypoints, _ = self.model.header.get("keypoints") or (1, 3)
        target = Targets(one, one, torch.tensor([[0.0, 0.0, side, side]]))
        target = filled_out(target, images=1, side=side, keypoints=keypoints)
        self.turns.count(
            lambda: torch.stack([x.numerators.sum() for x in self._forward(image, target, 0.0)]).sum(),
            lambda total: total.backward(),  # type: ignore[no-untyped-call]
        )
        self._drop()

    @torch.no_grad()
    def _look(
        self, parts: Sequence[tuple[int, int]], images: Tensor, targets: Targets, progress: float
    ) -> Tensor:
        """(L, 3T) sums of this rank's images, without gradients."""
        sums = self.normalisers.zeros()
        for number, (start, stop) in enumerate(parts, 1):
            if start == stop:
                self.turns.skip(len(parts) - number)
                continue
            sums += sums_of(self._forward(images[start:stop], targets.of_images(start, stop), progress))
        return sums

    def _passes(
        self,
        parts: Sequence[tuple[int, int]],
        images: Tensor,
        targets: Targets,
        progress: float,
        factors: Tensor | None,
    ) -> Tensor:
        """Adds up the gradients of this rank's images and returns their (L, 3T) sums.

        Args:
            factors: (L, T) what numerators are multiplied by; None takes the sums of the one micro-batch.
        """
        sums = self.normalisers.zeros()
        for number, (start, stop) in enumerate(parts, 1):
            if start == stop:
                self.turns.skip(len(parts) - number)
                continue
            self.tidy()
            losses = self._forward(images[start:stop], targets.of_images(start, stop), progress)
            part = sums_of(losses)
            sums += part
            by = self.normalisers.factors(part, len(images)) if factors is None else factors
            total = (torch.stack([x.numerators * x.weight for x in losses]) * by).sum()
            del losses
            if self.scaler is not None:
                total = self.scaler.scale(total)
            total.backward()  # type: ignore[no-untyped-call]
        return sums

    def _forward(self, images: Tensor, targets: Targets, progress: float) -> Sequence[BranchLoss]:
        x = self.prepare(images)
        with torch.autocast(self.device.type, dtype=self.precision.dtype, enabled=self.precision.mixed):
            outputs = self.model(x)
        del x
        return self.loss(outputs, targets.to(self.device, non_blocking=True), progress=progress)

    def _over_ranks(
        self, sums: Tensor, images: int, *, gradients: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | int]:
        """Adds up sums, and gradients if asked for: (L, 3T) sums, (L, T) factors, and B.

        With the gradients go running statistics, of which all ranks then have the mean over images: they
        validate and save one model, in which the images of all of them count.
        """
        count: Tensor | int = images
        if self.ranks.world > 1:
            count = sums.new_tensor(float(images))
            running = self._statistics.running if gradients else []
            if running:
                torch._foreach_mul_(running, float(images))
            self.ranks.sum_([sums, count, *running, *(self._gradients() if gradients else [])])
            if running:
                torch._foreach_div_(running, count)
        return sums, self.normalisers.factors(sums, count), count

    def _gradients(self) -> list[Tensor]:
        """The gradient of every trained parameter; zeros on a rank that had no image."""
        for p in self._parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        return [p.grad for p in self._parameters if p.grad is not None]

    def _update(self, norm: float) -> None:
        """Clips the gradients of that norm, moves the weights and their average, drops the gradients."""
        if 0 < self.clip_norm < norm:
            nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, torch.tensor(norm))
        before = self._versions()
        for left in reversed(range(TRIES)):
            done, failure = attempt(self._move)
            if done:
                break
            free_memory(self.device)
            if not left or self._versions() != before:
                raise OutOfMemory(
                    f"Memory ran out while the optimizer changed the weights ({failure}).",
                    hint="Resume the run from its last checkpoint, with a smaller --memory-limit.",
                )
            self.say(f"out of memory in the optimizer ({failure}); nothing was changed, trying again")
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()

    def _move(self) -> bool:
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return True

    def _versions(self) -> int:
        """A number that grows with every change of a weight, or of what the optimizer keeps of it."""
        states = (x for state in self.optimizer.state.values() for x in state.values())
        return sum(x._version for x in (*self._parameters, *states) if isinstance(x, Tensor))
