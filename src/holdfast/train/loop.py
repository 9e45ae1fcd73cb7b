"""The training loop: epochs of steps, validation, checkpoints, early stop. Plain code, read top to bottom.

Everything here is handed over ready-made by `session.py`; random draws are functions of (seed, epoch,
index), so a loop that starts at epoch e does what an uninterrupted one would have done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from holdfast.data.batch import Batch
from holdfast.data.loader import TrainLoader
from holdfast.errors import DataError, Diverged, OutOfMemory, Stopped
from holdfast.models.detector import Detector
from holdfast.train.checkpoint import Progress, restore, snapshot, weights_snapshot
from holdfast.train.interrupt import Interrupt
from holdfast.train.monitor import EpochStats, Monitor
from holdfast.train.optim import apply_schedule
from holdfast.train.outputs import Outputs, row_of
from holdfast.train.quarantine import Quarantine
from holdfast.train.rescue import Move, Rescue
from holdfast.train.roles import Validation
from holdfast.train.schedule import Schedule
from holdfast.train.step import Outcome, Stepper

Evaluate = Callable[..., Validation]
T = TypeVar("T")


@dataclass(kw_only=True)
class Plan:
    """When the loop does what.

    Attributes:
        epochs: length of the run.
        val_interval: validate every so many epochs, and after the last, an earlier one by patience;
            0 only then.
        patience: stop after so many epochs without a better fitness; 0 never.
        save_last: write last.pt after every epoch, not only at the end.
        save_period: also keep `epochN.pt` every so many epochs; 0 or less never.
    """

    epochs: int
    val_interval: int
    patience: int
    save_last: bool
    save_period: int

    def over(self, progress: Progress) -> bool:
        """Whether nothing is left to do: all epochs are done, or patience has run out."""
        waited = progress.epoch - 1 - progress.best_epoch
        return progress.epoch >= self.epochs or (0 < self.patience <= waited and progress.best_epoch >= 0)

    def validates(self, progress: Progress) -> bool:
        """Whether the epoch under way is validated: it is its turn, or would be the last otherwise."""
        done = progress.epoch + 1
        turn = self.val_interval > 0 and done % self.val_interval == 0
        return turn or self.over(replace(progress, epoch=done))


class Run:
    """A run under way: everything that its loop touches.

    Args:
        stepper: does the steps.
        loader: this rank's part of the batches.
        schedule: learning rates and momentum.
        evaluate: validates a model.
        plan: when to do what.
        progress: where the run stands.
        monitor: counts and shows.
        interrupt: requests to stop.
        quarantine: images at fault.
        outputs: None on the ranks that do not write.
    """

    def __init__(
        self,
        stepper: Stepper,
        loader: TrainLoader,
        schedule: Schedule,
        evaluate: Evaluate,
        *,
        plan: Plan,
        progress: Progress,
        monitor: Monitor,
        interrupt: Interrupt,
        quarantine: Quarantine,
        outputs: Outputs | None,
    ) -> None:
        self.stepper = stepper
        self.loader = loader
        self.schedule = schedule
        self.evaluate = evaluate
        self.plan = plan
        self.progress = progress
        self.monitor = monitor
        self.interrupt = interrupt
        self.outputs = outputs
        self.rescue = Rescue(
            stepper, quarantine, keep=self._snapshot, restore=self._go_back, note=self.monitor.event
        )
        self._began = time.perf_counter() - progress.seconds

    def epochs(self) -> Progress:
        """Trains until the plan's last epoch or until patience runs out; returns where the run stands then.

        Raises:
            Stopped: the run was asked to stop; its state is on disk.
            OutOfMemory: nothing fits any more; its state is on disk.
            DataError: too many images cannot be read any more; its state is on disk.
            Diverged: steps do not stay finite, whatever was tried; the last good state is on disk.
        """
        plan, progress = self.plan, self.progress
        while not plan.over(progress):
            epoch = progress.epoch
            result = None
            try:
                stats = self._train(epoch)
                if plan.validates(progress):
                    result = self._validate()
            except (OutOfMemory, Diverged, DataError):
                self._save("last.pt")
                self._flush()
                raise
            progress.epoch, progress.batch = epoch + 1, 0
            progress.seconds = time.perf_counter() - self._began
            if result is not None:
                progress.quality = tuple(result.metrics.quality.tolist())
            if result is not None and result.metrics.fitness > progress.best_fitness:
                progress.best_fitness, progress.best_epoch = result.metrics.fitness, epoch
                self._save_best()
            if self.outputs is not None:
                row = row_of(epoch, progress.seconds, stats, result, self.stepper)
                self.outputs.add(row, self.monitor.say)
            self._tell(stats, result)
            over = plan.over(progress)
            for name in _due(plan, epoch, ends=over):
                self._save(name)
            if over and progress.epoch < plan.epochs:
                self.monitor.say(
                    f"stopped: no better fitness for {plan.patience} epochs; the best was epoch "
                    f"{progress.best_epoch + 1}"
                )
        self._flush()
        return progress

    def _train(self, epoch: int) -> EpochStats:
        """Does the steps of an epoch that are still to do."""
        self.stepper.model.train()
        self.loader.samples.weigh(self.progress.quality)
        self.monitor.start_epoch(epoch, step=self.progress.step, done=self.progress.batch)
        self.rescue.start_epoch(self.progress.step)
        while self.progress.batch < len(self.loader):  # again where the run has gone back
            self._steps(epoch)
        samples = self.loader.samples
        self.rescue.note_unread(samples.faults.reasons, samples.index.path, self.progress.step)
        self.monitor.unread(list(samples.faults.reasons.values()), replaced=samples.faults.count)
        return self.monitor.end_epoch()

    def _steps(self, epoch: int) -> None:
        """Does steps until the end of the epoch, or until the run has gone back to an earlier one."""
        progress = self.progress
        draw = None if self.outputs is None or epoch else self.outputs.on_batch
        for batch, wait in _timed(self.loader.epoch(epoch, start=progress.batch)):
            if draw is not None:
                draw(progress.batch, batch)
            outcome = self._step(batch, epoch)
            if outcome is None:
                return
            good = None if outcome.refused else outcome.items
            images = self.loader.images(progress.batch)
            rate = self.stepper.optimizer.param_groups[0]["lr"]
            self.monitor.step(good, images=images, wait=wait, norm=outcome.norm, rate=rate)
            progress.step += 1
            progress.batch += 1
            if good is not None:
                ends = progress.batch == len(self.loader)
                if self.rescue.passed(progress.step, ends=ends) is Move.BACK:
                    return
            if self.stepper.ranks.any(bool(self.interrupt.signal)):
                self._stop()
            if self.outputs is not None and self.outputs.saver.due() and self.rescue.sound():
                self._save("last.pt")

    def _step(self, batch: Batch, epoch: int) -> Outcome | None:
        """Does a step, or leaves it out; None when the run has gone back."""
        stepper, step = self.stepper, self.progress.step
        share = self.schedule.progress(epoch)
        while True:
            apply_schedule(stepper.optimizer, self.schedule, step, factor=self.rescue.factor)
            outcome = stepper.run(batch.images, batch.targets, progress=share)
            if not outcome.refused:
                return outcome
            move = self.rescue.failed(batch, outcome, progress=share, epoch=epoch, step=step)
            if move is Move.BACK:
                return None
            if move is Move.ON:
                return outcome

    def _validate(self) -> Validation:
        """Validates."""
        self.monitor.validating()
        return self.at_once(lambda: self.evaluate(_answering_model(self.stepper), loss=self.stepper.loss))

    def at_once(self, work: Callable[[], T]) -> T:
        """Does work between steps that can be done again, so a request to stop ends it at once.

        Raises:
            Stopped: there was one; the state of the run is on disk.
        """
        try:
            with self.interrupt.at_once():
                return work()
        except Stopped:
            self._stop()
            raise

    def _stop(self) -> None:
        """Saves and leaves."""
        self._save("last.pt")
        self._flush()
        done = self.progress.step
        if self.outputs is None:
            raise self.interrupt.stopped(f"Stopped after step {done}.")
        folder = self.outputs.folder
        raise self.interrupt.stopped(
            f"Stopped after step {done}, saved in {folder / 'weights' / 'last.pt'}.",
            hint=f"Go on with 'holdfast resume {folder}'.",
        )

    def _save(self, name: str) -> None:
        """Has the state written, on the rank that writes."""
        if self.outputs is None:
            return
        copy = self._snapshot()
        if self.progress.batch == 0 or self.stepper.ranks.world == 1:  # where all ranks have one
            self.rescue.take(copy)
        self.outputs.save(name, copy)

    def _snapshot(self) -> dict[str, Any]:
        """Copies the state of the run to the CPU."""
        self.progress.seconds = time.perf_counter() - self._began
        return snapshot(
            model=self.stepper.model,
            ema=self.stepper.ema,
            optimizer=self.stepper.optimizer,
            scaler=self.stepper.scaler,
            progress=self.progress,
            items=self.monitor.items(),
            step=self.stepper.state(),
            rescue=self.rescue.state(),
        )

    def _go_back(self, content: Mapping[str, Any]) -> None:
        """Puts the state of an earlier step of the epoch back."""
        stepper = self.stepper
        earlier = restore(
            content, model=stepper.model, ema=stepper.ema, optimizer=stepper.optimizer, scaler=stepper.scaler
        )
        stepper.load_state(content["step"])
        self.monitor.restore(content["items"])
        self.monitor.stands(step=earlier.step, done=earlier.batch)
        self.progress.step, self.progress.batch = earlier.step, earlier.batch

    def _save_best(self) -> None:
        if self.outputs is None:
            return
        content = weights_snapshot(
            _answering_model(self.stepper), settings=self.outputs.settings, facts=self.outputs.facts
        )
        self.outputs.saver.put("best.pt", content)

    def _tell(self, stats: EpochStats, result: Validation | None) -> None:
        self.monitor.report(
            stats,
            metrics=None if result is None else result.metrics.results_dict,
            val_losses=None if result is None else result.losses,
            rates=[group["lr"] for group in self.stepper.optimizer.param_groups],
        )

    def _flush(self) -> None:
        if self.outputs is not None:
            self.outputs.saver.flush()


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


def _due(plan: Plan, epoch: int, *, ends: bool) -> list[str]:
    """Names of the checkpoints to write after an epoch."""
    names = ["last.pt"] if plan.save_last or ends else []
    if plan.save_period > 0 and (epoch + 1) % plan.save_period == 0:
        names.append(f"epoch{epoch + 1}.pt")
    return names
