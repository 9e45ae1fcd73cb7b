"""The pictures of a run folder, in the order a run asks for them.

The trainer and the validator are handed these functions; they do not know how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from holdfast.data.batch import Batch
from holdfast.data.index import Index
from holdfast.evaluate.coco import DetectionMetrics
from holdfast.evaluate.confusion import ConfusionMatrix
from holdfast.report.batches import draw_found, draw_targets
from holdfast.report.label_plots import plot_labels
from holdfast.report.metric_plots import plot_confusion, plot_curves
from holdfast.report.plots import plot_results
from holdfast.runs import write_json


class Validated(Protocol):
    """The part of a validation's result that is drawn."""

    @property
    def metrics(self) -> DetectionMetrics: ...

    @property
    def confusion(self) -> ConfusionMatrix: ...


class RunReporter:
    """Draws everything a training run shows.

    Args:
        summary: turns a validation's result and the class names into the content of results.json; without it
            the headline numbers are written.
    """

    def __init__(self, *, summary: Callable[[Any, Mapping[int, str]], dict[str, Any]] | None = None) -> None:
        self.summary = summary

    def labels(self, folder: Path, index: Index, names: Mapping[int, str]) -> None:
        """Writes labels.jpg of the training split."""
        plot_labels(index.classes, index.boxes, np.diff(index.offsets), names, folder / "labels.jpg")

    def train_batch(self, folder: Path, number: int, batch: Batch, names: Mapping[int, str]) -> None:
        """Writes train_batch<number>.jpg: images as the network sees them, with their boxes."""
        draw_targets(folder / f"train_batch{number}.jpg", batch.images, batch.targets, names, batch.paths)

    def val_batch(
        self, folder: Path, number: int, batch: Batch, found: list[Tensor], names: Mapping[int, str]
    ) -> None:
        """Writes val_batch<number>_labels.jpg and val_batch<number>_pred.jpg: truth and answer."""
        draw_targets(
            folder / f"val_batch{number}_labels.jpg", batch.images, batch.targets, names, batch.paths
        )
        draw_found(folder / f"val_batch{number}_pred.jpg", batch.images, found, names, batch.paths)

    def finish(self, folder: Path, result: Validated, index: Index, names: Mapping[int, str]) -> str:
        """Writes results.json, results.png, curves and confusion matrices; returns the line to print."""
        content = result.metrics.results_dict if self.summary is None else self.summary(result, names)
        write_json(folder / "results.json", content)
        draw_validation(result, names, folder)
        table = folder / "results.csv"
        if table.is_file():
            plot_results(table)
        return f"results and pictures in {folder}"


def draw_validation(result: Validated, names: Mapping[int, str], folder: Path) -> None:
    """Writes the curves and confusion matrices of a validation."""
    plot_curves(result.metrics, folder)
    plot_confusion(result.confusion, names, folder)
