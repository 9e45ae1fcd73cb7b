"""Validation: deployed model over letterboxed rectangular batches, scored as COCO counts it.

Boxes go back to original pixels and are clipped there before they are scored. Non-maximum suppression has
no time limit. An image that cannot be read any more counts as one on which nothing was found: the number can
only be too low then, and is still about the same objects. Several ranks validate every n-th batch each; rank
0 joins what they found in the order of batches, so the result is that of one rank to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from holdfast.data.batch import Batch, scaled
from holdfast.data.crops import EvalCrops
from holdfast.data.eval_samples import EvalSamples
from holdfast.data.index import Index
from holdfast.data.letterbox import Letterbox
from holdfast.data.loader import EvalLoader
from holdfast.data.reader import EvalReader
from holdfast.devices import Precision
from holdfast.evaluate.metrics import Metrics
from holdfast.geometry.targets import BOXES, Needs, Targets
from holdfast.losses.branch import BranchLoss, quotients, sums_of
from holdfast.memory.recover import Pieces
from holdfast.models.detector import Detector
from holdfast.models.exported import Exported
from holdfast.models.outputs import DetectOutputs
from holdfast.post.decode import END_TO_END_ROWS, answer
from holdfast.post.original import Found, in_input, in_original
from holdfast.val.scoring import SCORINGS, runs
from holdfast.val.share import Alone, Part, Ranks, in_order

Loss = Callable[[Any, Targets], Sequence[BranchLoss]]


@dataclass
class ValResult:
    """What one validation found.

    Attributes:
        metrics: what was measured, overall and per class.
        speed: milliseconds per image of preprocess, inference, postprocess.
        losses: the terms of the loss per image, or None when no loss was given.
        images: number of images.
        predictions: per image (dataset index, what was found in original pixels), on the CPU; on rank 0 only.
        unread: how many images could not be read; nothing was found on them.
    """

    metrics: Metrics
    speed: dict[str, float]
    losses: tuple[float, ...] | None
    images: int
    predictions: list[tuple[int, Found]]
    unread: int = 0


class _Piece(NamedTuple):
    """What some images of a batch gave.

    Attributes:
        sums: of losses.
        shown: per image all that was found, in input pixels, where pictures are drawn of it.
        found: per image all that was found, in original pixels.
        seconds: of the three phases.
    """

    sums: Tensor
    shown: list[Found]
    found: list[Found]
    seconds: tuple[float, float, float]


class Evaluator:
    """Validates models on one data set, as often as asked.

    Args:
        index: images and labels.
        names: class names.
        imgsz: long side of the network input, pixels.
        stride: what input sides are multiples of: the model's largest.
        batch: images per forward.
        workers: loader workers.
        rect: pad each batch only to its own shape.
        device: where the network runs.
        precision: autocast format.
        conf: lowest score that counts.
        iou: overlap above which a lower-scoring box of the same class is dropped.
        max_det: detections kept per image; from 300 on, at least as many as an image has objects.
        nms: which branch answers, as in `Detector.deploy`.
        single_cls: treat all classes as one.
        needs: what the model's loss reads of targets.
        answers: type of what the models say, `Detector.answers`, which decides how it is scored.
        read: where the images come from; the files when None.
        ranks: the processes that share each validation; this one does all when None.
        say: told when memory ran out and a batch goes through the network in pieces, and what could not be
            read.
    """

    def __init__(
        self,
        index: Index,
        *,
        names: Mapping[int, str],
        imgsz: int,
        stride: int,
        batch: int,
        workers: int,
        rect: bool,
        device: torch.device,
        precision: Precision,
        conf: float,
        iou: float,
        max_det: int,
        nms: bool | None,
        single_cls: bool,
        needs: Needs = BOXES,
        answers: type = DetectOutputs,
        read: EvalReader | None = None,
        ranks: Ranks | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.index = index
        self.names = dict(names)
        self.device = device
        self.precision = precision
        self.conf = conf
        self.iou = iou
        # Fewer than there are objects would bound recall; a limit below the usual one is meant.
        self.max_det = max(max_det, index.fullest) if max_det >= END_TO_END_ROWS else max_det
        self.nms = nms
        self.single_cls = single_cls
        self.scoring = SCORINGS[answers]
        rect = rect and not needs.whole
        samples = (EvalCrops if needs.whole else EvalSamples)(
            index, imgsz=imgsz, stride=stride, rect=rect, pad=0.5 if rect else 0.0, batch=batch, read=read
        )
        self.ranks = ranks or Alone()
        self.say: Callable[[str], None] = lambda text: say(f"validation: {text}")
        if self.max_det > max_det:
            kept = f"{self.max_det} detections of an image count, not {max_det} (max_det)"
            self.say(f"{kept}: one has as many objects")
        self._named: set[int] = set()  # images that were said to be unreadable
        self.pieces = Pieces(batch, device=device, say=self.say)
        self.loader = EvalLoader(
            samples,
            batch=batch,
            workers=workers,
            pin=device.type == "cuda",
            say=self.say,
            part=self.ranks.rank,
            parts=self.ranks.world,
            needs=needs,
        )

    def __call__(
        self,
        model: Detector | Exported,
        *,
        loss: Loss | None = None,
        on_batch: Callable[[int, Batch, list[Found]], None] | None = None,
    ) -> ValResult:
        """Validates a model, which stays as it is (a folded copy runs); on every rank at once.

        Args:
            loss: also measures the loss of the branch that answers.
            on_batch: called with batch number, batch and its detections in input pixels, to draw pictures;
                with this rank's batches.

        Returns:
            The same on every rank, but for the predictions.
        """
        deployed = model.deploy(nms=self.nms).to(  # type: ignore[call-overload]
            self.device, memory_format=torch.channels_last
        )
        clock = dict.fromkeys(("preprocess", "inference", "postprocess"), 0.0)
        parts: list[Part] = []
        draws = on_batch is not None
        with torch.inference_mode():
            for number, batch in enumerate(self.loader):
                pieces = self.pieces.run(
                    len(batch.images),
                    lambda start, stop: self._piece(deployed, batch, start, stop, loss, draws),  # noqa: B023
                )
                if on_batch is not None:
                    on_batch(number, batch, [one for piece in pieces for one in piece.shown])
                for piece in pieces:
                    piece.shown.clear()  # holds what masks are made of
                sums = torch.stack([piece.sums for piece in pieces]).sum(0)
                unread = {int(batch.indices[at]): why for at, why in batch.unread.items()}
                found = [one for piece in pieces for one in piece.found]
                parts.append(Part(sums, list(zip(batch.indices.tolist(), found, strict=True)), unread))
                for piece in pieces:
                    for name, spent in zip(clock, piece.seconds, strict=True):
                        clock[name] += spent
        told = self.ranks.gather((parts, clock))
        result = self._joined(told, with_loss=loss is not None) if told else None
        shared = self.ranks.broadcast_object(result and replace(result, predictions=[]))
        result = result or shared
        assert result is not None
        return result

    def _say_unread(self, unread: Mapping[int, str]) -> None:
        """Names each image that could not be read once, and says at each validation how many there are."""
        for number, why in unread.items():
            if number not in self._named:
                self._named.add(number)
                self.say(why)
        if unread:
            self.say(
                f"{len(unread)} of {len(self.index)} images could not be read and count as images on which "
                "nothing was found"
            )

    def _piece(
        self,
        deployed: Detector | Exported,
        batch: Batch,
        start: int,
        stop: int,
        loss: Loss | None,
        draws: bool,
    ) -> _Piece:
        """What was found on some images of a batch, and their share of the losses."""
        began = self._now()
        pixels = batch.images[start:stop].to(self.device, non_blocking=True)
        x = scaled(pixels, dtype=self.precision.dtype, channels_last=True)
        ready = self._now()
        with torch.autocast(self.device.type, dtype=self.precision.dtype, enabled=self.precision.mixed):
            outputs = deployed(x)
        done = self._now()
        sums = torch.zeros(0, device=self.device)
        if loss is not None:
            sums = sums_of(loss(outputs, batch.targets.of_images(start, stop).to(self.device)))
        scored = self._now()
        answers = answer(
            outputs,
            strides=deployed.strides,
            reg_max=deployed.reg_max,
            conf=self.conf,
            iou=self.iou,
            max_det=self.max_det,
            multi_label=len(self.names) > 1,
            agnostic=self.single_cls,
        )
        found = in_original(outputs, answers, self._placed(batch, start, stop), masks=runs)
        shown = in_input(outputs, answers, *x.shape[2:]) if draws else []
        if self.single_cls:  # whatever class the model said
            found, shown = ([one.of_one_class() for one in some] for some in (found, shown))
        # Whatever the network saw in plain gray is not an answer.
        gray = [at - start for at in batch.unread if start <= at < stop]
        for at in gray:
            found[at] = found[at].nothing()
            if shown:
                shown[at] = Found(boxes=shown[at].rows[:0])
        return _Piece(
            sums.cpu(),
            shown,
            found,
            (ready - began, done - ready, self._now() - scored),
        )

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @staticmethod
    def _placed(batch: Batch, start: int, stop: int) -> Sequence[Letterbox]:
        """How some images of a batch lie in the input; classified ones are not mapped back."""
        if batch.letterboxes is None:
            return [Letterbox(1.0, 1.0, 0, 0, *batch.images.shape[2:])] * (stop - start)
        return batch.letterboxes[start:stop]

    def _joined(self, told: list[tuple[list[Part], dict[str, float]]], *, with_loss: bool) -> ValResult:
        """Scores what all ranks found, batch after batch."""
        batches = in_order([parts for parts, _ in told])
        scorer = self.scoring(self.names, self.index.sigmas)
        sums: Tensor | float = 0.0
        unread: dict[int, str] = {}
        for part in batches:
            sums = sums + part.sums
            unread.update(part.unread)
            for number, found in part.found:
                scorer.add(number, found, self.index.objects(number), self.index.size(number))
        self._say_unread(unread)
        spent = {name: sum(clock[name] for _, clock in told) for name in told[0][1]}
        images = len(self.index)
        return ValResult(
            scorer.compute(),
            {name: 1000.0 * seconds / max(images, 1) for name, seconds in spent.items()},
            tuple(quotients(sums).tolist()) if with_loss and isinstance(sums, Tensor) else None,
            images,
            [pair for part in batches for pair in part.found],
            len(unread),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what a validation finds."""
        return self.scoring.metrics.columns

    def close(self) -> None:
        """Stops the loader's workers."""
        self.loader.close()
