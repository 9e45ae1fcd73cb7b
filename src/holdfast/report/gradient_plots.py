"""grad_health.png: how large the gradients of a run were, as a whole and in each part of the model, and what
was out of the ordinary.

Dimensions: E epochs.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from holdfast.health.records import Event
from holdfast.report.canvas import BLUE, GREEN, INK, ORANGE, PINK, RED, SKY, dress
from holdfast.report.panels import (
    Panel,
    epoch_axis,
    heat,
    heat_height,
    legend_above,
    legend_below,
    line,
    log_scale,
    nothing,
    run_axis,
    sheet,
)  # fmt: skip
from holdfast.report.run_folder import RunFolder

COLORS = (RED, ORANGE, PINK, BLUE, GREEN, SKY)
QUIET = ("end", "start", "resume")  # kinds of events that are part of every run


def plot_gradients(run: RunFolder) -> Path:
    """Writes grad_health.png and returns its path."""
    norms, clipped, events, layers = gradient_panels(run)
    return sheet([norms, layers, clipped, events], run.path / "grad_health.png")


def gradient_panels(run: RunFolder) -> list[Panel]:
    """Norms, steps that were clipped, events, and norms by part of the model."""
    names = list(dict.fromkeys(name for epoch in run.history.epochs for name in epoch.layers))

    def layers(axes: Axes) -> None:
        rows = [run.series(lambda epoch, name=name: epoch.layers.get(name)) for name in names]  # type: ignore[misc]
        heat(axes, run, names, rows, title="Norm by part, first step of each epoch")

    return [
        Panel("Norm of all gradients", lambda axes: _norms(axes, run)),
        Panel("Share of steps that were clipped", lambda axes: _clipped(axes, run)),
        Panel("Out of the ordinary", lambda axes: _events(axes, run)),
        Panel("Norm of the gradients by part of the model", layers, heat_height(len(names))),
    ]


def notable(run: RunFolder) -> list[Event]:
    """Events that do not belong to every run."""
    return [event for event in run.history.events if event.what not in QUIET]


def _norms(axes: Axes, run: RunFolder) -> None:
    dress(axes, title="Gradient norm", x="epoch")
    mean, most = run.series(lambda epoch: epoch.norm), run.series(lambda epoch: epoch.norm_max)
    if not np.isfinite(mean).any():
        nothing(axes, "no norm was recorded")
        return
    line(axes, run.epochs, most, RED, "largest")
    line(axes, run.epochs, mean, BLUE, "mean")
    positive = [values[values > 0] for values in (mean, most)]
    if any(values.size for values in positive):
        log_scale(axes)
    clip = run.args.get("clip_norm")
    low, high = axes.get_ylim()
    if isinstance(clip, int | float) and clip > 0 and low < clip < 3 * high:
        axes.axhline(clip, color=INK, linestyle="--", linewidth=1.3, label=f"clipped above {clip:g}")
    run_axis(axes, run)
    legend_above(axes)


def _clipped(axes: Axes, run: RunFolder) -> None:
    dress(axes, title="Steps that were clipped", x="epoch", y="share")
    values = run.series(lambda epoch: epoch.clipped)
    if not np.isfinite(values).any():
        nothing(axes, "not recorded")
        return
    line(axes, run.epochs, values, GREEN, "clipped")
    axes.set_ylim(-0.02, 1.02)
    run_axis(axes, run)


def _events(axes: Axes, run: RunFolder) -> None:
    """Bars of what happened in each epoch, by kind."""
    dress(axes, title="Out of the ordinary", x="epoch", y="times")
    events = [(event.epoch, event.what) for event in notable(run)]
    lost = [epoch for epoch in run.history.epochs if epoch.losses and epoch.loss is None]
    events += [(epoch.epoch, "loss not finite") for epoch in lost]
    found = Counter(events)
    if not found:
        nothing(axes, "nothing: every step counted")
        return
    kinds = [kind for kind, _ in Counter(kind for _, kind in found.elements()).most_common(len(COLORS))]
    first, last = min(number for number, _ in events), max(number for number, _ in events)
    epochs = np.arange(min(run.span[0], first), max(run.span[1], last) + 1)
    base = np.zeros(len(epochs))
    for kind, color in zip(kinds, COLORS, strict=False):
        counts = np.array([found[int(number), kind] for number in epochs], dtype=np.float64)
        axes.bar(epochs, counts, bottom=base, width=max(0.8, 0.006 * len(epochs)), color=color, label=kind)
        base += counts
    run_axis(axes, run)
    if last > run.span[1]:  # in an epoch that did not end
        epoch_axis(axes, run.span[0], float(last))
    axes.set_ylim(0, 1.15 * base.max())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    legend_below(axes)
