"""`holdfast demo`: draws a data set, trains on it, validates, detects, and says where to look.

The whole program on data that needs no download; what it prints at the end is what a user's own run leaves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.errors import SettingsError
from holdfast.running import Say, run_predict, run_train, run_val
from holdfast.settings import DemoSettings, PredictSettings, TrainSettings, ValSettings
from holdfast.val.run import ValResult


def run_demo(settings: DemoSettings, *, say: Say = print) -> ValResult:
    """Runs the demonstration in `settings.folder`, and returns the validation of the trained model."""
    from holdfast.data.shapes import write_demo
    from holdfast.models.registry import family_of, resolve, smallest

    model = resolve(settings.model) if settings.model else smallest(settings.task)
    family = family_of(model)
    if family.task != settings.task:
        raise SettingsError(
            f"{model} is for the task '{family.task}', not '{settings.task}'.", hint="Leave out one of them."
        )
    folder = Path(settings.folder)
    say(f"1/4 drawing {settings.images} pictures in {folder / 'data'}")
    data = write_demo(folder / "data", images=settings.images, seed=settings.seed, needs=family.needs)
    common: dict[str, Any] = {
        "device": settings.device,
        "imgsz": settings.imgsz,
        "batch": settings.batch,
        "project": str(folder),
    }

    say(f"2/4 training {model} for {settings.epochs} epochs")
    training: dict[str, Any] = {
        "model": model,
        "data": data,
        "epochs": settings.epochs,
        "workers": settings.workers,
        "seed": settings.seed,
        "hyp": "short-run",
        "val_interval": 5,
        "name": "train",
    }
    run = run_train(TrainSettings(**common, **training), say=say)

    say(f"3/4 validating {run.best}")
    result = run_val(ValSettings(**common, model=str(run.best), data=str(data), name="val"), say=say)

    pictures = data / "val" / "*" / "*" if family.needs.whole else data.parent / "images" / "val"
    say(f"4/4 detecting on {pictures}")
    detecting: dict[str, Any] = {"model": run.best, "source": pictures, "name": "detect", "verbose": False}
    found, where = run_predict(PredictSettings(**common, **detecting), say=say)

    say(f"training: report.html, results.csv and weights/best.pt in {run.folder}")
    say(f"pictures: {found} with what was found drawn in {where}")
    numbers = {name.removeprefix("metrics/"): value for name, value in result.metrics.results_dict.items()}
    say("accuracy: " + ", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    return result
