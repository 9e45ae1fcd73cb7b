"""What a run left in its folder, read back: settings, table of epochs, manifest, records of its health.

Runs of programs that leave args.yaml and results.csv with the same columns are read too, as far as they go.

Dimensions: E epochs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from holdfast.errors import DataError
from holdfast.evaluate.fitness import fitness_weights
from holdfast.health.log import NAME, read
from holdfast.health.records import Epoch, History
from holdfast.report.table import Columns, read_results


@dataclass(frozen=True)
class RunRecord:
    """A run.

    Attributes:
        folder: where it is.
        name: what tells it apart from the other runs.
        settings: of args.yaml; empty without one.
        manifest: of manifest.json; empty without one.
        columns: of results.csv, (E,) each.
        health: what health.jsonl says of the epochs, in order; empty without it.
    """

    folder: Path
    name: str
    settings: dict[str, Any]
    manifest: dict[str, Any]
    columns: Columns
    health: tuple[Epoch, ...]

    @property
    def epochs(self) -> NDArray[np.float64]:
        """(E,) numbers of the epochs, from 1."""
        return self.columns["epoch"]

    @property
    def best(self) -> int | None:
        """Row of the epoch with the best fitness; None where nothing was validated."""
        parts = [weight * self.column(key) for key, weight in fitness_weights(self.columns).items()]
        total: NDArray[np.float64] = np.sum(parts, axis=0) if parts else np.full(len(self.epochs), np.nan)
        return int(np.nanargmax(total)) if np.isfinite(total).any() else None

    def column(self, name: str) -> NDArray[np.float64]:
        """(E,) values of a column, NaN where there are none."""
        return self.columns.get(name, np.full(len(self.epochs), np.nan))

    def at_best(self, name: str) -> float | None:
        """The value of a column in the best epoch."""
        best = self.best
        value = float("nan") if best is None else float(self.column(name)[best])
        return value if np.isfinite(value) else None

    @property
    def seconds(self) -> float | None:
        """From the start of the first epoch to the end of the last."""
        return _finite(self.column("time")[-1])

    def epoch_seconds(self) -> NDArray[np.float64]:
        """(E,) seconds of each epoch, validation included."""
        return np.diff(self.column("time"), prepend=0.0)

    @property
    def images_per_second(self) -> float | None:
        """Median over the epochs of training; without records of them, with validation in the time."""
        if self.health:
            speeds = [epoch.images_per_second for epoch in self.health]
            return _finite(np.median(speeds[1:] or speeds))
        images = self.manifest.get("train_images")
        each = self.epoch_seconds()
        spent = np.median(each[1:] if len(each) > 1 else each)
        return _finite(images / spent) if images and spent > 0 else None

    def memory(self) -> NDArray[np.float64]:
        """Most bytes held in each epoch on record: of the device, or of the process on a CPU."""
        return np.array(
            [epoch.peak or epoch.rss or float("nan") for epoch in self.health], dtype=np.float64
        )

    @property
    def peak(self) -> float | None:
        """Most bytes held; None where nothing was recorded."""
        held = self.memory()
        return _finite(np.nanmax(held)) if np.isfinite(held).any() else None


def read_runs(folders: Sequence[str | Path]) -> list[RunRecord]:
    """Reads runs, named as shortly as tells them apart.

    Raises:
        DataError: a folder is missing, is no run, or holds no epoch yet.
    """
    paths = [Path(folder) for folder in folders]
    paths = [path.parent if path.name == "results.csv" else path for path in paths]
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def _read(folder: Path, name: str) -> RunRecord:
    if not folder.exists():
        raise DataError("there is no such folder.", path=folder, hint="Give folders of runs, runs/train/exp.")
    if not (folder / "results.csv").is_file():
        raise DataError(
            "is no run of a training: it has no results.csv.",
            path=folder,
            hint="Give folders such as runs/train/exp.",
        )
    if len((folder / "results.csv").read_text(encoding="utf-8", errors="replace").split("\n", 1)[-1]) < 2:
        raise DataError("holds no finished epoch yet.", path=folder, hint="Compare it after its first epoch.")
    try:
        settings = yaml.safe_load(_text(folder / "args.yaml")) or {}
        manifest = json.loads(_text(folder / "manifest.json") or "{}")
    except (yaml.YAMLError, ValueError) as fault:
        raise DataError(
            f"args.yaml or manifest.json cannot be read ({type(fault).__name__}).",
            path=folder,
            hint="They are written at the start of a run; take copies from its backup.",
        ) from None
    return RunRecord(
        folder,
        name,
        settings if isinstance(settings, dict) else {},
        manifest if isinstance(manifest, dict) else {},
        read_results(folder / "results.csv"),
        History.of(read(folder / NAME)).epochs,
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as make all names differ."""
    whole = [path.absolute().parts for path in paths]
    for count in range(1, max(len(parts) for parts in whole) + 1):
        names = ["/".join(parts[-count:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, 1)]


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
