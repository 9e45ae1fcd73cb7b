"""A drawn data set and a reporter that draws nothing, for runs of a few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.data.shapes import write_demo
from holdfast.report import run as reporter
from holdfast.settings import TrainSettings
from holdfast.train.finish import TrainResult
from holdfast.train.session import fit
from holdfast.val.run import Evaluator


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.yaml of 10 training and 2 validation images."""
    return write_demo(tmp_path_factory.mktemp("shapes"), images=12)


@pytest.fixture
def said() -> list[str]:
    """Every line a run said."""
    return []


@pytest.fixture
def train(shapes: Path, tmp_path: Path, said: list[str]) -> Callable[..., TrainResult]:
    """Runs a tiny training; keys override."""

    def run(**keys: Any) -> TrainResult:
        values: dict[str, Any] = {
            "model": "gelan-t",
            "data": shapes,
            "imgsz": 64,
            "batch": 4,
            "epochs": 2,
            "workers": 0,
            "device": "cpu",
            "project": tmp_path,
            "plots": False,
            "close_mosaic": 1,
            "micro_batch": 64,  # as said, and nothing to measure
            "ckpt": "off",
        }
        values = {key: value for key, value in {**values, **keys}.items() if value is not None}
        settings = TrainSettings(**values)
        return fit(settings, make_evaluator=Evaluator, reporter=reporter, say=said.append)

    return run
