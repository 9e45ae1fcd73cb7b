"""throughput.png: how fast a run went, epoch by epoch, and what it waited for.

Dimensions: E epochs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from holdfast.report.canvas import BLUE, GREEN, ORANGE, dress
from holdfast.report.panels import Panel, legend_above, line, nothing, run_axis, sheet
from holdfast.report.run_folder import RunFolder


def plot_speed(run: RunFolder) -> Path:
    """Writes throughput.png and returns its path."""
    return sheet(speed_panels(run), run.path / "throughput.png")


def speed_panels(run: RunFolder) -> list[Panel]:
    """Images per second; shares of the time."""
    return [
        Panel("Images per second", lambda axes: _speed(axes, run)),
        Panel("Waiting and working", lambda axes: _shares(axes, run)),
    ]


def _speed(axes: Axes, run: RunFolder) -> None:
    dress(axes, title="Images per second", x="epoch")
    values = run.series(lambda epoch: epoch.images_per_second or None)
    if not np.isfinite(values).any():
        nothing(axes, "no speed was recorded")
        return
    line(axes, run.epochs, values, BLUE, "images/s")
    axes.set_ylim(0.0, 1.12 * float(np.nanmax(values)))
    run_axis(axes, run)


def _shares(axes: Axes, run: RunFolder) -> None:
    dress(axes, title="Share of the time", x="epoch")
    waits = run.series(lambda epoch: epoch.wait_share if epoch.images_per_second else None)
    work = run.series(lambda epoch: epoch.utilisation)
    if not (np.isfinite(waits).any() or np.isfinite(work).any()):
        nothing(axes, "not recorded")
        return
    device = "CPU at work" if run.history.facts.device.startswith("cpu") else "device at work"
    line(axes, run.epochs, work, GREEN, device)
    line(axes, run.epochs, waits, ORANGE, "waiting for images")
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    run_axis(axes, run)
    legend_above(axes, columns=2)
