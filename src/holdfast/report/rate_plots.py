"""lr_heatmap.png: the learning rate of each group of parameters over the epochs.

Dimensions: G groups, E epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from holdfast.report.canvas import BLUE, GREEN, INK, ORANGE, PINK, RED, SKY, dress
from holdfast.report.panels import Panel, heat, heat_height, legend_above, line, run_axis, sheet
from holdfast.report.run_folder import RunFolder

COLORS = (BLUE, ORANGE, GREEN, PINK, RED, SKY, INK)


def plot_rates(run: RunFolder) -> Path:
    """Writes lr_heatmap.png and returns its path."""
    return sheet(rate_panels(run), run.path / "lr_heatmap.png", columns=1, width=9.0)


def rate_panels(run: RunFolder) -> list[Panel]:
    """A heat map of the rates, and lines."""
    names, rates = _rates(run)

    def draw_heat(axes: Axes) -> None:
        heat(axes, run, names, rates, title="Learning rate of each group")

    def draw_lines(axes: Axes) -> None:
        rate_lines(axes, run.epochs, names, rates)
        run_axis(axes, run)
        legend_above(axes, columns=2)

    heading = "Learning rate of each group of parameters"
    return [Panel(heading, draw_heat, heat_height(len(names))), Panel("Learning rate", draw_lines)]


def rate_lines(
    axes: Axes, epochs: NDArray[np.float64], names: Sequence[str], rates: Sequence[NDArray[np.float64]]
) -> None:
    """One line per distinct schedule: groups that share their rates share a line.

    Args:
        epochs: (E,).
        names: of the groups.
        rates: (E,) of each.
    """
    groups: list[tuple[list[str], NDArray[np.float64]]] = []
    for name, values in zip(names, rates, strict=True):
        for members, known in groups:
            if np.allclose(known, values, rtol=1e-6, atol=0.0, equal_nan=True):
                members.append(name)
                break
        else:
            groups.append(([name], values))
    for (members, values), color in zip(groups, COLORS, strict=False):
        shown = members if len(members) <= 3 else [members[0], f"{len(members) - 1} more"]
        line(axes, epochs, values, color, ", ".join(shown), joined=True)
    dress(axes, title="Learning rate", x="epoch")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-4, 4))
    axes.yaxis.get_offset_text().set_fontsize(8)
    axes.set_ylim(bottom=0.0)


def _rates(run: RunFolder) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Names of the groups, and their rates (E,)."""
    count = max((len(epoch.rates) for epoch in run.history.epochs), default=0)
    told = run.manifest.get("groups", [])
    names = [str(told[i]) if len(told) == count else f"group {i}" for i in range(count)]
    rates = np.full((count, len(run.epochs)), np.nan)
    for epoch in run.history.epochs:
        rates[: len(epoch.rates), epoch.epoch - int(run.span[0])] = [
            np.nan if rate is None else rate for rate in epoch.rates
        ]
    return names, list(rates)
