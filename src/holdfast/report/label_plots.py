"""labels.jpg: what a data set holds. Objects per class, where they are, how large they are, how many per
image.

Dimensions: N images, M boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from holdfast.report.canvas import BLUE, GREEN, INK, dress, new_figure, save, shorten

SHOWN = 30  # classes with a bar of their own


def plot_labels(
    classes: NDArray[np.integer],
    boxes: NDArray[np.float32],
    per_image: NDArray[np.integer],
    names: Mapping[int, str],
    path: Path,
) -> Path:
    """Draws the label statistics.

    Args:
        classes: (M,) class index.
        boxes: (M, 4) cx cy w h as fractions of the image.
        per_image: (N,) boxes in each image.
        names: class index to name.
        path: the picture.

    Returns:
        `path`.
    """
    shown = min(len(names), SHOWN)
    figure = new_figure(13.0, max(8.0, 3.0 + 0.24 * shown))
    grid = figure.add_gridspec(2, 3, width_ratios=(1.15, 1.0, 1.0))
    _counts(figure.add_subplot(grid[:, 0]), classes, names)
    _heat(
        figure.add_subplot(grid[0, 1]),
        boxes[:, 0],
        boxes[:, 1],
        "Box centres",
        "x / width",
        "y / height",
        flip=True,
    )
    _heat(figure.add_subplot(grid[0, 2]), boxes[:, 2], boxes[:, 3], "Box sizes", "w / width", "h / height")
    _histogram(
        figure.add_subplot(grid[1, 1]),
        np.sqrt(boxes[:, 2] * boxes[:, 3]),
        "Box side, part of the image",
        "square root of the area share",
        "boxes",
    )
    _per_image(figure.add_subplot(grid[1, 2]), per_image)
    empty = int((per_image == 0).sum())
    figure.suptitle(
        f"{len(classes):,} boxes in {len(per_image):,} images, {empty:,} of them without a box",
        fontsize=12,
        color=INK,
    )
    return save(figure, path, dpi=120)


def _counts(axes: Axes, classes: NDArray[np.integer], names: Mapping[int, str]) -> None:
    """Horizontal bars, most frequent class on top, counts written at their ends."""
    keys = sorted(names)
    counts = np.bincount(classes.astype(np.int64), minlength=max(keys, default=0) + 1)[keys]
    order = np.argsort(-counts, kind="stable")[:SHOWN]
    values = counts[order]
    axes.barh(range(len(order)), values, color=BLUE, height=0.75)
    axes.set_yticks(range(len(order)), [shorten(names[keys[i]], 22) for i in order])
    axes.set_ylim(max(len(order), 8) - 0.4, -0.6)  # few classes get bars, not slabs
    for y, value in enumerate(values):
        place = (float(value), float(y))
        axes.annotate(
            f"{value:,}", place, xytext=(3, 0), textcoords="offset points", va="center", fontsize=8, color=INK
        )
    axes.set_xlim(0, max(1, values.max(initial=0)) * 1.16)
    hidden = len(keys) - len(order)
    dress(
        axes, title="Boxes per class" + (f" ({hidden} rarer classes not shown)" if hidden else ""), x="boxes"
    )
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))


def _heat(
    axes: Axes,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    title: str,
    x_name: str,
    y_name: str,
    *,
    flip: bool = False,
) -> None:
    """Density over the unit square; images have their origin at the top, sizes at the bottom."""
    density, _, _ = np.histogram2d(y, x, bins=40, range=((0, 1), (0, 1)))
    axes.imshow(
        np.ma.masked_equal(np.sqrt(density), 0.0),  # empty cells stay white
        cmap="Blues",
        vmin=-0.25 * max(1.0, float(np.sqrt(density).max())),  # a single box is still visible
        extent=(0, 1, 1, 0) if flip else (0, 1, 0, 1),
        origin="upper" if flip else "lower",
        interpolation="nearest",
    )
    dress(axes, title=title, x=x_name, y=y_name, grid=False)


def _histogram(axes: Axes, values: NDArray[np.float32], title: str, x_name: str, y_name: str) -> None:
    axes.hist(values, bins=40, range=(0.0, 1.0), color=GREEN)
    if len(values) == 0:
        axes.set_ylim(0, 1)
    dress(axes, title=title, x=x_name, y=y_name)
    axes.set_xlim(0, 1)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _per_image(axes: Axes, per_image: NDArray[np.integer]) -> None:
    """Bars of whole numbers; the rarest one per cent at the crowded end shares the last bar."""
    top = int(np.percentile(per_image, 99)) if len(per_image) else 0
    step = max(1, -(-(top + 1) // 40))
    bars = np.bincount(np.minimum(per_image, top).astype(np.int64) // step, minlength=1)
    left = np.arange(len(bars)) * step
    axes.bar(left, bars, width=0.85 * step, color=GREEN, align="edge" if step > 1 else "center")
    axes.set_xlim(-0.6, max(float(left[-1] + step), 9.0) - 0.2)
    more = " (rarest 1% in the last bar)" if len(per_image) and int(per_image.max()) > top else ""
    dress(axes, title="Boxes per image", x=f"boxes{more}", y="images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
