"""A search is a row of ordinary trainings that outlives kills."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from holdfast import YOLO
from holdfast.cli.main import main
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError
from holdfast.geometry.targets import Needs
from holdfast.settings import TrainSettings, TuneSettings

pytest.importorskip("optuna")
from holdfast.tune.search import run_tune
from holdfast.tune.space import Range
from holdfast.tune.study import JOURNAL, alone, distributions, open_study

TINY = ["model=gelan-t", "imgsz=64", "batch=4", "workers=0", "device=cpu", "micro_batch=64", "ckpt=off"]


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def untimed(row: str) -> list[str]:
    """The cells of a row of results.csv without its time."""
    cells = row.split(",")
    return cells[:1] + cells[2:]


def test_a_search_leaves_runs_a_table_a_picture_and_a_file_for_hyp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_demo(tmp_path / "data", images=10)
    words = [
        "tune",
        *TINY,
        f"data={data}",
        f"project={tmp_path}",
        "search=lr0,box",
        "epochs=1",
        "momentum=0.9",
    ]
    assert main([*words, "trials=1"]) == 0
    folder = tmp_path / "exp"
    (row,) = trials(folder)
    assert (row["state"], row["lr0"], row["box"]) == ("complete", "0.01", "7.5")  # the settings as they were
    run = folder / row["run"]
    assert (run / "weights" / "best.pt").is_file()
    assert TrainSettings.load(run / "args.yaml").lr0 == 0.01
    best = TrainSettings(hyp=str(folder / "best.yaml"))
    assert (best.lr0, best.momentum, best.optimizer) == (0.01, 0.9, "SGD")
    assert (folder / "tune.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert "lr0             0.001 to 0.1, logarithmic" in said
    assert "--hyp" in said

    with pytest.raises(SettingsError, match="keeps its settings, but box differ"):
        YOLO("gelan-t").tune(resume=folder, box=3.0)
    with alone(folder), pytest.raises(SettingsError, match="Another process is searching"):
        run_tune(TuneSettings(resume=str(folder), trials=2))


def test_a_search_goes_by_the_fitness_of_the_task(tmp_path: Path) -> None:
    data = write_demo(tmp_path / "data", images=10, needs=Needs(whole=True))
    words = ["tune", "model=yolo26n-cls", *TINY[1:], f"data={data}", f"project={tmp_path}"]
    assert main([*words, "search=lr0", "epochs=1", "trials=1", "verbose=False"]) == 0
    (row,) = trials(tmp_path / "exp")
    top1, top5 = float(row["accuracy_top1"]), float(row["accuracy_top5"])
    assert top5 == 1  # there are three classes
    assert float(row["fitness"]) == pytest.approx((top1 + top5) / 2, abs=1e-5)


def test_a_mistake_that_all_trainings_would_make_ends_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune", *TINY, f"data={tmp_path / 'none.yaml'}", f"project={tmp_path}", "trials=5"]
    assert main(words) == 3
    assert "none.yaml" in capsys.readouterr().err
    assert not (tmp_path / "exp").exists()
    assert main(["tune", "--resume", str(tmp_path)]) == 2
    assert "holds no search to continue" in capsys.readouterr().err


def test_a_journal_cut_short_by_a_kill_is_mended(tmp_path: Path) -> None:
    ranges = distributions({"lr0": Range(0.1, 1.0)})
    study = open_study(tmp_path, seed=0, epochs=4, prune=True)
    study.tell(study.ask(ranges), 0.5)
    study.ask(ranges)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 5, "work')
    os.symlink(tmp_path / JOURNAL, tmp_path / f"{JOURNAL}.lock")  # left by a process that was killed
    again = open_study(tmp_path, seed=0, epochs=4, prune=True)
    assert [trial.state.name for trial in again.trials] == ["COMPLETE", "RUNNING"]
    again.tell(1, 0.75)
    assert open_study(tmp_path, seed=0, epochs=4, prune=True).best_value == 0.75


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_training_it_was_at(tmp_path: Path) -> None:
    data = write_demo(tmp_path / "data", images=40)
    words = ["tune", *TINY, f"data={data}", f"project={tmp_path}", "search=lr0", "trials=2", "epochs=6"]
    search = subprocess.Popen([sys.executable, "-m", "holdfast", *words])
    run = tmp_path / "exp" / "trials" / "trial0000"
    while not (run / "results.csv").is_file() or (run / "results.csv").read_text().count("\n") < 3:
        assert search.poll() is None
        time.sleep(0.1)
    search.send_signal(signal.SIGKILL)
    search.wait()
    time.sleep(2)  # the training ends with it
    rows = (run / "results.csv").read_text().splitlines()
    assert len(rows) < 7
    assert main(["tune", "--resume", str(tmp_path / "exp")]) == 0
    assert [(row["state"], row["epochs"]) for row in trials(tmp_path / "exp")] == [("complete", "6")] * 2
    again = (run / "results.csv").read_text().splitlines()[: len(rows)]
    assert [untimed(row) for row in again] == [untimed(row) for row in rows]  # the last is done again
    assert "resumed after epoch" in (run.parent / "trial0000.log").read_text()


@pytest.mark.slow
def test_a_training_that_falls_behind_is_pruned(tmp_path: Path) -> None:
    data = write_demo(tmp_path / "data", images=40)
    words = ["tune", *TINY, f"data={data}", f"project={tmp_path}", "search=mosaic", "epochs=8"]
    assert main([*words, "trials=1"]) == 0
    study = open_study(tmp_path / "exp", seed=0, epochs=8, prune=True)
    for _ in range(5):  # others that were better from the start
        trial = study.ask(distributions({"mosaic": Range(0.0, 1.0)}))
        for epoch in range(1, 9):
            trial.report(0.9, epoch)
        study.tell(trial, 0.9)
    assert main(["tune", "--resume", str(tmp_path / "exp"), "--trials", "7"]) == 0
    last = trials(tmp_path / "exp")[-1]
    assert last["state"] == "pruned"
    assert 2 <= int(last["epochs"]) < 8
