"""Runs side by side: what differs, what came of it, and their curves in one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from holdfast.evaluate.fitness import fitness_weights, short
from holdfast.report.canvas import LINES, dress, new_figure, save, shorten
from holdfast.report.run_record import RunRecord

_OF_THE_FOLDER = ("name", "project", "exist_ok", "verbose", "resume", "plots")
_NOT_SET = "-"


def differences(runs: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Settings whose values differ, with the value of each run; None where a run has none."""
    keys = dict.fromkeys(chain.from_iterable(run.settings for run in runs))
    found = {key: [run.settings.get(key) for run in runs] for key in keys if key not in _OF_THE_FOLDER}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def metrics(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Columns of what the runs were validated by, under short names; those of their fitness first."""
    found = dict.fromkeys(c for run in runs for c in run.columns if c.startswith("metrics/"))
    main = dict.fromkeys(reversed(fitness_weights(found)))
    return {short(column): column for column in main | found}


def outcome(run: RunRecord) -> dict[str, Any]:
    """What came of a run, as plain data: metrics of its best epoch, speed, memory, time."""
    best = run.best
    return {
        "name": run.name,
        "folder": str(run.folder),
        "model": run.manifest.get("model", run.settings.get("model")),
        "epochs": len(run.epochs),
        "best_epoch": None if best is None else int(run.epochs[best]),
        **{name: run.at_best(column) for name, column in metrics([run]).items()},
        "images_per_second": run.images_per_second,
        "peak_bytes": run.peak,
        "seconds": run.seconds,
    }


def comparison(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """The comparison as plain data, curves included."""
    return {
        "runs": [outcome(run) for run in runs],
        "differences": differences(runs),
        "curves": {
            run.name: {name: [_plain(v) for v in values] for name, values in run.columns.items()}
            for run in runs
        },
    }


def comparison_lines(runs: Sequence[RunRecord]) -> list[str]:
    """The comparison as text: one column per run, the best value of a row marked."""
    facts = [outcome(run) for run in runs]
    rows = [["", *(run.name for run in runs)]]
    rows += [_row("epochs", facts, "epochs", str), _row("best epoch", facts, "best_epoch", str)]
    for name in metrics(runs):
        rows.append(_row(name, facts, name, lambda value: f"{value:.4f}", best=max))
    rows.append(_row("images/s", facts, "images_per_second", lambda value: f"{value:.1f}", best=max))
    rows.append(_row("memory", facts, "peak_bytes", lambda value: f"{value / 2**30:.2f} GiB", best=min))
    rows.append(_row("time", facts, "seconds", _clock, best=min))
    lines = _aligned(rows)
    changed = differences(runs)
    if not changed:
        return [*lines, "", "settings: all the same"]
    table = [[key, *(_said(value) for value in values)] for key, values in changed.items()]
    return [*lines, "", "settings that differ", *_aligned([rows[0], *table])[1:]]


def plot_comparison(runs: Sequence[RunRecord], path: Path) -> Path:
    """Draws the curves of all runs over each other, and returns the path."""
    figure = new_figure(13.0, 6.9)
    axes = figure.subplots(2, 3)
    panels: list[tuple[str, Callable[[RunRecord], tuple[NDArray[np.float64], NDArray[np.float64]]]]] = [
        *((name, partial(_curve, column)) for name, column in list(metrics(runs).items())[:2]),
        ("Seconds per epoch", lambda run: (run.epochs, run.epoch_seconds())),
        ("Box loss, training", lambda run: (run.epochs, run.column("train/box_loss"))),
        ("Class loss, training", lambda run: (run.epochs, run.column("train/cls_loss"))),
    ]
    if any(len(run.health) for run in runs):
        panels.append(("Memory, GiB", lambda run: (_recorded(run), run.memory() / 2**30)))
    else:
        panels.append(("Learning rate", lambda run: (run.epochs, run.column("lr/pg0"))))
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    for place, (title, values) in zip(axes.flat, panels, strict=False):
        for number, run in enumerate(runs):
            _line(place, *values(run), number)
        dress(place, title=title, x="epoch")
        place.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if not place.lines:
            place.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=place.transAxes)
        else:
            place.set_ylim(bottom=0.0)
    handles = [axes.flat[3].plot([], [], color=c, linestyle=s, linewidth=1.8)[0] for c, s in _styles(runs)]
    figure.legend(
        handles,
        [shorten(run.name, 40) for run in runs],
        loc="outside upper left",
        frameon=False,
        fontsize=9,
        ncols=min(len(runs), 4),
    )
    return save(figure, path)


def _styles(runs: Sequence[RunRecord]) -> list[tuple[str, str]]:
    return [LINES[number % len(LINES)] for number in range(len(runs))]


def _line(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], number: int) -> None:
    known = np.isfinite(y)
    if not known.any():
        return
    color, style = LINES[number % len(LINES)]
    marker = "o" if known.sum() <= 20 else ""
    axes.plot(x[known], y[known], color=color, linestyle=style, linewidth=1.8, marker=marker, markersize=3.5)


def _recorded(run: RunRecord) -> NDArray[np.float64]:
    return np.array([epoch.epoch for epoch in run.health], dtype=np.float64)


def _curve(column: str, run: RunRecord) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return run.epochs, run.column(column)


def _row(
    title: str,
    facts: Sequence[dict[str, Any]],
    key: str,
    told: Callable[[Any], str],
    *,
    best: Callable[[Sequence[float]], float] | None = None,
) -> list[str]:
    known = [fact[key] for fact in facts if fact.get(key) is not None]
    cells = ["?" if fact.get(key) is None else told(fact[key]) for fact in facts]
    if best is not None and len(set(cells) - {"?"}) > 1:  # what looks the same is not told apart
        top = told(best(known))
        cells = [f"{cell} *" if cell == top else cell for cell in cells]
    return [title, *cells]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _said(value: Any) -> str:
    return _NOT_SET if value is None or value == "" else shorten(str(value), 40)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
