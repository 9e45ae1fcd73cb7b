"""The pictures of a run folder, in the order a run asks for them.

The trainer and the validator are handed this module; they do not know how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from holdfast.data.batch import Batch
from holdfast.data.index import Index
from holdfast.evaluate.coco import DetectionMetrics
from holdfast.report.batches import draw_found, draw_targets
from holdfast.report.label_plots import plot_labels
from holdfast.report.metric_plots import plot_confusion, plot_curves
from holdfast.report.plots import plot_results


def labels(folder: Path, index: Index, names: Mapping[int, str]) -> None:
    """Writes labels.jpg of the training split."""
    plot_labels(index.classes, index.boxes, np.diff(index.offsets), names, folder / "labels.jpg")


def train_batch(folder: Path, number: int, batch: Batch, names: Mapping[int, str]) -> None:
    """Writes train_batch<number>.jpg: images as the network sees them, with their boxes."""
    draw_targets(folder / f"train_batch{number}.jpg", batch.images, batch.targets, names, batch.paths)


def val_batch(
    folder: Path, number: int, batch: Batch, found: list[Tensor], names: Mapping[int, str]
) -> None:
    """Writes val_batch<number>_labels.jpg and val_batch<number>_pred.jpg: truth and answer."""
    draw_targets(folder / f"val_batch{number}_labels.jpg", batch.images, batch.targets, names, batch.paths)
    draw_found(folder / f"val_batch{number}_pred.jpg", batch.images, found, names, batch.paths)


def finish(folder: Path, metrics: DetectionMetrics) -> None:
    """Writes curves and confusion matrices, and results.png where the folder has a results.csv."""
    plot_curves(metrics, folder)
    plot_confusion(metrics.confusion, metrics.names, folder)
    if (folder / "results.csv").is_file():
        plot_results(folder / "results.csv")
