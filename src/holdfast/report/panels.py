"""Charts of one subject each: together on one picture, or one by one as part of a page.

In a page they are SVG whose ink, lines and series are CSS variables (`page.STYLE`), so that the same drawing
is right on light and on dark paper.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from holdfast.report.canvas import (
    BLUE,
    GREEN,
    GRID,
    INK,
    ORANGE,
    PALE,
    PINK,
    RED,
    SKY,
    dress,
    finish_texts,
    legend,
    new_figure,
    save,
    shorten,
)  # fmt: skip
from holdfast.report.run_folder import RunFolder

# The same names stand in the style of the page.
VARIABLES: Mapping[str, str] = MappingProxyType({
    INK: "ink", PALE: "axis", GRID: "line", BLUE: "blue", ORANGE: "orange", GREEN: "green", PINK: "pink",
    RED: "red", SKY: "sky",
})  # fmt: skip
WIDTH, HEIGHT = 4.7, 2.9  # inches of a chart in a page


class Panel(NamedTuple):
    """A chart.

    Attributes:
        title: what it shows.
        draw: draws it into axes, title included.
        height: inches it wants.
    """

    title: str
    draw: Callable[[Axes], None]
    height: float = HEIGHT


def sheet(
    panels: Sequence[Panel], path: Path, *, columns: int = 2, width: float = 6.5, height: float = 3.3
) -> Path:
    """Draws charts side by side into one picture.

    Args:
        panels: the charts, row by row.
        path: the picture.
        columns: charts of a row.
        width: inches of a chart.
        height: inches of a chart that wants the usual height.
    """
    columns = min(columns, len(panels))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [height / HEIGHT * max(panel.height for panel in row) for row in rows]
    figure = new_figure(width * columns, sum(heights))
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            panel.draw(figure.add_subplot(grid[y, x:] if panel is row[-1] else grid[y, x]))
    return save(figure, path)


def inline(panel: Panel, *, number: int) -> str:
    """The chart as an SVG element for a page.

    Args:
        number: of the chart in its page, for names that are not those of another chart.
    """
    figure = new_figure(WIDTH, panel.height)
    axes = figure.add_subplot()
    panel.draw(axes)
    finish_texts(figure)
    for patch in (figure.patch, axes.patch):
        patch.set_visible(False)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>c{number}-", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    for color, name in VARIABLES.items():
        text = text.replace(color.lower(), f"var(--{name})")
    text = re.sub(r"\n\s*", "\n", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(panel.title)}" ', 1).strip()


def epoch_axis(axes: Axes, first: float, last: float) -> None:
    """One axis of whole epochs for all charts of a run, with some room where there are few."""
    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def run_axis(axes: Axes, run: RunFolder) -> None:
    """The axis of all epochs of a run, with a thin line where it was started again."""
    epoch_axis(axes, *run.span)
    for number, done in enumerate(run.starts):
        label = "" if number else "started again"
        axes.axvline(done + 0.5, color=PALE, linewidth=1.2, linestyle=":", zorder=0.5, label=label)


def line(
    axes: Axes,
    epochs: NDArray[np.float64],
    values: NDArray[np.float64] | None,
    color: str,
    label: str,
    *,
    style: str = "-",
    joined: bool = False,
) -> None:
    """Draws values over epochs, where there are any.

    Args:
        epochs: (E,).
        values: (E,) with NaN where nothing is known; None draws nothing.
        joined: leaves no gap where values are missing: of what is measured now and then.
    """
    if values is None or not np.isfinite(values).any():
        return
    known = np.isfinite(values)
    alone = known & ~np.append(known[1:], False) & ~np.append(False, known[:-1])  # a line cannot show these
    if joined:
        epochs, values, alone = epochs[known], values[known], np.zeros(0, bool)
    dots = known.sum() <= 20
    axes.plot(
        epochs, values, color=color, label=label, linewidth=1.8, linestyle=style, marker="o" if dots else "",
        markersize=3.5,
    )  # fmt: skip
    if not dots and alone.any():
        axes.plot(epochs[alone], values[alone], color=color, linestyle="none", marker="o", markersize=3)


def legend_above(axes: Axes, columns: int = 3) -> None:
    """A legend beside the title, where it never covers a line."""
    legend(
        axes, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=columns, borderaxespad=0.2,
        handlelength=1.4, columnspacing=1.0,
    )  # fmt: skip


def legend_below(axes: Axes, columns: int = 3) -> None:
    """A legend of many entries, under the chart."""
    legend(
        axes, loc="upper center", bbox_to_anchor=(0.45, 0.0), ncols=columns, borderaxespad=0.0,
        handlelength=1.6, columnspacing=1.2,
        bbox_transform=axes.transAxes + ScaledTranslation(0, -30 / 72, axes.figure.dpi_scale_trans),
    )  # fmt: skip


def nothing(axes: Axes, text: str) -> None:
    """Says in an empty chart why it is empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", color=INK, fontsize=9, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def heat_height(rows: int) -> float:
    """Inches that a heat map of so many rows wants."""
    return 1.5 + 0.19 * max(rows, 1)


def heat(
    axes: Axes, run: RunFolder, names: Sequence[str], rows: Sequence[NDArray[np.float64]], *, title: str
) -> None:
    """Draws numbers over the epochs as colours, on a logarithmic scale where they span more than a factor of
    30; grey where nothing is known.

    Args:
        names: of the R rows.
        rows: R times (E,).
    """
    dress(axes, title=title, x="epoch", grid=False)
    values = np.array(rows, dtype=np.float64).reshape(len(names), len(run.epochs))
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        nothing(axes, "nothing recorded")
        return
    low, high = float(known.min()), float(known.max())
    wide = high > 30 * low
    norm = LogNorm(low, high) if wide else Normalize(0.0, high)
    first, last = run.span
    shown = np.ma.masked_invalid(np.where(values <= 0, low if wide else 0.0, values))
    colors = matplotlib.colormaps["cividis"].with_extremes(bad=PALE)
    image = axes.imshow(
        shown, cmap=colors, norm=norm, aspect="auto", interpolation="nearest",
        extent=(first - 0.5, last + 0.5, len(names) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_yticks(range(len(names)), [shorten(name, 26) for name in names])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.tick_params(length=0)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, format=FuncFormatter(compact))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.outline.set_visible(False)


def log_scale(axes: Axes) -> None:
    """A logarithmic upward axis with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=8))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(compact))


def compact(value: float, _: int | None = None) -> str:
    """`0.003`, `3e-05`, `1,200`: a number for an axis."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
