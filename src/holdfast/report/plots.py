"""results.png: how a training run went, drawn from its results.csv.

Epochs without validation have empty cells; lines then connect the epochs that have a value.

Dimensions: E epochs.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from holdfast.errors import DataError
from holdfast.report.canvas import BLUE, GREEN, INK, ORANGE, PINK, RED, dress, legend, new_figure, save

Columns = dict[str, NDArray[np.float64]]


def read_results(path: Path) -> Columns:
    """Reads a results.csv.

    Returns:
        Column name to (E,) values, NaN for empty cells.

    Raises:
        DataError: the file is missing or is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}.", path=path, hint="Give the run's results.csv."
        ) from None
    names = [name.strip() for name in rows[0]] if rows else []
    if "epoch" not in names:
        raise DataError("has no rows with an 'epoch' column.", path=path, hint="Give the run's results.csv.")
    table = [[_number(cell) for cell in row.values()] for row in rows]
    return dict(zip(names, np.array(table, dtype=np.float64).T, strict=True))


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
    epochs = data["epoch"]
    figure = new_figure(13.0, 6.6)
    axes = figure.subplots(2, 3)
    distance = ("l1", "Distance loss") if "train/l1_loss" in data else ("dfl", "Distribution loss")
    losses = ("box", "Box loss"), ("cls", "Class loss"), distance
    for place, (key, title) in zip(axes[0], losses, strict=True):
        _line(place, epochs, data.get(f"train/{key}_loss"), BLUE, "train")
        _line(place, epochs, data.get(f"val/{key}_loss"), RED, "validation")
        dress(place, title=title, x="epoch")
        _legend(place)
    _precision_recall(axes[1, 0], epochs, data)
    _average_precision(axes[1, 1], epochs, data)
    _learning_rate(axes[1, 2], epochs, data)
    # One time axis for all panels, also where only a few epochs were validated.
    first, last = float(epochs.min()), float(epochs.max())
    margin = max(0.5, 0.03 * (last - first))
    for place in axes.flat:
        place.set_xlim(first - margin, last + margin)
        place.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    return save(figure, Path(out) if out is not None else path.with_name("results.png"))


def _precision_recall(axes: Axes, epochs: NDArray[np.float64], data: Columns) -> None:
    _line(axes, epochs, data.get("metrics/precision(B)"), GREEN, "precision")
    _line(axes, epochs, data.get("metrics/recall(B)"), ORANGE, "recall")
    dress(axes, title="Precision and recall", x="epoch")
    axes.set_ylim(0.0, 1.02)
    _legend(axes)


def _average_precision(axes: Axes, epochs: NDArray[np.float64], data: Columns) -> None:
    upper, lower = data.get("metrics/mAP50(B)"), data.get("metrics/mAP50-95(B)")
    _line(axes, epochs, upper, PINK, "mAP50")
    _line(axes, epochs, lower, BLUE, "mAP50-95")
    dress(axes, title="Average precision", x="epoch")
    top = 1.0
    if upper is not None and np.isfinite(upper).any():
        top = min(1.0, 1.15 * max(float(np.nanmax(upper)), 0.05))
    axes.set_ylim(0.0, 1.02 * top)
    _legend(axes)
    if upper is None or lower is None:
        return
    fitness = 0.1 * upper + 0.9 * lower
    if not np.isfinite(fitness).any():
        return
    best = int(np.nanargmax(fitness))
    axes.plot(epochs[best], lower[best], marker="*", markersize=12, color=INK, linestyle="none", zorder=5)
    # Near the right end the text goes to the left of its star.
    late = epochs[best] > (epochs[0] + epochs[-1]) / 2
    axes.annotate(
        f"best: epoch {epochs[best]:.0f}, {lower[best]:.3f}",
        (float(epochs[best]), float(lower[best])),
        xytext=(-6 if late else 6, -16),
        textcoords="offset points",
        ha="right" if late else "left",
        fontsize=8,
        color=INK,
    )


def _learning_rate(axes: Axes, epochs: NDArray[np.float64], data: Columns) -> None:
    """One line per distinct schedule: groups that share their rates share a line."""
    groups: list[tuple[list[str], NDArray[np.float64]]] = []
    for name, values in data.items():
        if not name.startswith("lr/"):
            continue
        for members, known in groups:
            if np.allclose(known, values, rtol=1e-6, atol=0.0, equal_nan=True):
                members.append(name.removeprefix("lr/"))
                break
        else:
            groups.append(([name.removeprefix("lr/")], values))
    for (members, values), color in zip(groups, (BLUE, ORANGE, GREEN, PINK, RED), strict=False):
        _line(axes, epochs, values, color, ", ".join(members))
    dress(axes, title="Learning rate", x="epoch")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-4, 4))
    axes.yaxis.get_offset_text().set_fontsize(8)
    axes.set_ylim(bottom=0.0)
    _legend(axes)


def _legend(axes: Axes) -> None:
    """Beside the title, where it never covers a line."""
    legend(axes, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2, handlelength=1.4)


def _line(
    axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64] | None, color: str, label: str
) -> None:
    if values is None or not np.isfinite(values).any():
        return
    valid = np.isfinite(values)
    marker = "o" if valid.sum() <= 20 else ""
    axes.plot(
        epochs[valid], values[valid], color=color, label=label, linewidth=1.8, marker=marker, markersize=3.5
    )


def _number(cell: str | None) -> float:
    try:
        return float(cell) if cell and cell.strip() else float("nan")
    except ValueError:
        return float("nan")
