"""What a step of this model costs in memory and time, found by trying a few images.

A pass is forward, loss and backward over a micro-batch of the worst kind: the largest side of a run, and in
each image as many boxes as the data set can bring together. A quarter of the side warms up first, so that a
process that would be killed for memory is warned by arithmetic. A few small micro-batches then give two lines
over the number of images, bytes and seconds; memory is one to within a few percent, because activations are
proportional to images. Gradients are there while it is measured, as they are from the second micro-batch of a
step on.

Nothing stays: parameters, buffers, gradients, modes and random states are as before.

Dimensions: b images of a micro-batch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from holdfast.data.batch import scaled
from holdfast.devices import Precision
from holdfast.geometry.targets import BOXES, Targets, filled_out
from holdfast.losses.branch import BranchLoss, combine
from holdfast.memory.budget import Peak, give_back, trim
from holdfast.memory.recover import attempt
from holdfast.models.detector import Detector
from holdfast.nn.recompute import Level
from holdfast.post.decode import answer

MOST_BOXES = 4096  # per image; the assigner works in chunks, so more would not take more
WARM = 4  # part of the side that warms up
PATIENCE = 15.0  # seconds that trying four images may take on a CPU; else two are enough
REPEATS = 2  # passes of one kind: the first prepares kernels for its shape, the quicker one counts
REPEATS_CUDA = 4  # they are short there, and clocks take time to rise


class Loss(Protocol):
    """A loss of `losses.detect`."""

    assigner_bytes: int | None

    def __call__(self, outputs: Any, targets: Targets, *, progress: float = ...) -> Sequence[BranchLoss]: ...


@dataclass(frozen=True)
class Line:
    """A quantity that grows with the number of images: `base + each * images`."""

    base: float
    each: float

    def at(self, images: float) -> float:
        """The quantity for so many images."""
        return self.base + self.each * images

    def most(self, room: float) -> int:
        """Largest number of images whose quantity is within `room`; 0 where not even one is."""
        return max(int((room - self.base) / max(self.each, 1e-9)), 0)


@dataclass(frozen=True)
class Measured:
    """One pass: `images` of it, bytes it took above what was held before, and seconds."""

    images: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What a pass over a micro-batch costs: bytes above the fixed memory, and seconds."""

    bytes: Line
    seconds: Line


def fit(passes: Sequence[Measured]) -> Cost:
    """Lines through the two largest passes; through the origin where there is only one."""
    *_, last = passes
    if len(passes) == 1:
        return Cost(Line(0, last.bytes / last.images), Line(0, last.seconds / last.images))
    before = passes[-2]

    def line(low: float, high: float) -> Line:
        """Never negative, and never less than half of the mean each: small differences are noise."""
        each = max((high - low) / (last.images - before.images), high / last.images / 2)
        return Line(max(high - each * last.images, 0.0), each)

    return Cost(line(before.bytes, last.bytes), line(before.seconds, last.seconds))


