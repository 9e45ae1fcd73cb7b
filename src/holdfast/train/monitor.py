"""What a run tells while it works: a line per epoch, under it what is drawn live on a terminal (a line every
few minutes of a long epoch in pipes and log files), and records in its health.jsonl.

A terminal or a pipe that goes away ends the telling, not the run.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TextIO

import torch
from typing_extensions import Self

from holdfast.console import DRAWN, Row, Rows, Screen
from holdfast.health.lines import epoch_line, live_line, live_parts
from holdfast.health.records import Breakdown, Epoch, Event, Window
from holdfast.train.gauge import Gauge
from holdfast.train.layers import LayerNorms
from holdfast.train.recorder import Recorder

SMOOTHING = 0.1  # weight of the newest step in the shown speed
PLAIN = 300.0  # seconds between two lines within an epoch where nothing is drawn
RECORDED = 30.0  # seconds between two records within an epoch


@dataclass
class EpochStats:
    """Means over the training of one epoch.

    Attributes:
        losses: terms of the loss per image.
        images_per_second: throughput, loading included.
        wait_share: share of the time spent waiting for data, in [0, 1].
        seconds: of this part of the run.
        peak: most bytes in use; None where the system does not tell.
        utilisation: share of the time that the device worked; None likewise.
    """

    losses: tuple[float, ...]
    images_per_second: float
    wait_share: float
    seconds: float
    peak: int | None
    utilisation: float | None


class Monitor:
    """Counts, shows and records the progress of a run. Leaving it records how the run ended.

    Args:
        epochs: epochs of the run.
        steps_per_epoch: optimizer steps of one epoch.
        device: whose memory is shown.
        terms: names of the losses.
        out: where lines go; standard output by default.
        verbose: False shows nothing.
        shared: other processes write to the same terminal; then one line is drawn, as more could not be told
            from theirs.
        cores: cores of this process.
        clip_norm: norm of all gradients above which a step is clipped; 0 never.
        planned: predicted peak in bytes; None where there is none.
        recorder: keeps records; None on ranks that do not write.
        layers: tells the gradients of the parts of the model; None does not.
        account: says from the peaks of training and validation where memory goes; None does not.
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps_per_epoch: int,
        device: torch.device,
        terms: tuple[str, ...] = ("box", "cls", "dfl"),
        out: TextIO | None = None,
        verbose: bool = True,
        shared: bool = False,
        cores: int = 1,
        clip_norm: float = 0.0,
        planned: int | None = None,
        recorder: Recorder | None = None,
        layers: LayerNorms | None = None,
        account: Callable[[int, int], Breakdown] | None = None,
    ) -> None:
        self.epochs = epochs
        self.steps = steps_per_epoch
        self.terms = terms
        self.verbose = verbose
        self.shared = shared
        self.screen = Screen((out or sys.stdout) if verbose else io.StringIO())
        self.clip_norm = clip_norm
        self.planned = planned
        self.recorder = recorder
        self.layers = layers
        self.account = account
        self.device = device
        self.gauge = Gauge(device, cores)
        self._items: list[torch.Tensor] = []
        self._epoch = self._step = self._done = self._skipped = self._faults = 0
        self._between = 0.0  # seconds from the end of a training to the next
        self._ended: float | None = None
        self._unread = 0  # images that were ever told to be unreadable
        self._rate: float | None = None
        self._scored = None if recorder is None else recorder.history().latest_validated

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._put(self.screen.clear)
        words = (" ".join(str(error).split()) or kind.__name__) if kind else "finished"
        self.note("end", words, done=kind is None)

    def start_epoch(self, epoch: int, *, step: int = 0, done: int = 0) -> None:
        """Begins an epoch, or what is left of it.

        Args:
            epoch: its number, from 0.
            step: steps that the run has done.
            done: steps of this epoch among them.
        """
        now = time.perf_counter()
        if self._ended is not None:
            self._between = now - self._ended
        self._epoch, self._step, self._done = epoch, step, done
        self._images = self._here = 0  # of this epoch in this part of the run
        self._skipped = self._faults = 0
        self._means: list[float] = []  # of the losses, once its training is done
        self._wait = self._pace = 0.0
        self._norms: list[float] = []
        self._began = self._last = self._shown = self._recorded = now
        self.gauge.restart()
        if self.layers is not None:
            self.layers.ask()
        self._draw()

    def stands(self, *, step: int, done: int) -> None:
        """Takes note that the run has gone back: to how many steps, and how many of the epoch."""
        self._step, self._done = step, done
        del self._norms[len(self._items) :]

    def items(self) -> torch.Tensor:
        """(n, T) losses of the good steps of the epoch under way."""
        return torch.stack(self._items) if self._items else torch.zeros(0, len(self.terms))

    def restore(self, items: torch.Tensor) -> None:
        """Takes over the losses of steps that an earlier part of the run did in this epoch."""
        self._items = list(items.unbind())

    def step(
        self,
        items: torch.Tensor | None,
        *,
        images: int,
        wait: float,
        norm: float | None = None,
        rate: float | None = None,
    ) -> None:
        """Counts one step.

        Args:
            items: (T,) losses; None for a step that was left out.
            images: images in this step.
            wait: seconds spent waiting for data.
            norm: of all gradients, before clipping.
            rate: learning rate of the first parameter group.
        """
        now = time.perf_counter()
        spent = max(now - self._last, 1e-9)
        self._last = now
        if items is None:
            self._skipped += images
        else:
            self._items.append(items)
            if norm is not None:
                self._norms.append(norm)
        self._step += 1
        self._done += 1
        self._here += 1
        self._images += images
        self._wait += wait
        self._rate = rate
        pace = images / spent
        self._pace = pace if self._pace == 0 else (1 - SMOOTHING) * self._pace + SMOOTHING * pace
        self.gauge.look(now)
        if self.recorder is not None and now - self._recorded > RECORDED:
            self._recorded = now
            self.recorder.add(self._window())
        if self.screen.live:
            if now - self._shown > DRAWN:
                self._draw()
        elif self.verbose and now - self._shown > PLAIN:
            self._shown = now
            self.say(live_line(self._lines()))

    def end_epoch(self) -> EpochStats:
        """Closes the training of the epoch and returns its means. Peaks of its validation count from here."""
        now = self._ended = time.perf_counter()
        spent = max(now - self._began, 1e-9)
        mean = torch.stack(self._items).mean(0).tolist() if self._items else [0.0] * len(self.terms)
        self._means = mean  # the losses of its steps are kept until it is validated, too
        stats = EpochStats(
            losses=tuple(mean),
            images_per_second=self._images / spent,
            wait_share=self._wait / spent,
            seconds=spent,
            peak=self.gauge.peak(),
            utilisation=self.gauge.utilisation(),
        )
        self.gauge.restart()
        return stats

    def report(
        self,
        stats: EpochStats,
        *,
        metrics: Mapping[str, float] | None = None,
        val_losses: Sequence[float] | None = None,
        rates: Sequence[float] = (),
    ) -> None:
        """Writes the line that stays for an epoch, records it, and says what the rules find.

        Args:
            stats: means of its training.
            metrics: of its validation by the names of results.csv; None without one.
            val_losses: as those of training; None without.
            rates: learning rate of each parameter group.
        """
        self._items = []
        memory = self.gauge.memory()
        norms = self._norms
        epoch = Epoch(
            epoch=self._epoch + 1,
            step=self._step,
            time=time.time(),
            seconds=stats.seconds,
            losses=dict(zip(self.terms, stats.losses, strict=True)),
            val_losses={} if val_losses is None else dict(zip(self.terms, val_losses, strict=True)),
            metrics=metrics or {},
            images_per_second=stats.images_per_second,
            wait_share=stats.wait_share,
            rates=tuple(rates),
            norm=sum(norms) / len(norms) if norms else None,
            norm_max=max(norms, default=None),
            clipped=sum(x > self.clip_norm for x in norms) / len(norms) if norms and self.clip_norm else None,
            layers={} if self.layers is None else self.layers.answer(),
            rss=memory.rss,
            allocated=memory.allocated,
            reserved=memory.reserved,
            peak=stats.peak,
            val_peak=self.gauge.peak() if metrics is not None else None,
            capacity=memory.capacity,
            utilisation=stats.utilisation,
            skipped=self._skipped,
            faults=self._faults,
        )
        self._put(self.screen.clear)
        self.say(epoch_line(epoch, self.epochs, self.planned))
        if metrics:
            self._scored = epoch
        if self.recorder is None:
            return
        self.recorder.add(epoch)
        if self.account is not None and stats.peak is not None:
            self.recorder.add(self.account(stats.peak, epoch.val_peak or 0))
            self.account = None
        for finding in self.recorder.warnings():
            self.say(finding.line())

    def say(self, text: str) -> None:
        """Writes one line that stays."""
        if self.verbose:
            self._put(partial(self.screen.say, text))

    def validating(self) -> None:
        """Shows that the validation of the epoch is under way."""
        self._draw("validating")

    def event(self, kind: str, text: str, *, step: int | None = None, skipped: int = 0, **facts: Any) -> None:
        """Says and records that something out of the ordinary happened.

        Args:
            kind: a word for it, such as `skip`.
            text: a sentence.
            step: at which it happened; that under way by default.
            skipped: images that do not count because of it, other than those of a step that is left out.
            facts: numbers and names, plain data, such as `layers` and `images`.
        """
        self._faults += 1
        self._skipped += skipped
        self.say(text)
        self.note(kind, text, step=step, **facts)

    def unread(self, reasons: Sequence[str], *, replaced: int) -> None:
        """Records images that cannot be read, each once; the loader has said so.

        Args:
            reasons: what is wrong with each, in the order they were found in this part of the run.
            replaced: images of the epoch that others stood in for.
        """
        for reason in reasons[self._unread :]:
            self._faults += 1
            self.note("unread", reason)
        self._unread = len(reasons)
        self._skipped += replaced

    def note(self, kind: str, text: str, *, step: int | None = None, **facts: Any) -> None:
        """Records it without saying it."""
        if self.recorder is not None:
            at = self._step if step is None else step
            self.recorder.add(
                Event(what=kind, text=text, epoch=self._epoch + 1, step=at, time=time.time(), facts=facts)
            )

    def _window(self) -> Window:
        values = self._means or (self._items[-1].tolist() if self._items else [])
        return Window(
            epoch=self._epoch + 1,
            step=self._step,
            done=self._done,
            steps=self.steps,
            time=time.time(),
            losses=dict(zip(self.terms, values, strict=False)),
            images_per_second=self._pace,
            wait_share=self._wait / max(self._last - self._began, 1e-9),
            memory=self.gauge.used(),
            skipped=self._skipped,
            rate=self._rate,
        )

    def _left(self) -> tuple[float, float]:
        """Seconds until the end of the epoch's training and of the run."""
        pace = (self._last - self._began) / max(self._here, 1)
        epochs, steps = self.epochs - self._epoch - 1, self.steps - self._done
        return steps * pace, (steps + epochs * self.steps) * pace + epochs * self._between

    def _lines(self, stage: str = "") -> list[list[tuple[int, str]]]:
        return live_parts(
            self._window(),
            epochs=self.epochs,
            planned=self.planned,
            left=self._left() if self._here else None,
            scored=self._scored,
            stage=stage,
        )

    def _draw(self, stage: str = "") -> None:
        if not (self.verbose and self.screen.live):
            return
        self._shown = time.perf_counter()
        lines = self._lines(stage)
        done = self._done / self.steps
        if self.shared:
            rows = [Row([part for line in lines for part in line])]
        else:
            rows = [Row(lines[0], done), *map(Row, lines[1:])]
        self._put(partial(self.screen.draw, Rows(rows)))

    def _put(self, act: Callable[[], None]) -> None:
        try:
            act()
        except (OSError, ValueError):  # its reader has left, or it was closed
            self.verbose = False
            with suppress(OSError, ValueError):
                self.screen.clear()


class Told:
    """A place for lines that listens: what parts of a run say is recorded too, once there is a monitor.

    Args:
        say: where lines go; when its reader has left, they go nowhere.

    Attributes:
        monitor: which records; None as long as there is none.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.monitor: Monitor | None = None

    def __call__(self, text: str) -> None:
        """Says a line and records it."""
        with suppress(OSError, ValueError):
            self.say(text)
        if self.monitor is not None:
            self.monitor.note("told", text)
