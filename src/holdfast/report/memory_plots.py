"""mem_usage.png: what memory a run held, epoch by epoch, beside what was planned, and where it goes.

On a CUDA device the device counts, with resident memory of the process beside it; on a CPU resident memory
is all there is.

Dimensions: E epochs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from holdfast.health.records import Breakdown, size
from holdfast.report.canvas import BLUE, GREEN, INK, ORANGE, PINK, RED, SKY, dress
from holdfast.report.panels import Panel, legend_below, line, nothing, run_axis, sheet
from holdfast.report.run_folder import RunFolder

GIB = 2.0**30
PARTS = (  # of the breakdown, with colours
    ("weights", "weights", BLUE),
    ("gradients", "gradients", SKY),
    ("state", "optimizer state", GREEN),
    ("average", "average of the weights", PINK),
    ("images", "input images", ORANGE),
    ("activations", "activations", RED),
    ("validation", "validation, on top", PINK),
    ("other", "libraries and data", INK),
)


def plot_memory(run: RunFolder) -> Path:
    """Writes mem_usage.png and returns its path."""
    return sheet(memory_panels(run), run.path / "mem_usage.png")


def memory_panels(run: RunFolder) -> list[Panel]:
    """Memory over the epochs, and its parts."""
    return [
        Panel("Memory over the epochs", lambda axes: _over_epochs(axes, run)),
        Panel("Where it goes", lambda axes: _parts(axes, run.history.breakdown)),
    ]


def _over_epochs(axes: Axes, run: RunFolder) -> None:
    dress(axes, title="Memory", x="epoch", y="GiB")
    facts, epochs = run.history.facts, run.epochs
    lines: list[tuple[NDArray[np.float64], str, str, str]] = [
        (run.series(lambda epoch: epoch.rss or None), GREEN, "host", "-"),
        (run.series(lambda epoch: epoch.allocated), BLUE, "allocated", "-"),
        (run.series(lambda epoch: epoch.reserved), ORANGE, "reserved", "-"),
        (run.series(lambda epoch: epoch.val_peak), PINK, "peak, validation", "--"),
        (run.series(lambda epoch: epoch.peak), RED, "peak, training", "-"),
    ]
    if not any(np.isfinite(values).any() for values, *_ in lines):
        nothing(axes, "no memory was recorded")
        return
    for values, color, name, style in lines:
        line(axes, epochs, values / GIB, color, name, style=style)
    top = max(float(np.nanmax(values)) for values, *_ in lines if np.isfinite(values).any()) / GIB
    for held, name, style in ((facts.planned, "predicted peak", "--"), (facts.limit, "limit", ":")):
        if held is None:
            continue
        if held / GIB > 3 * top:  # it would press all others to the ground
            name += f" {size(held)}, above"
            axes.plot([], [], color=INK, linestyle=style, linewidth=1.3, label=name)
            continue
        top = max(top, held / GIB)
        axes.axhline(held / GIB, color=INK, linestyle=style, linewidth=1.3, label=name)
    axes.set_ylim(0.0, 1.08 * top)
    run_axis(axes, run)
    legend_below(axes)


def _parts(axes: Axes, parts: Breakdown | None) -> None:
    """One bar for each part, with its size."""
    dress(axes, title="Where it goes", x="GiB")
    if parts is None:
        nothing(axes, "not known before the first epoch ends")
        return
    shown = [(name, getattr(parts, key) / GIB, color) for key, name, color in PARTS if getattr(parts, key)]
    for y, (_, held, color) in enumerate(shown):
        axes.barh(y, held, color=color, height=0.7)
        axes.annotate(
            size(held * GIB), (held, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8,
            color=INK,
        )  # fmt: skip
    axes.set_yticks(range(len(shown)), [name for name, _, _ in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.28 * max((held for _, held, _ in shown), default=1.0))
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
