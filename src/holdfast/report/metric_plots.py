"""Pictures of a validation: precision-recall and confidence curves, confusion matrices.

Up to twelve classes get a line and a legend entry each; beyond that the classes are a grey bundle around
their mean, because nobody can tell eighty colours apart.

Dimensions: K classes with objects, X grid points.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from numpy.typing import NDArray

from holdfast.evaluate.coco import DetectionMetrics
from holdfast.evaluate.confusion import ConfusionMatrix
from holdfast.report.canvas import INK, LINES, PALE, dress, legend, new_figure, save, shorten


def plot_curves(metrics: DetectionMetrics, folder: Path, front: str = "") -> list[Path]:
    """Writes PR_curve.png, P_curve.png, R_curve.png and F1_curve.png and returns their paths.

    Args:
        front: what their names begin with, such as `Mask` where there are curves of boxes too.
    """
    names = [metrics.names[int(c)] for c in metrics.class_index]
    curves = metrics.curves
    kind = f"{front}: " if front else ""
    values = [f"{metrics.ap50[c]:.3f}" for c in metrics.class_index]
    paths = [
        _curve(
            folder / f"{front}PR_curve.png",
            metrics.pr_recall,
            metrics.pr_precision,
            [f"{name}  {value}" for name, value in zip(names, values, strict=True)],
            f"all classes  {metrics.map50:.3f} mAP50",
            title=f"{kind}Precision against recall at IoU 0.5",
            x="recall",
            y="precision",
        )
    ]
    for file, y, table in (
        ("P_curve.png", "precision", curves.precision),
        ("R_curve.png", "recall", curves.recall),
        ("F1_curve.png", "F1", curves.f1),
    ):
        mean = table.mean(axis=0) if len(table) else np.zeros(len(curves.confidence))
        top = int(mean.argmax()) if y == "F1" else curves.best
        paths.append(
            _curve(
                folder / f"{front}{file}",
                curves.confidence,
                table,
                names,
                f"all classes  {mean[top]:.2f} at {curves.confidence[top]:.3f}",
                title=f"{kind}{y[0].upper()}{y[1:]} against confidence",
                x="confidence",
                y=y,
                mark=(float(curves.confidence[top]), float(mean[top])) if len(table) else None,
            )
        )
    return paths


def plot_confusion(confusion: ConfusionMatrix, names: Mapping[int, str], folder: Path) -> list[Path]:
    """Writes confusion_matrix.png (counts) and confusion_matrix_normalized.png; returns their paths."""
    labels = [*(shorten(names.get(i, str(i)), 18) for i in range(confusion.classes)), "background"]
    return [
        _matrix(
            folder / "confusion_matrix.png",
            confusion.matrix.astype(np.float64),
            labels,
            title=f"Confusion matrix (confidence > {confusion.conf:g}, IoU > {confusion.iou:g})",
            share=False,
        ),
        _matrix(
            folder / "confusion_matrix_normalized.png",
            confusion.normalised(),
            labels,
            title="Confusion matrix, share of each true class",
            share=True,
        ),
    ]


def _curve(
    path: Path,
    grid: NDArray[np.float64],
    table: NDArray[np.float64],
    names: list[str],
    mean_name: str,
    *,
    title: str,
    x: str,
    y: str,
    mark: tuple[float, float] | None = None,
) -> Path:
    """Draws (K, X) lines over an (X,) grid with their mean."""
    figure = new_figure(8.6, 5.4)
    axes: Axes = figure.subplots()
    few = len(table) <= len(LINES)
    for i, row in enumerate(table):
        if few:
            color, style = LINES[i]
            axes.plot(grid, row, color=color, linestyle=style, linewidth=1.2, label=shorten(names[i], 34))
        else:
            axes.plot(grid, row, color=PALE, linewidth=0.6, label=f"{len(table)} classes" if i == 0 else None)
    if len(table):
        axes.plot(grid, table.mean(axis=0), color=INK, linewidth=2.6, label=mean_name)
    else:
        axes.text(0.5, 0.5, "no object in the data set", ha="center", va="center", color=INK)
    if mark is not None:
        axes.plot(*mark, marker="o", markersize=6, color=INK, linestyle="none")
    dress(axes, title=title, x=x, y=y)
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.02)
    legend(axes, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
    return save(figure, path)


def _matrix(path: Path, matrix: NDArray[np.float64], labels: list[str], *, title: str, share: bool) -> Path:
    """Draws one matrix; numbers are written while they are readable, empty cells stay empty."""
    count = len(labels)
    side = min(22.0, max(5.5, 2.4 + 0.5 * count if count <= 30 else 4.0 + 0.2 * count))
    size = 9 if count <= 30 else 6
    figure = new_figure(side * 1.12, side)
    axes: Axes = figure.subplots()
    # A square root scale for counts, else the background column outshines everything.
    norm = PowerNorm(1.0 if share else 0.5, vmin=0.0, vmax=1.0 if share else max(1.0, matrix.max()))
    image = axes.imshow(matrix, cmap="Blues", norm=norm)
    tilt = {"rotation": 90} if count > 6 else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(count), labels, **tilt)
    axes.set_yticks(range(count), labels)
    if count <= 30:
        shades = norm(matrix)
        for i, j in np.argwhere(matrix >= (0.005 if share else 1)):
            axes.text(
                j, i,
                f"{matrix[i, j]:.2f}" if share else f"{matrix[i, j]:.0f}",
                ha="center", va="center", fontsize=min(9, 130 / count),
                color="white" if shades[i, j] > 0.55 else INK,
            )  # fmt: skip
    dress(axes, title=title, x="true", y="predicted", grid=False)
    axes.tick_params(labelsize=size, length=0)
    axes.spines[["left", "bottom"]].set_visible(False)
    # Thin white lines part the cells.
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2 if count <= 30 else 0.4)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, aspect=20 if count <= 30 else 50)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)
    return save(figure, path)
