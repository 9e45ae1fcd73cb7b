"""A run that is asked to stop saves after its step, and goes on in mid-epoch as if nothing had been."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdfast.errors import Stopped
from holdfast.report.run import finish
from holdfast.settings import TrainSettings
from holdfast.train.finish import TrainResult
from holdfast.train.session import fit
from holdfast.val.run import Evaluator
from killing import SOURCE, command
from terminals import run_in_terminal, visible


def ignore(*_: Any) -> None:
    """Does nothing."""


def run(
    data: Path,
    project: Path,
    *,
    stop_at: int | None = None,
    finish: Callable[..., Any] = ignore,
    make_evaluator: Callable[..., Evaluator] = Evaluator,
    **keys: Any,
) -> TrainResult:
    """A tiny training that gets SIGTERM while batch `stop_at` of its first epoch is under way."""

    def train_batch(folder: Path, number: int, *_: Any) -> None:
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    reporter = SimpleNamespace(
        train_batch=train_batch, val_batch=ignore, data=ignore, finish=finish,
        examples=lambda _: SimpleNamespace(add=ignore),
    )  # fmt: skip
    values = {
        "model": "gelan-t", "data": data, "imgsz": 64, "batch": 4, "epochs": 2, "workers": 1, "device": "cpu",
        "project": project, "micro_batch": 3, "ckpt": "off", "verbose": False,
    }  # fmt: skip
    settings = TrainSettings(**{**values, **keys})
    return fit(settings, make_evaluator=make_evaluator, reporter=reporter, say=ignore)  # type: ignore[arg-type]


def rows(result: TrainResult) -> list[dict[str, str]]:
    with (result.folder / "results.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "time"} for row in csv.DictReader(file)]


def test_a_run_stopped_in_mid_epoch_ends_bit_identical_when_resumed(shapes: Path, tmp_path: Path) -> None:
    whole = run(shapes, tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="after step 2") as caught:
        run(shapes, tmp_path / "stopped", stop_at=1)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    last = tmp_path / "stopped" / "exp" / "weights" / "last.pt"
    progress = torch.load(last, weights_only=True)["progress"]
    assert (progress["epoch"], progress["batch"], progress["step"]) == (0, 2, 2)
    # Other workers and another cache, as on another day; the numbers do not change.
    resumed = run(shapes, tmp_path / "stopped", resume=str(last), workers=0, cache="ram")
    for name in ("last.pt", "best.pt"):
        a, b = (
            torch.load(r.folder / "weights" / name, weights_only=True) for r in (whole, resumed)
        )
        for part in ("weights", "ema", "optimizer"):
            if isinstance(a.get(part), dict):
                same(a[part], b[part], part)
    assert rows(whole) == rows(resumed)


@pytest.mark.parametrize(("number", "step"), [(1, 3), (3, 6)], ids=["of an epoch", "of the best weights"])
def test_a_run_stopped_in_a_validation_ends_at_once_and_as_if_nothing_had_been(
    shapes: Path, tmp_path: Path, number: int, step: int
) -> None:
    calls: list[object] = []

    class Stopping(Evaluator):
        def __call__(self, *args: Any, **keys: Any) -> Any:
            calls.append(self)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(*args, **keys)

    whole = run(shapes, tmp_path / "whole")
    with pytest.raises(Stopped, match=f"after step {step}, saved"):
        run(shapes, tmp_path / "stopped", make_evaluator=Stopping)
    folder = tmp_path / "stopped" / "exp"
    assert not (folder / "results.json").exists()
    resumed = run(shapes, tmp_path / "stopped", resume=str(folder))
    assert rows(whole) == rows(resumed)
    assert (folder / "results.json").is_file()


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_ends_a_run_saved_and_leaves_the_terminal_as_it_was(
    shapes: Path, tmp_path: Path
) -> None:
    words = command(shapes, tmp_path, "exp", epochs=500, workers=0, save_every="1h", resume=False)
    status, written = run_in_terminal(
        [sys.executable, "-m", "holdfast", *words], 80, environment={"PYTHONPATH": SOURCE, "TERM": "xterm"},
        until=b"img/s", send=b"\x03",
    )  # fmt: skip
    assert status == 128 + signal.SIGINT
    assert b"\x1b[?" not in written  # the cursor was never hidden
    text = "\n".join(visible(written, 80))
    assert "epoch 1/500  ━" in "\n".join(visible(written.partition(b"img/s")[0], 80))
    assert "━" not in text  # and what was drawn is gone
    assert "holdfast: error: Stopped after step" in text
    assert (tmp_path / "exp" / "weights" / "last.pt").is_file()


def test_a_stopped_run_leaves_its_page(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(shapes, tmp_path, stop_at=1, finish=finish)
    page = (tmp_path / "exp" / "report.html").read_text()
    assert "Ended before its time: Stopped after step 2" in page
    assert "Not in this folder: results.json" in page
    assert (tmp_path / "exp" / "weights" / "last.pt").is_file()


def test_a_resumed_run_keeps_its_plan_and_makes_another_when_asked(shapes: Path, tmp_path: Path) -> None:
    measured = {"micro_batch": 0, "ckpt": "auto"}
    with pytest.raises(Stopped):
        run(shapes, tmp_path, stop_at=1, **measured)
    last = tmp_path / "exp" / "weights" / "last.pt"
    before = torch.load(last, weights_only=True)["facts"]["plan"]
    resumed = run(shapes, tmp_path, resume=str(last), **measured, epochs=1)
    plan = json.loads((resumed.folder / "manifest.json").read_text())["plan"]
    assert plan["reasons"] == [*before["reasons"], "as in the part of the run before"]
    assert {**plan, "reasons": 0, "lines": 0} == {**before, "reasons": 0, "lines": 0}
    resumed = run(shapes, tmp_path, resume=str(last), micro_batch=2, ckpt="norm", epochs=2)
    plan = json.loads((resumed.folder / "manifest.json").read_text())["plan"]
    assert (plan["micro_batch"], plan["recompute"]) == (2, "norm")


def same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple)):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}[{number}]")
    else:
        assert a == b, where
