"""`holdfast demo`: draws a data set, trains on it, validates, detects, and says where to look.

The whole program on data that needs no download; what it prints at the end is what a user's own run leaves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.api import Say, run_predict, run_train, run_val
from holdfast.settings import DemoSettings, PredictSettings, TrainSettings, ValSettings
from holdfast.val.run import ValResult


def run_demo(settings: DemoSettings, *, say: Say = print) -> ValResult:
    """Runs the demonstration in `settings.folder`, and returns the validation of the trained model."""
    from holdfast.data.shapes import write_demo

    folder = Path(settings.folder)
    say(f"1/4 drawing {settings.images} pictures in {folder / 'data'}")
    data = write_demo(folder / "data", images=settings.images, seed=settings.seed)
    common: dict[str, Any] = {
        "device": settings.device,
        "imgsz": settings.imgsz,
        "batch": settings.batch,
        "project": str(folder),
    }

    say(f"2/4 training {settings.model} for {settings.epochs} epochs")
    training: dict[str, Any] = {
        "model": settings.model,
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

    pictures = data.parent / "images" / "val"
    say(f"4/4 detecting on {pictures}")
    detecting: dict[str, Any] = {"model": run.best, "source": pictures, "name": "detect", "verbose": False}
    found, where = run_predict(PredictSettings(**common, **detecting), say=say)

    say(f"training: report.html, results.csv and weights/best.pt in {run.folder}")
    say(f"pictures: {found} with boxes drawn in {where}")
    say(f"accuracy: mAP50 {result.metrics.map50:.3f}, mAP50-95 {result.metrics.map:.3f}")
    return result
