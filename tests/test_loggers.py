"""Logs of other programs get the rows of results.csv, and never end a run."""

from __future__ import annotations

import csv
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import MissingExtraError
from holdfast.loggers import Loggers, require_loggers

ROW = {"epoch": 1, "time": 2.5, "train/box_loss": 0.5, "metrics/mAP50(B)": None, "lr/pg0": 0.01}


def opened(name: str, folder: Path, say: Callable[[str], None], *, done: int = 0) -> Loggers:
    return Loggers((name,), folder, settings={"lr0": 0.01}, done=done, say=say)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_holds_each_row_and_a_resumed_run_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    said: list[str] = []
    first = opened("tensorboard", tmp_path, said.append)
    for epoch in (1, 2, 3):
        first.epoch({**ROW, "epoch": epoch, "train/box_loss": epoch / 4})
    first.close()
    again = opened("tensorboard", tmp_path, said.append, done=2)  # the third epoch is done again
    again.epoch({**ROW, "epoch": 3, "train/box_loss": 8.0})
    again.close()
    assert said == []
    found = scalars(tmp_path / "tensorboard")
    assert set(found) == {"time", "train/box_loss", "lr/pg0"}  # empty cells are left out
    assert found["train/box_loss"] == [(1, 0.25), (2, 0.5), (3, 8.0)]


def test_a_missing_package_is_one_sentence_before_anything_begins() -> None:
    if "wandb" in sys.modules:
        pytest.skip("wandb is installed here")
    with pytest.raises(MissingExtraError, match=r"'wandb' needs the package .* 'pip install wandb'"):
        require_loggers(("wandb",))


def test_a_logger_that_cannot_start_is_said_once_and_nothing_else_happens(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    said: list[str] = []
    loggers = opened("tensorboard", tmp_path, said.append)
    for epoch in (1, 2):
        loggers.epoch({**ROW, "epoch": epoch})
    loggers.close()
    assert len(said) == 1
    assert "logger tensorboard failed" in said[0]
    assert "training goes on without it" in said[0]


def test_without_loggers_nothing_is_written_or_started(tmp_path: Path) -> None:
    before = threading.active_count()
    loggers = Loggers((), tmp_path, settings={}, done=0, say=print)
    loggers.epoch(ROW)
    loggers.close()
    assert (list(tmp_path.iterdir()), threading.active_count()) == ([], before)


WANDB = """
rows, begun = [], []
class Run:
    def log(self, values, step):
        if step == 2:
            raise ConnectionError("no route to host")
        rows.append((step, values))
    def finish(self): rows.append("finished")
def init(**keys):
    begun.append(keys)
    return Run()
"""

MLFLOW = """
rows, uris = [], []
def is_tracking_uri_set(): return False
def set_tracking_uri(uri): uris.append(uri)
class Thing:
    def __init__(self, **keys): vars(self).update(keys)
class MlflowClient:
    def get_experiment_by_name(self, name): return None
    def create_experiment(self, name): return "7"
    def create_run(self, number, run_name):
        rows.append(("run", number, run_name))
        return Thing(info=Thing(run_id="abc"))
    def log_param(self, run, key, value): rows.append((run, key, value))
    def log_metric(self, run, name, value, step): rows.append((run, name, value, step))
    def set_terminated(self, run): rows.append((run, "ended"))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Writes a stand-in for a package that is not installed, of its documented interface."""

    def write(name: str, text: str) -> Any:
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / f"{name}.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path / "packages")
        monkeypatch.delitem(sys.modules, name, raising=False)
        return __import__(name)

    return write


def test_wandb_keeps_its_run_when_a_run_is_resumed_and_failures_are_said_once(
    tmp_path: Path, package: Callable[[str, str], Any]
) -> None:
    wandb, said = package("wandb", WANDB), []
    require_loggers(("wandb",))
    first = opened("wandb", tmp_path, said.append)
    for epoch in (1, 2, 2, 3):
        first.epoch({**ROW, "epoch": epoch})
    first.close()
    opened("wandb", tmp_path, said.append, done=3).close()
    assert [row[0] for row in wandb.rows if row != "finished"] == [1, 3]
    assert wandb.rows[0][1] == {"time": 2.5, "train/box_loss": 0.5, "lr/pg0": 0.01}
    assert len(said) == 1
    assert "no route to host" in said[0]
    one, two = wandb.begun
    assert one["id"] == two["id"]
    assert (one["dir"], one["config"]) == (str(tmp_path), {"lr0": 0.01})


def test_mlflow_stays_in_the_run_folder_unless_a_server_is_named(
    tmp_path: Path, package: Callable[[str, str], Any]
) -> None:
    mlflow, said = package("mlflow", MLFLOW), []
    first = opened("mlflow", tmp_path, said.append)
    first.epoch({**ROW, "metrics/mAP50(B)": 0.5})
    first.close()
    again = opened("mlflow", tmp_path, said.append, done=1)
    again.epoch({**ROW, "epoch": 2})
    again.close()
    assert said == []
    assert mlflow.uris[0] == f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert [row for row in mlflow.rows if row[0] == "run"] == [("run", "7", tmp_path.name)]
    assert ("abc", "metrics/mAP50_B_", 0.5, 1) in mlflow.rows
    assert ("abc", "lr/pg0", 0.01, 2) in mlflow.rows


def test_a_training_writes_to_its_loggers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from holdfast.data.shapes import write_demo
    from holdfast.running import run_train
    from holdfast.settings import TrainSettings

    data = write_demo(tmp_path / "data", images=8)
    keys = {"model": "gelan-t", "imgsz": 64, "batch": 4, "epochs": 1, "workers": 0, "device": "cpu"}
    plain = {"plots": False, "micro_batch": 64, "ckpt": "off", "noval": True, "project": tmp_path}
    run = run_train(TrainSettings(**keys, **plain, data=data, loggers="tensorboard"), say=lambda text: None)
    with (run.folder / "results.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    found = scalars(run.folder / "tensorboard")
    assert found["train/box_loss"][0][1] == pytest.approx(float(row["train/box_loss"]), rel=1e-4)
