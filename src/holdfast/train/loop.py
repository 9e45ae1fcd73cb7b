"""The training loop: epochs of steps, validation, checkpoints, early stop. Plain code, read top to bottom.

Everything here is handed over ready-made by `session.py`; random draws are functions of (seed, epoch,
index), so a loop that starts at epoch e does what an uninterrupted one would have done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from holdfast.data.batch import Batch
from holdfast.data.loader import TrainLoader
from holdfast.evaluate.coco import DetectionMetrics
from holdfast.models.detector import Detector
from holdfast.runs import CsvLog
from holdfast.train.checkpoint import Progress, save_checkpoint, save_weights
from holdfast.train.monitor import EpochStats, Monitor
from holdfast.train.optim import apply_schedule
from holdfast.train.schedule import Schedule
from holdfast.train.step import Stepper

METRICS = ("metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)")


def columns(stepper: Stepper) -> tuple[str, ...]:
    """Header of results.csv: losses by the names of their terms, one learning rate per parameter group."""
    losses = [[f"{split}/{term}_loss" for term in stepper.loss.terms] for split in ("train", "val")]
    rates = [f"lr/pg{number}" for number in range(len(stepper.optimizer.param_groups))]
    return ("epoch", "time", *losses[0], *METRICS, *losses[1], *rates)


class Validation(Protocol):
    """What training reads of a validation's result."""

    @property
    def metrics(self) -> DetectionMetrics: ...

    @property
    def speed(self) -> dict[str, float]: ...

    @property
    def losses(self) -> tuple[float, float, float] | None: ...


Evaluate = Callable[..., Validation]


@dataclass(kw_only=True)
class Plan:
    """When the loop does what.

    Attributes:
        epochs: length of the run.
        val_interval: validate every so many epochs, and after the last; 0 only after the last.
        patience: stop after so many epochs without a better fitness; 0 never.
        save_last: write last.pt after every epoch, not only at the end.
        save_period: also keep `epochN.pt` every so many epochs; 0 or less never.
    """

    epochs: int
    val_interval: int
    patience: int
    save_last: bool
    save_period: int


@dataclass(kw_only=True)
class Outputs:
    """Where the loop writes.

    Attributes:
        weights: folder of last.pt and best.pt.
        csv: one row per epoch.
        settings: stored in every checkpoint.
        facts: stored in every checkpoint.
        on_batch: called with every batch of the first epoch and its number, to draw pictures.
    """

    weights: Path
    csv: CsvLog
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    on_batch: Callable[[int, Batch], None] | None


def run_epochs(
    stepper: Stepper,
    loader: TrainLoader,
    schedule: Schedule,
    evaluate: Evaluate,
    *,
    plan: Plan,
    progress: Progress,
    monitor: Monitor,
    outputs: Outputs | None,
) -> Progress:
    """Trains until the plan's last epoch or until patience runs out; returns where the run stands then.

    Args:
        outputs: None on the ranks that do not write.
    """
    began = time.perf_counter() - progress.seconds
    on_batch = None if outputs is None else outputs.on_batch
    for epoch in range(progress.epoch, plan.epochs):
        stats = _train_epoch(epoch, stepper, loader, schedule, progress, monitor, on_batch)
        last = epoch + 1 == plan.epochs
        result = None
        if last or (plan.val_interval and (epoch + 1) % plan.val_interval == 0):
            result = evaluate(_answering_model(stepper), loss=stepper.loss)
        progress.epoch = epoch + 1
        progress.seconds = time.perf_counter() - began
        if result is not None and result.metrics.fitness > progress.best_fitness:
            progress.best_fitness, progress.best_epoch = result.metrics.fitness, epoch
            if outputs is not None:
                _save_best(outputs, stepper)
        if outputs is not None:
            outputs.csv.append(_row(epoch, progress.seconds, stats, result, stepper))
        monitor.report(stats, _note(result))
        stop = 0 < plan.patience <= epoch - progress.best_epoch and progress.best_epoch >= 0
        if outputs is not None:
            for name in _due(plan, epoch, ends=last or stop):
                _save(outputs.weights / name, stepper, progress, outputs)
        if stop and not last:
            best = progress.best_epoch + 1
            monitor.say(f"stopped: no better fitness for {plan.patience} epochs; the best was epoch {best}")
            break
    return progress


def _train_epoch(
    epoch: int,
    stepper: Stepper,
    loader: TrainLoader,
    schedule: Schedule,
    progress: Progress,
    monitor: Monitor,
    on_batch: Callable[[int, Batch], None] | None,
) -> EpochStats:
    stepper.model.train()
    share = schedule.progress(epoch)
    monitor.start_epoch(epoch)
    for number, (batch, wait) in enumerate(_timed(loader.epoch(epoch))):
        if on_batch is not None and epoch == 0:
            on_batch(number, batch)
        apply_schedule(stepper.optimizer, schedule, progress.step)
        items = stepper.run(batch.images, batch.targets, progress=share)
        progress.step += 1
        monitor.step(items, images=loader.images(number), wait=wait)
    return monitor.end_epoch()


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Yields each batch with the seconds spent waiting for it."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - start


def _answering_model(stepper: Stepper) -> Detector:
    """Returns the model whose answers count: the average when there is one."""
    return stepper.model if stepper.ema is None else stepper.ema.model


def _row(
    epoch: int, seconds: float, stats: EpochStats, result: Validation | None, stepper: Stepper
) -> dict[str, float | int | None]:
    row: dict[str, float | int | None] = {"epoch": epoch + 1, "time": seconds}
    terms = stepper.loss.terms
    row.update(zip((f"train/{term}_loss" for term in terms), stats.losses, strict=True))
    if result is not None:
        row.update(result.metrics.results_dict)
        if result.losses is not None:
            row.update(zip((f"val/{term}_loss" for term in terms), result.losses, strict=True))
    row.update({f"lr/pg{i}": group["lr"] for i, group in enumerate(stepper.optimizer.param_groups)})
    return row


def _note(result: Validation | None) -> str:
    if result is None:
        return ""
    values = result.metrics.results_dict
    return f"mAP50 {values['metrics/mAP50(B)']:.3f}  mAP50-95 {values['metrics/mAP50-95(B)']:.3f}"


def _due(plan: Plan, epoch: int, *, ends: bool) -> list[str]:
    """Names of the checkpoints to write after an epoch."""
    names = ["last.pt"] if plan.save_last or ends else []
    if plan.save_period > 0 and (epoch + 1) % plan.save_period == 0:
        names.append(f"epoch{epoch + 1}.pt")
    return names


def _save_best(outputs: Outputs, stepper: Stepper) -> None:
    save_weights(
        outputs.weights / "best.pt",
        model=_answering_model(stepper),
        settings=outputs.settings,
        facts=outputs.facts,
    )


def _save(path: Path, stepper: Stepper, progress: Progress, outputs: Outputs) -> None:
    save_checkpoint(
        path,
        model=stepper.model,
        ema=stepper.ema,
        optimizer=stepper.optimizer,
        scaler=stepper.scaler,
        progress=progress,
        step=stepper.state(),
        settings=outputs.settings,
        facts=outputs.facts,
    )
