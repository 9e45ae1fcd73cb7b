"""What a run says while it works: one live line on a terminal, one plain line per epoch in pipes and log
files.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import psutil
import torch

SMOOTHING = 0.1  # weight of the newest step in the shown speed
DATA_BOUND = 0.2  # share of an epoch spent waiting for data from which a run is told what to do


def memory_used(device: torch.device) -> int:
    """Returns bytes in use: the allocator's peak on CUDA, resident memory of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def duration(seconds: float) -> str:
    """Returns `1:02:03` or `02:03`."""
    minutes, secs = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes:02d}:{secs:02d}"


def data_remedy(*, threads: int, cores: int, cache: str) -> str:
    """What shortens the wait for data: a sentence's worth of settings that are not used up yet."""
    knobs = []
    if threads < cores:
        knobs.append(f"more workers (now {threads}, there are {cores} cores)")
    if cache != "ram":
        knobs.append(f"cache=ram (now {cache})")
    return " or ".join(knobs) or "a machine with more cores for each device, or a smaller imgsz"


@dataclass
class EpochStats:
    """Means over one epoch.

    Attributes:
        losses: (box, class, distance) per image.
        images_per_second: throughput of the epoch, loading included.
        wait_share: share of the time spent waiting for data, in [0, 1].
        memory: bytes in use.
    """

    losses: tuple[float, float, float]
    images_per_second: float
    wait_share: float
    memory: int


class Monitor:
    """Counts and shows the progress of a run.

    Args:
        epochs: epochs of the run.
        steps_per_epoch: optimizer steps of one epoch.
        device: whose memory is shown.
        terms: names of the losses.
        out: where lines go; standard output by default.
        verbose: False shows nothing.
        remedy: what shortens the wait for data, for a run that waits a lot.
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
        remedy: str = "more workers or cache=ram",
    ) -> None:
        self.epochs = epochs
        self.steps = steps_per_epoch
        self.device = device
        self.terms = terms
        self.out = out or sys.stdout
        self.verbose = verbose
        self.live = verbose and self.out.isatty()
        self.remedy = remedy
        self._items: list[torch.Tensor] = []
        self._advised = False
        self._epochs_seen = 0
        self._shown = 0.0
        self._epoch = 0

    def start_epoch(self, epoch: int) -> None:
        """Begins an epoch (from 0)."""
        self._epoch = epoch
        self._images = 0
        self._skipped = 0
        self._here = 0  # steps of this epoch in this part of the run
        self._wait = 0.0
        self._pace = 0.0
        self._began = self._last = time.perf_counter()

    def items(self) -> torch.Tensor:
        """(n, 3) losses of the steps done in the epoch under way."""
        return torch.stack(self._items) if self._items else torch.zeros(0, 3)

    def restore(self, items: torch.Tensor) -> None:
        """Takes over the losses of steps that an earlier part of the run did in this epoch."""
        self._items = list(items.unbind())

    def step(self, items: torch.Tensor | None, *, images: int, wait: float) -> None:
        """Counts one step.

        Args:
            items: (T,) losses; None for a step that was left out.
            images: images in this step.
            wait: seconds spent waiting for data.
        """
        now = time.perf_counter()
        spent = max(now - self._last, 1e-9)
        self._last = now
        if items is None:
            self._skipped += 1
        else:
            self._items.append(items)
        self._here += 1
        self._images += images
        self._wait += wait
        pace = images / spent
        self._pace = pace if self._pace == 0 else (1 - SMOOTHING) * self._pace + SMOOTHING * pace
        if self.live and now - self._shown > 0.2:
            self._shown = now
            self._draw(self._line())

    def end_epoch(self) -> EpochStats:
        """Closes the epoch and returns its means."""
        spent = max(time.perf_counter() - self._began, 1e-9)
        mean = torch.stack(self._items).mean(0).tolist() if self._items else [0.0, 0.0, 0.0]
        self._items = []
        return EpochStats(
            (mean[0], mean[1], mean[2]), self._images / spent, self._wait / spent, memory_used(self.device)
        )

    def report(self, stats: EpochStats, note: str) -> None:
        """Writes the line that stays for an epoch.

        Args:
            stats: means of the epoch.
            note: metrics of its validation, or an empty string.
        """
        text = (
            f"epoch {self._epoch + 1}/{self.epochs}  {self._losses(stats.losses)}  "
            f"{stats.images_per_second:.1f} img/s  data-wait {stats.wait_share:.0%}  "
            f"{stats.memory / 2**30:.2f} GiB"
        )
        self.say(f"{text}  {note}" if note else text)
        self._epochs_seen += 1
        settled = self._epochs_seen > 1 or self.epochs == 1  # the first epoch fills caches
        if stats.wait_share >= DATA_BOUND and settled and not self._advised:
            self._advised = True
            self.say(
                f"data-bound: {stats.wait_share:.0%} of this epoch was spent waiting for images; "
                f"{self.remedy} would shorten it"
            )

    def say(self, text: str) -> None:
        """Writes one line that stays."""
        if not self.verbose:
            return
        if self.live:
            self.out.write("\r\x1b[K")
        self.out.write(text + "\n")
        self.out.flush()

    def _line(self) -> str:
        done = len(self._items) + self._skipped
        left = (self.steps - done) + (self.epochs - self._epoch - 1) * self.steps
        per_step = (self._last - self._began) / max(self._here, 1)
        return (
            f"epoch {self._epoch + 1}/{self.epochs}  {done}/{self.steps}  "
            f"{self._losses(self._items[-1].tolist()) if self._items else 'left out'}  "
            f"{self._pace:.1f} img/s  "
            f"data-wait {self._wait / max(self._last - self._began, 1e-9):.0%}  "
            f"{memory_used(self.device) / 2**30:.2f} GiB  "
            f"ETA {duration(left * per_step)}"
        )

    def _losses(self, values: Sequence[float]) -> str:
        return "  ".join(f"{term} {value:.3f}" for term, value in zip(self.terms, values, strict=True))

    def _draw(self, text: str) -> None:
        width = max(_columns(self.out) - 1, 20)
        self.out.write("\r\x1b[K" + text[:width])
        self.out.flush()


def _columns(out: TextIO) -> int:
    import os

    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except OSError:
        return 80
