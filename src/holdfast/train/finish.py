"""The end of a run: its best weights are validated, and the books are closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.evaluate.summary import results_summary, table
from holdfast.health.lines import duration
from holdfast.load import load_model
from holdfast.runs import SideFiles
from holdfast.train.checkpoint import Progress
from holdfast.train.dist import Ranks
from holdfast.train.monitor import Monitor
from holdfast.train.pictures import Pictures
from holdfast.train.roles import Evaluator, Validation


@dataclass
class TrainResult:
    """What a finished run leaves.

    Attributes:
        folder: the run folder.
        best: weight file of the best epoch.
        validation: result of the best weights.
        progress: epochs, steps, best fitness.
    """

    folder: Path
    best: Path
    validation: Any
    progress: Progress


def validate_best(
    folder: Path,
    evaluator: Evaluator,
    progress: Progress,
    ranks: Ranks,
    pictures: Pictures | None,
    talk: Callable[[str], None],
) -> TrainResult:
    """Validates the best weights of a run on all ranks; pictures are drawn where there is somebody to."""
    weights = folder / "weights"
    best, which = weights / "best.pt", f"best weights (epoch {progress.best_epoch + 1})"
    if not best.is_file():  # a resumed run whose best.pt was not kept beside last.pt
        best, which = weights / "last.pt", "last weights (best.pt is gone)"
    talk(f"{progress.epoch} epochs in {duration(progress.seconds)}; validating the {which}")
    answer = ranks.from_main(lambda: load_model(best).model)
    result = evaluator(answer, on_batch=None if pictures is None else pictures.validation)
    return TrainResult(folder, best, result, progress)


def close_books(
    done: TrainResult,
    *,
    files: SideFiles | None,
    pictures: Pictures | None,
    monitor: Monitor,
    unread: int,
    talk: Callable[[str], None],
) -> None:
    """Writes results.json and the report, and says how the run went.

    Args:
        files: writes; None on ranks that do not.
        unread: training images that could not be read.
    """
    result: Validation = done.validation
    if files is not None:
        summary = results_summary(result.metrics, result.speed, unread=result.unread)
        files.write_json(done.folder / "results.json", summary)
    if pictures is not None:
        pictures.reporter.finish(done.folder, talk, result.metrics, pictures.chosen)
    talk(table(result.metrics, result.speed))
    if unread:
        text = "training images could not be read while the run was under way; others took their place"
        talk(f"{unread} {text}")
    for line in monitor.recorder.advise(done.folder) if monitor.recorder is not None else ():
        talk(line)
    talk(f"results in {done.folder}")