class Probe:
    """Tries passes of one model.

    Args:
        model: training form, on its device.
        loss: as in training.
        precision: autocast format.
        channels_last: memory layout of images.
        side: largest side of the input, pixels.
        boxes: boxes per image of the worst batch.
        recompute: sets a recompute level of the model; called with "none" at the end of each use.
    """

    def __init__(
        self,
        model: Detector,
        loss: Loss,
        *,
        precision: Precision,
        channels_last: bool,
        side: int,
        boxes: int,
        recompute: Callable[[Level], None] = lambda level: None,
    ) -> None:
        self.model = model
        self.loss = loss
        self.precision = precision
        self.channels_last = channels_last
        self.side = side
        self.boxes = min(boxes, MOST_BOXES)
        self.recompute = recompute
        self.device = next(model.parameters()).device
        self.gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)

    def warm_up(self) -> float | None:
        """Does a pass over one small image.

        Returns:
            About the bytes that one full image takes, too much rather than too little; None where even the
            small one ran out of memory.
        """
        stride = max(self.model.strides)
        small = max(-(-self.side // WARM // stride) * stride, 2 * stride)
        seen = self._passes("none", 1, side=small)
        return None if seen is None else seen.bytes * (self.side / small) ** 2

    def cost(self, level: Level, room: float) -> Cost | None:
        """Tries a recompute level with as many images as `room` bytes surely hold.

        Returns:
            The lines, or None where not even one image could be tried.
        """
        done: list[Measured] = []
        cuda = self.device.type == "cuda"
        for images in (2, 4, 8, 16) if cuda else (1, 2, 4):
            if done and fit(done).bytes.at(images) > room:
                break
            if not cuda and images == 4 and REPEATS * 2 * done[-1].seconds > PATIENCE:
                break
            seen = self.measure(level, images)
            if seen is None:
                break
            done.append(seen)
        if not done and cuda:
            seen = self.measure(level, 1)
            done = [seen] if seen is not None else []
        return fit(done) if done else None

    def measure(self, level: Level, images: int) -> Measured | None:
        """Tries so many images at a level; None where memory ran out."""
        repeats = REPEATS_CUDA if self.device.type == "cuda" else REPEATS
        return self._passes(level, images, side=self.side, repeats=repeats)

    def _passes(self, level: Level, images: int, *, side: int, repeats: int = 1) -> Measured | None:
        """Most bytes that passes take, each after freed memory was given back; seconds of the quickest."""
        pixels, targets = self._worst(images, side)

        def work() -> Measured:
            seconds = []
            with Peak(self.device) as peak:
                for number in range(repeats):
                    if number and self.device.type == "cpu":
                        trim()
                    start = time.perf_counter()
                    self._pass(pixels, targets)
                    if self.device.type == "cuda":
                        torch.cuda.synchronize(self.device)
                    seconds.append(time.perf_counter() - start)
            return Measured(images, peak.grown, min(seconds))

        with _untouched(self.model):
            self.recompute(level)
            try:
                for p in self.model.parameters():
                    p.grad = torch.zeros_like(p) if p.requires_grad else None
                give_back(self.device)
                return attempt(work)[0]
            finally:
                self.recompute("none")

    def _worst(self, images: int, side: int) -> tuple[Tensor, Targets]:
        """A worst batch, with what the loss of the model needs beyond boxes."""
        needs = self.model.needs
        boxes = 1 if needs.whole else self.boxes
        pixels, targets = worst_batch(images, side=side, boxes=boxes, classes=self.model.classes)
        if needs != BOXES:
            shape = self.model.header.get("keypoints") or (1, 3)
            targets = filled_out(targets, images=images, side=side, keypoints=shape[0])
        return pixels, targets

    def _pass(self, pixels: Tensor, targets: Targets) -> None:
        x = scaled(pixels.to(self.device), dtype=self.precision.dtype, channels_last=self.channels_last)
        with torch.autocast(self.device.type, dtype=self.precision.dtype, enabled=self.precision.mixed):
            outputs = self.model(x)
        del x
        losses = self.loss(outputs, targets.to(self.device), progress=0.0)
        total, _ = combine(losses, len(pixels))
        del outputs, losses
        total.backward()  # type: ignore[no-untyped-call]

    def validation(
        self, *, conf: float, iou: float, max_det: int, nms: bool | None, room: float
    ) -> Cost | None:
        """What validation costs: the deployed copy, its forward and its answers.

        Args:
            conf, iou, max_det, nms: as in validation.
            room: bytes it may take.
        """
        done: list[Measured] = []
        with _untouched(self.model):
            for images in (1, 2):
                if done and 2 * done[0].bytes > room:
                    break
                give_back(self.device)
                seen = attempt(lambda: self._validate(images, conf, iou, max_det, nms))[0]  # noqa: B023
                if seen is None:
                    break
                done.append(seen)
        give_back(self.device)
        return fit(done) if done else None

    def _validate(self, images: int, conf: float, iou: float, max_det: int, nms: bool | None) -> Measured:
        pixels, targets = self._worst(images, self.side)
        start = time.perf_counter()
        with Peak(self.device) as peak, torch.inference_mode():
            deployed = self.model.deploy(nms=nms)
            x = scaled(pixels.to(self.device), dtype=self.precision.dtype, channels_last=True)
            with torch.autocast(self.device.type, dtype=self.precision.dtype, enabled=self.precision.mixed):
                outputs = deployed(x)
            self.loss(outputs, targets.to(self.device))
            answer(
                outputs,
                strides=deployed.strides,
                reg_max=deployed.reg_max,
                conf=conf,
                iou=iou,
                max_det=max_det,
                multi_label=deployed.classes > 1,
            )
        return Measured(images, peak.grown, time.perf_counter() - start)

    def optimizer_bytes(self, make: Callable[[Detector], Optimizer]) -> int:
        """Bytes of the state an optimizer keeps, found by one step of another one over a copy of the model.

        Args:
            make: builds the optimizer over a model's parameters.
        """

        def work() -> int:
            twin = copy.deepcopy(self.model)
            optimizer = make(twin)
            for p in twin.parameters():
                p.grad = torch.zeros_like(p) if p.requires_grad else None
            optimizer.step()
            return sum(
                value.numel() * value.element_size()
                for state in optimizer.state.values()
                for value in state.values()
                if isinstance(value, Tensor)
            )

        counted = attempt(work)[0]
        give_back(self.device)
        return 2 * self.gradients if counted is None else counted  # Adam's, the largest


def worst_batch(images: int, *, side: int, boxes: int, classes: int) -> tuple[Tensor, Targets]:
    """Random images (b, 3, side, side) uint8 with so many boxes in each, from 4 pixels to half the side.

    The same for the same arguments, whatever the random state; that is not touched.
    """
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (images, side, side, 3), dtype=torch.uint8, generator=random)
    count = images * boxes
    spread = torch.rand(count, 2, generator=random)
    half = 2.0 * (side / 8) ** spread  # half a side each, evenly over the orders of size
    centre = torch.rand(count, 2, generator=random) * side
    corners = torch.cat((centre - half, centre + half), 1).clamp(0, side)
    labels = torch.randint(0, max(classes, 1), (count,), generator=random)
    return pixels.permute(0, 3, 1, 2), Targets(torch.arange(images).repeat_interleave(boxes), labels, corners)


@contextmanager
def _untouched(model: Detector) -> Iterator[None]:
    """Trains in the block; afterwards modes, gradients, buffers and random states are as before it."""
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model.train()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            for p, gradient in gradients:
                p.grad = gradient
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
