"""tune.png: the fitness of each training of a search, and against each setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from holdfast.report.canvas import BLUE, INK, ORANGE, PALE, RED, dress, legend, new_figure, save

_COLUMNS = 5


def plot_search(
    trials: Sequence[Mapping[str, Any]], ranges: Mapping[str, tuple[float, float, bool]], path: Path
) -> Path:
    """Draws a search and returns the path.

    Args:
        trials: rows of trials.csv.
        ranges: lowest and highest value of each setting, and whether its scale is logarithmic.
    """
    rows = math.ceil(len(ranges) / _COLUMNS)
    figure = new_figure(13.0, 3.4 + 2.3 * rows)
    grid = figure.add_gridspec(1 + rows, _COLUMNS, height_ratios=[1.5, *[1.0] * rows])
    _history(figure.add_subplot(grid[0, :]), trials)
    done = [trial for trial in trials if trial["state"] == "complete"]
    best = max(done, key=lambda trial: float(trial["fitness"]), default=None)
    for place, (key, (low, high, log)) in enumerate(ranges.items()):
        axes = figure.add_subplot(grid[1 + place // _COLUMNS, place % _COLUMNS])
        axes.scatter(
            [trial[key] for trial in done], [trial["fitness"] for trial in done], s=18, color=BLUE, alpha=0.7
        )
        if best is not None:
            axes.scatter([best[key]], [best["fitness"]], marker="*", s=90, color=INK, zorder=5)
        if log:
            axes.set_xscale("log")
            axes.set_xlim(low / 1.15, high * 1.15)
            axes.xaxis.set_major_locator(FixedLocator([low, math.sqrt(low * high), high]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        else:
            axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
        dress(axes, title=key, y="fitness" if place % _COLUMNS == 0 else "")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    return save(figure, path)


def _history(axes: Axes, trials: Sequence[Mapping[str, Any]]) -> None:
    done = [trial for trial in trials if trial["state"] == "complete"]
    pruned = [trial for trial in trials if trial["state"] == "pruned" and trial["fitness"] is not None]
    failed = [trial for trial in trials if trial["state"] == "fail"]
    axes.scatter(*_points(done), s=26, color=BLUE, label="to the end")
    axes.scatter(*_points(pruned), s=26, color=ORANGE, marker="v", label="pruned")
    if failed:
        axes.scatter(
            [t["trial"] for t in failed],
            [0.0] * len(failed),
            s=30,
            color=RED,
            marker="x",
            label="failed",
            clip_on=False,
        )
    best, line = 0.0, []
    for trial in done:
        best = max(best, float(trial["fitness"]))
        line.append((trial["trial"], best))
    axes.step(
        [x for x, _ in line], [y for _, y in line], where="post", color=PALE, label="best so far", zorder=0
    )
    dress(axes, title="Fitness of each training", x="training", y="fitness")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0.0)
    legend(axes, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, borderaxespad=0.2)


def _points(trials: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
    return [trial["trial"] for trial in trials], [float(trial["fitness"]) for trial in trials]
