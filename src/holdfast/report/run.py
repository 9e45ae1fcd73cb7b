"""The pictures and the page of a run folder, in the order a run asks for them.

The trainer and the validator are handed this module; they do not know how anything is drawn. Nothing here may
end a run: what cannot be drawn or written at its end is told, and the rest is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from holdfast.data.batch import Batch
from holdfast.data.index import Index
from holdfast.evaluate.metrics import Metrics
from holdfast.post.original import Found
from holdfast.report.batches import draw_found, draw_targets
from holdfast.report.data_summary import write_summary
from holdfast.report.examples import Examples
from holdfast.report.gradient_plots import plot_gradients
from holdfast.report.label_plots import plot_labels
from holdfast.report.memory_plots import plot_memory
from holdfast.report.metric_plots import plot_confusion, plot_curves
from holdfast.report.plots import plot_results
from holdfast.report.rate_plots import plot_rates
from holdfast.report.run_folder import read_run
from holdfast.report.run_page import PAGE, write_page
from holdfast.report.speed_plots import plot_speed

Say = Callable[[str], None]
Work = tuple[str, Callable[[], object]]  # what it makes, and making it


def data(folder: Path, splits: Mapping[str, Index], names: Mapping[int, str], say: Say) -> None:
    """Writes labels.jpg of the training split and data.json of all splits."""
    index = splits["train"]

    def draw() -> None:
        plot_labels(index.classes, index.boxes, np.diff(index.offsets), names, folder / "labels.jpg")

    _each([("labels.jpg", draw), ("data.json", lambda: write_summary(folder, splits, names))], say)


def train_batch(folder: Path, number: int, batch: Batch, names: Mapping[int, str]) -> None:
    """Writes train_batch<number>.jpg: images as the network sees them, with their boxes."""
    draw_targets(folder / f"train_batch{number}.jpg", batch.images, batch.targets, names, batch.paths)


def val_batch(
    folder: Path, number: int, batch: Batch, found: list[Found], names: Mapping[int, str]
) -> None:
    """Writes val_batch<number>_labels.jpg and val_batch<number>_pred.jpg: truth and answer."""
    draw_targets(folder / f"val_batch{number}_labels.jpg", batch.images, batch.targets, names, batch.paths)
    draw_found(folder / f"val_batch{number}_pred.jpg", batch.images, found, names, batch.paths)


def examples(names: Mapping[int, str]) -> Examples:
    """What chooses pictures of a validation while its batches go by."""
    return Examples(names)


def validation(folder: Path, metrics: Metrics) -> None:
    """Writes the curves and the confusion matrices of a validation."""
    for title, part in metrics.parts.items():
        plot_curves(part, folder, title)
    plot_confusion(metrics.confusion, metrics.names, folder)


def finish(
    folder: Path, say: Say, metrics: Metrics | None = None, chosen: Examples | None = None
) -> Path | None:
    """Draws all that a run folder tells, and writes report.html.

    Args:
        folder: of a run that has ended, in whatever way, or is under way.
        say: told what could not be drawn or written.
        metrics: of the last validation; None leaves its pictures as they are.
        chosen: pictures from it.

    Returns:
        The page; None where it could not be written.
    """
    works: list[Work] = []
    if metrics is not None:
        works.append(("curves and confusion matrix", lambda: validation(folder, metrics)))
    if chosen is not None:
        works.append(("examples", lambda: chosen.save(folder)))
    run = read_run(folder)
    if run.table:
        works.append(("results.png", lambda: plot_results(folder / "results.csv")))
    if run.history.epochs:
        works += [
            ("lr_heatmap.png", lambda: plot_rates(run)),
            ("mem_usage.png", lambda: plot_memory(run)),
            ("grad_health.png", lambda: plot_gradients(run)),
            ("throughput.png", lambda: plot_speed(run)),
        ]
    works.append((PAGE, lambda: write_page(read_run(folder))))  # with the examples of just now
    failed = _each(works, say)
    return None if PAGE in failed else folder / PAGE


def _each(works: Sequence[Work], say: Say) -> list[str]:
    """Does all; returns the names of what failed, which is told."""
    return [name for name, work in works if not _done(name, work, say)]


def _done(name: str, work: Callable[[], object], say: Say) -> bool:
    try:
        work()
    except Exception as error:  # a full disk, memory that ran out, a fault of ours: the run is worth more
        say(f"{name} could not be made ({type(error).__name__}: {' '.join(str(error).split())})")
        return False
    return True
