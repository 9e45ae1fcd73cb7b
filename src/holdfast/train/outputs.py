"""What a run writes as it goes: checkpoints, and one row per epoch for results.csv and other programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import Self

from holdfast.data.batch import Batch
from holdfast.loggers import Loggers
from holdfast.runs import CsvLog
from holdfast.train.monitor import EpochStats
from holdfast.train.roles import Validation
from holdfast.train.saver import Saver
from holdfast.train.step import Stepper

Row = Mapping[str, float | int | None]


@dataclass(kw_only=True)
class Outputs:
    """Where the loop writes.

    Attributes:
        saver: writes last.pt, best.pt and epochN.pt.
        csv: one row per epoch.
        loggers: the same for other programs.
        settings: stored in every checkpoint.
        facts: stored in every checkpoint.
        on_batch: called with every batch of the first epoch and its number, to draw pictures.
    """

    saver: Saver
    csv: CsvLog
    loggers: Loggers
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    on_batch: Callable[[int, Batch], None] | None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.saver.folder.parent

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Has a snapshot of the run written as a checkpoint."""
        content = {
            **state,
            "rows": [list(row) for row in self.csv.rows],
            "settings": self.settings,
            "facts": self.facts,
        }
        self.saver.put(name, content, keep_previous=name == "last.pt")

    def add(self, row: Row, say: Callable[[str], None]) -> None:
        """Adds a row; one that the disk does not take is written with the next."""
        self.loggers.epoch(row)
        try:
            self.csv.append(row)
        except OSError as error:
            say(
                f"{self.csv.path} cannot be written ({error.strerror}); training goes on, and the row comes "
                "with the next one"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing(self.saver), closing(self.loggers):
            pass


def columns(stepper: Stepper, metrics: Sequence[str]) -> tuple[str, ...]:
    """Header of results.csv: losses by the names of their terms, one learning rate per parameter group.

    Args:
        metrics: names of what a validation finds.
    """
    losses = [[f"{split}/{term}_loss" for term in stepper.loss.terms] for split in ("train", "val")]
    rates = [f"lr/pg{number}" for number in range(len(stepper.optimizer.param_groups))]
    return ("epoch", "time", *losses[0], *metrics, *losses[1], *rates)


def row_of(
    epoch: int, seconds: float, stats: EpochStats, result: Validation | None, stepper: Stepper
) -> dict[str, float | int | None]:
    """The row of an epoch (from 0), by the names of `columns`; without a validation some are missing."""
    row: dict[str, float | int | None] = {"epoch": epoch + 1, "time": seconds}
    terms = stepper.loss.terms
    row.update(zip((f"train/{term}_loss" for term in terms), stats.losses, strict=True))
    if result is not None:
        row.update(result.metrics.results_dict)
        if result.losses is not None:
            row.update(zip((f"val/{term}_loss" for term in terms), result.losses, strict=True))
    row.update({f"lr/pg{i}": group["lr"] for i, group in enumerate(stepper.optimizer.param_groups)})
    return row
