"""The parts of a run from its settings: each function unpacks what one part needs.

`session` puts them together; no other file of the trainer sees settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch.optim import Optimizer

from holdfast.data.crops import TrainCrops, read_side
from holdfast.data.dataset_file import DatasetFile
from holdfast.data.index import Index
from holdfast.data.reader import EvalReader, TrainReader, recent_bytes
from holdfast.data.samples import TrainSamples
from holdfast.data.splits import split_index
from holdfast.data.storing import Opened
from holdfast.devices import Device, Precision
from holdfast.geometry.targets import Needs
from holdfast.load import LoadedModel, require_task
from holdfast.losses.detect import Criterion, criterion
from holdfast.memory.budget import held, trim
from holdfast.models.detector import Detector
from holdfast.nn.sync_norm import synchronise
from holdfast.settings import TrainSettings
from holdfast.settings.components import AugmentSettings, DetectionSettings, LossSettings
from holdfast.settings.types import usable_cores
from holdfast.train.dist import Ranks
from holdfast.train.ema import Ema
from holdfast.train.gauge import breakdown, image_bytes
from holdfast.train.guard import Guard
from holdfast.train.layers import LayerNorms
from holdfast.train.loop import Plan
from holdfast.train.micro import MicroBatch
from holdfast.train.model import repeatable, starting_model
from holdfast.train.monitor import Monitor
from holdfast.train.optim import (
    OptimChoice,
    build_optimizer,
    choose_optimizer,
    rescaled,
    scaled_weight_decay,
    steps_per_epoch,
)
from holdfast.train.plan import MemoryPlan
from holdfast.train.planner import most_boxes, plan_run
from holdfast.train.recorder import Recorder
from holdfast.train.roles import Evaluator
from holdfast.train.schedule import Schedule, shape_of
from holdfast.train.start import synchronises
from holdfast.train.step import Stepper
from holdfast.train.stores import open_stores

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Sides in pixels.

    Attributes:
        stride: the model's largest, of which input sides are multiples.
        train: input side of training.
        val: input side of validation.
        largest: of training with `multi_scale`, not rounded.
    """

    stride: int
    train: int
    val: int
    largest: int

    def read(self, split: str, index: Index, needs: Needs) -> int:
        """The side at which the images of a split are read."""
        side = self.largest if split == "train" else self.val
        return read_side(index, side, whole=needs.whole)


