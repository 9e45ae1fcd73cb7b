"""results.png: how a training run went, drawn from its results.csv.

Epochs without validation have empty cells; lines then connect the epochs that have a value.

Dimensions: E epochs.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from holdfast.report.canvas import BLUE, GREEN, INK, ORANGE, PINK, RED, dress
from holdfast.report.panels import Panel, epoch_axis, legend_above, legend_below, line, sheet
from holdfast.report.rate_plots import rate_lines
from holdfast.report.table import Columns, read_results

LOSSES = {
    "box": "Box loss", "cls": "Class loss", "dfl": "Distribution loss", "l1": "Distance loss",
    "seg": "Mask loss", "sem": "Semantic loss", "pose": "Keypoint loss", "kobj": "Label loss of keypoints",
    "rle": "Likelihood loss", "angle": "Angle loss",
}  # fmt: skip
KINDS = {"B": "boxes", "M": "masks", "P": "keypoints"}  # letters in the names of metrics
TOP1, TOP5 = "metrics/accuracy_top1", "metrics/accuracy_top5"


def plot_results(path: str | Path, out: str | Path | None = None) -> Path:
    """Draws losses, metrics and learning rates of a run.

    Args:
        path: results.csv.
        out: the picture; `results.png` beside the table when absent.

    Returns:
        Path of the picture.

    Raises:
        DataError: the table cannot be read.
    """
    path = Path(path)
    data = read_results(path)
    rates = {name.removeprefix("lr/"): values for name, values in data.items() if name.startswith("lr/")}
    last = Panel("Learning rate", lambda axes: _rates(axes, data["epoch"], rates))
    target = Path(out) if out is not None else path.with_name("results.png")
    return sheet([*result_panels(data), last], target, columns=3, width=13 / 3)


def result_panels(data: Columns) -> list[Panel]:
    """Charts of losses and metrics, of whatever the table has columns for."""
    keys = [name.removeprefix("train/").removesuffix("_loss") for name in data if name.startswith("train/")]
    titles = [LOSSES.get(key, f"{key} loss") for key in keys]
    panels = [
        Panel(title, partial(_loss, data=data, key=key, title=title))
        for key, title in zip(keys, titles, strict=True)
    ]
    if TOP1 in data:
        return [*panels, Panel("Accuracy", partial(_accuracy, data=data))]
    letters = [letter for letter in KINDS if f"metrics/mAP50({letter})" in data] or ["B"]
    for letter in letters:
        of = f" of {KINDS[letter]}" if len(letters) > 1 else ""
        panels += [
            Panel(f"{title}{of}", partial(draw, data=data, letter=letter, title=f"{title}{of}"))
            for title, draw in (
                ("P and R" if of else "Precision and recall", _precision_recall),  # beside its legend
                ("Average precision", _average_precision),
            )
        ]  # fmt: skip
    return panels


def _loss(axes: Axes, data: Columns, key: str, title: str) -> None:
    line(axes, data["epoch"], data.get(f"train/{key}_loss"), BLUE, "train", joined=True)
    line(axes, data["epoch"], data.get(f"val/{key}_loss"), RED, "validation", joined=True)
    dress(axes, title=title, x="epoch")
    _finish(axes, data["epoch"])


def _accuracy(axes: Axes, data: Columns) -> None:
    line(axes, data["epoch"], data[TOP1], BLUE, "top-1", joined=True)
    line(axes, data["epoch"], data.get(TOP5), PINK, "top-5", joined=True)
    dress(axes, title="Accuracy", x="epoch")
    axes.set_ylim(0.0, 1.02)
    _finish(axes, data["epoch"])


def _precision_recall(axes: Axes, data: Columns, letter: str, title: str) -> None:
    line(axes, data["epoch"], data.get(f"metrics/precision({letter})"), GREEN, "precision", joined=True)
    line(axes, data["epoch"], data.get(f"metrics/recall({letter})"), ORANGE, "recall", joined=True)
    dress(axes, title=title, x="epoch")
    axes.set_ylim(0.0, 1.02)
    _finish(axes, data["epoch"])


def _average_precision(axes: Axes, data: Columns, letter: str, title: str) -> None:
    epochs = data["epoch"]
    upper, lower = data.get(f"metrics/mAP50({letter})"), data.get(f"metrics/mAP50-95({letter})")
    line(axes, epochs, upper, PINK, "mAP50", joined=True)
    line(axes, epochs, lower, BLUE, "mAP50-95", joined=True)
    dress(axes, title=title, x="epoch")
    top = 1.0
    if upper is not None and np.isfinite(upper).any():
        top = min(1.0, 1.15 * max(float(np.nanmax(upper)), 0.05))
    axes.set_ylim(0.0, 1.02 * top)
    if upper is not None and lower is not None and np.isfinite(0.1 * upper + 0.9 * lower).any():
        best = int(np.nanargmax(0.1 * upper + 0.9 * lower))
        axes.plot(
            epochs[best], lower[best], marker="*", markersize=11, color=INK, linestyle="none", zorder=5,
            label=f"best: {lower[best]:.3f} in epoch {epochs[best]:.0f}",
        )  # fmt: skip
    epoch_axis(axes, float(epochs.min()), float(epochs.max()))
    legend_below(axes)


def _rates(axes: Axes, epochs: NDArray[np.float64], rates: Columns) -> None:
    rate_lines(axes, epochs, list(rates), list(rates.values()))
    _finish(axes, epochs)


def _finish(axes: Axes, epochs: NDArray[np.float64]) -> None:
    epoch_axis(axes, float(epochs.min()), float(epochs.max()))
    legend_above(axes)