def sides_of(settings: TrainSettings, stride: int) -> Sides:
    """The sides of a run of a model of this largest stride."""
    train = max(-(-settings.imgsz // stride) * stride, 64)
    val = max(-(-(settings.val_imgsz or train) // stride) * stride, 64)
    return Sides(stride=stride, train=train, val=val, largest=round(train * (1 + settings.multi_scale)))


def model_of(settings: TrainSettings, dataset: DatasetFile, names: Mapping[int, str]) -> LoadedModel:
    """The model to train, on the host."""
    loaded = starting_model(
        settings.model,
        named="model" in settings.given(),
        weights=settings.weights,
        pretrained=settings.pretrained,
        names=names,
        keypoints=dataset.keypoints,
    )
    require_task(loaded.model, settings.task)
    loaded.model.spare(settings.nms)  # an impossible choice is refused now, not after an epoch
    return loaded


def indices_of(
    settings: TrainSettings,
    dataset: DatasetFile,
    needs: Needs,
    *,
    cache: Path | None,
    scanned: Callable[[int, int], None] | None,
) -> dict[str, Index]:
    """The images of the splits `train` and `val`."""
    index = partial(
        split_index,
        dataset,
        needs=needs,
        single_cls=settings.single_cls,
        workers=settings.threads,
        cache=cache,
        scanned=scanned,
    )
    return {
        "train": index("train", fraction=settings.fraction, min_items=settings.min_items),
        "val": index("val"),
    }


def stores_of(
    settings: TrainSettings,
    ranks: Ranks,
    splits: Mapping[str, Index],
    read_at: Mapping[str, int],
    folder: Path | None,
) -> dict[str, Opened]:
    """What keeps the images of each split, which are read at sides of `read_at`."""
    train, val = open_stores(
        settings.cache,
        ranks,
        splits["train"],
        splits["val"],
        sides=(read_at["train"], read_at["val"]),
        budget=settings.cache_budget,
        folder=folder or Path(settings.project) / "images",
    )
    return {"train": train, "val": val}


def loss_of(settings: TrainSettings, model: Detector, train: Index) -> Criterion:
    """The loss of a model."""
    return criterion(
        model.outputs,
        strides=model.strides,
        reg_max=model.reg_max,
        extra=model.extra,
        sigmas=train.sigmas,
        **settings.part(LossSettings),
    )


def optimizer_of(
    settings: TrainSettings, model: Detector, batch: int, *, images: int, length: int | None
) -> tuple[OptimChoice, Optimizer]:
    """The optimizer over a model, and what was decided about it.

    Args:
        batch: images per step.
        images: of the training split.
        length: steps of the whole run as it was planned when it began, by which `auto` has chosen; None
            counts them.
    """
    choice = choose_optimizer(
        settings.optimizer,
        steps=length or steps_per_epoch(images, batch) * settings.epochs,
        classes=len(model.names),
        lr0=settings.lr0,
        momentum=settings.momentum,
        warmup_bias_lr=settings.warmup_bias_lr,
        long_run=model.long_run_optimizer,
    )
    choice = rescaled(choice, settings.lr_scale, batch=batch, nominal_batch=settings.nbs)
    decay = scaled_weight_decay(settings.weight_decay, batch=batch, nominal_batch=settings.nbs)
    return choice, build_optimizer(model, choice, weight_decay=decay, class_branches=model.class_branches)


def plan_of(
    settings: TrainSettings,
    model: Detector,
    loss: Criterion,
    *,
    make_optimizer: Callable[[Detector, int], Optimizer],
    precision: Precision,
    narrow: Precision | None,
    sides: Sides,
    train: Index,
    batch: int,
    accumulate: int,
    ranks: Ranks,
    read_at: int,
    stored: int,
) -> MemoryPlan:
    """Measures how the steps of this rank fit into memory.

    Args:
        make_optimizer, precision, narrow, batch, accumulate: as of `planner.plan_run`.
        read_at: side at which training images are read.
        stored: bytes that kept images may take.
    """
    with repeatable(settings.deterministic):
        return plan_run(
            model,
            loss,
            make_optimizer=make_optimizer,
            precision=precision,
            channels_last=settings.channels_last,
            side=-(-sides.largest // sides.stride) * sides.stride,
            boxes=_most_boxes(settings, train),
            images=len(train),
            batch=batch,
            accumulate=accumulate,
            ranks=ranks.world,
            micro_batch=settings.micro_batch,
            ckpt=str(settings.ckpt),
            memory_limit=settings.memory_limit,
            headroom=settings.headroom,
            average=settings.ema,
            host_images=recent_bytes(train.sizes, read_at) + (stored if settings.cache == "ram" else 0),
            sharing=ranks.local_world if next(model.parameters()).device.type == "cpu" else 1,
            nms=settings.nms,
            narrow=narrow,
            may_narrow=settings.amp,
            **settings.part(DetectionSettings),
        )


def _most_boxes(settings: TrainSettings, index: Index) -> int:
    """Most boxes that the augmentation can bring into one picture."""
    joined = 4 if settings.mosaic_tiles == "4" else 9
    doubled = settings.mixup > 0 or settings.cutmix > 0 or settings.copy_paste > 0
    return most_boxes(index.offsets, joined=joined if settings.mosaic > 0 else 1, mixed=doubled)


def stepper_of(
    settings: TrainSettings,
    model: Detector,
    loss: Criterion,
    optimizer: Optimizer,
    *,
    precision: Precision,
    memory: MemoryPlan,
    ranks: Ranks,
    say: Say,
) -> Stepper:
    """What does the steps, with the average of the weights."""
    return Stepper(
        model,
        loss,
        optimizer,
        ema=Ema(model, decay=settings.ema_decay, tau=settings.ema_tau) if settings.ema else None,
        precision=precision,
        clip_norm=settings.clip_norm,
        channels_last=settings.channels_last,
        micro=MicroBatch(memory.micro_batch if memory.parts > 1 else None),
        tidy=trim if memory.trim else _idle,
        exact=settings.exact_gradient,
        ranks=ranks,
        exchange=synchronise(model, ranks.sum_)
        if synchronises(ranks, settings.sync_bn, memory.micro_batch)
        else None,
        guard=Guard(spikes=settings.skip_spikes),
        say=say,
    )


def _idle() -> None:
    """Does nothing."""


def work_of(settings: TrainSettings) -> Plan:
    """What a run has to do."""
    return Plan(
        epochs=settings.epochs,
        val_interval=0 if settings.noval else settings.val_interval,
        patience=settings.patience,
        save_last=not settings.nosave,
        save_period=settings.save_period,
    )


def schedule_of(settings: TrainSettings, choice: OptimChoice, steps: int) -> Schedule:
    """The learning rates and momenta of a run of so many steps per epoch."""
    return Schedule(
        shape=shape_of(cosine=settings.cos_lr, flat=settings.flat_cos_lr, fixed=settings.fixed_lr),
        epochs=settings.epochs,
        steps_per_epoch=steps,
        lr0=choice.lr0,
        lrf=settings.lrf,
        momentum=choice.momentum,
        warmup_epochs=settings.warmup_epochs,
        warmup_momentum=settings.warmup_momentum,
        warmup_bias_lr=choice.warmup_bias_lr,
    )


def samples_of(
    settings: TrainSettings,
    dataset: DatasetFile,
    train: Index,
    needs: Needs,
    *,
    sides: Sides,
    read_at: int,
    opened: Opened,
) -> TrainSamples:
    """The augmented samples of the training split."""
    return (TrainCrops if needs.whole else TrainSamples)(
        train,
        imgsz=sides.train,
        seed=settings.seed,
        epochs=settings.epochs,
        multi_scale=settings.multi_scale,
        rect=settings.rect,
        image_weights=settings.image_weights,
        stride=sides.stride,
        flip_index=dataset.flip_idx,
        **settings.part(AugmentSettings),
        read=TrainReader(train, side=read_at, store=opened.store, timeout=settings.read_timeout),
    )


def evaluator_of(
    settings: TrainSettings,
    make: Callable[..., Evaluator],
    val: Index,
    model: Detector,
    needs: Needs,
    *,
    sides: Sides,
    read_at: int,
    opened: Opened,
    memory: MemoryPlan,
    workers: int,
    device: Device,
    precision: Precision,
    ranks: Ranks,
    say: Say,
) -> Evaluator:
    """What validates; the arguments of `make` are those of `val.run.Evaluator`."""
    return make(
        val,
        names=model.names,
        imgsz=sides.val,
        stride=sides.stride,
        batch=max(1, int(memory.val_batch * min(1.0, (sides.largest / sides.val) ** 2))),
        workers=workers,
        rect=True,
        device=device.device,
        precision=precision,
        **settings.part(DetectionSettings),
        nms=settings.nms,
        single_cls=settings.single_cls,
        needs=needs,
        answers=model.answers,
        read=EvalReader(val, side=read_at, store=opened.store, timeout=settings.read_timeout),
        ranks=ranks,
        say=say,
    )


def monitor_of(
    settings: TrainSettings,
    stepper: Stepper,
    *,
    steps: int,
    memory: MemoryPlan,
    sides: Sides,
    ranks: Ranks,
    shared: bool,
    recorder: Recorder | None,
) -> Monitor:
    """What shows and records a run.

    Args:
        steps: per epoch.
        shared: whether several processes write to the terminal.
        recorder: of rank 0.
    """
    model, optimizer, ema = stepper.model, stepper.optimizer, stepper.ema
    device = next(model.parameters()).device
    return Monitor(
        epochs=settings.epochs,
        steps_per_epoch=steps,
        device=device,
        terms=stepper.loss.terms,
        verbose=settings.verbose and ranks.main,
        shared=shared,
        cores=usable_cores(),
        clip_norm=settings.clip_norm,
        planned=memory.peak,
        recorder=recorder,
        layers=LayerNorms(model, optimizer) if ranks.main else None,
        account=partial(
            breakdown,
            model,
            optimizer,
            None if ema is None else ema.model,
            image_bytes(memory.micro_batch, sides.largest, stepper.precision.dtype),
            held(device),
        ),
    )
