"""`holdfast watch` and `holdfast advise`: on runs under way, finished, killed and resumed, and on no run."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import holdfast
from histories import HEALTHY, history
from holdfast.cli.main import main
from holdfast.console import Screen
from holdfast.errors import SettingsError
from holdfast.health.log import NAME
from holdfast.health.records import Epoch, Event, Facts, Finding, Record, Window, to_row
from holdfast.runs import JsonLog
from holdfast.settings import WatchSettings
from holdfast.watching import Follower, Teller, run_watch
from terminals import terminal

HERE = replace(HEALTHY, epochs=5, pid=os.getpid(), host=platform.node(), started=time.time())
END = Event(what="end", text="finished", epoch=5, step=1560, time=2e9, facts={"done": True})


def write(folder: Path, *records: Record) -> JsonLog:
    folder.mkdir(exist_ok=True, parents=True)
    log = JsonLog(folder / NAME, map(to_row, records))
    log.append()
    return log


def epochs(count: int) -> Sequence[Epoch]:
    return history(count).epochs


def watch(folder: Path, **keys: object) -> str:
    out = io.StringIO()
    run_watch(WatchSettings(run=str(folder), every=0.01, **keys), out=out)
    return out.getvalue()


def test_a_finished_run_is_told_and_left(tmp_path: Path) -> None:
    write(tmp_path, HERE, *epochs(5), Finding(rule="x", level="warning", text="slow", epoch=5), END)
    lines = watch(tmp_path, last=3).splitlines()
    assert "gelan-s, 5 of 5 epochs, best mAP50-95" in lines[0]
    assert lines[1] == "... 2 epochs before"
    assert [line[:9] for line in lines[2:5]] == ["epoch 3/5", "epoch 4/5", "epoch 5/5"]
    assert lines[5:] == ["slow", "ended: finished"]
    assert "\x1b" not in "".join(lines)


def test_a_run_under_way_is_followed_to_its_end(tmp_path: Path) -> None:
    log = write(tmp_path, HERE)
    rows = epochs(2)

    def train() -> None:
        skip = Event(what="skip", text="left out", epoch=2, step=400, time=1.5e9)
        for record in (rows[0], skip, rows[1], END):
            time.sleep(0.05)
            log.append(to_row(record))

    thread = threading.Thread(target=train)
    thread.start()
    lines = watch(tmp_path).splitlines()
    thread.join()
    assert [line[:9] for line in lines[1:]] == ["epoch 1/5", "step 400:", "epoch 2/5", "ended: fi"]


def test_a_run_whose_process_is_gone_says_how_to_go_on(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    write(tmp_path, replace(HERE, pid=killed.pid, started=time.time()), *epochs(2))
    assert "gone" not in watch(tmp_path, once=True)
    killed.kill()
    killed.wait()
    assert watch(tmp_path).splitlines()[-1].endswith(f"to go on: holdfast resume {tmp_path}")


def test_a_process_that_got_the_number_of_another_is_not_the_run(tmp_path: Path) -> None:
    write(tmp_path, replace(HERE, started=1.0), *epochs(1))  # this process began later
    assert "is gone" in watch(tmp_path)


def test_a_resumed_run_is_followed_without_telling_anything_twice(tmp_path: Path) -> None:
    skip = Event(what="skip", text="left out", epoch=1, step=7, time=1.2e9)
    write(tmp_path, HERE, skip, *epochs(2), END)
    follower, out = Follower(tmp_path / NAME), io.StringIO()
    screen = Teller(Screen(out), last=10)
    screen.show(follower.fresh())
    assert screen.ended
    log = write(tmp_path, HERE, skip, *epochs(1), HERE)  # begins again after epoch 1
    screen.show(follower.fresh())
    assert not screen.ended
    log.append(*map(to_row, epochs(3)[1:]))
    screen.show(follower.fresh())
    assert screen.show(follower.fresh()) is None
    assert [line[:9] for line in out.getvalue().splitlines()] == [
        "step 7: l", "epoch 1/5", "epoch 2/5", "ended: fi", "epoch 3/5",
    ]  # fmt: skip


def test_a_line_that_is_being_written_waits_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / NAME
    line = json.dumps(to_row(epochs(1)[0])).encode()
    path.write_bytes(line[:40])
    follower = Follower(path)
    assert follower.fresh() == []
    with path.open("ab") as file:
        file.write(line[40:] + b"\n")
    assert [type(record) for record in follower.fresh()] == [Epoch]
    path.unlink()
    assert follower.fresh() == []


def test_a_terminal_shows_the_epoch_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window(
        epoch=2, step=400, done=88, steps=312, time=0.0, losses={"box": 1.5}, images_per_second=64.0
    )
    log = write(tmp_path, HERE, *epochs(1), window)
    with terminal(160, monkeypatch) as (out, seen):
        teller, follower = Teller(Screen(out), last=10), Follower(tmp_path / NAME)
        teller.show(follower.fresh())
        told, *drawn = [line for line in seen() if line]
        assert told.startswith("epoch 1/5")
        assert drawn[0].startswith("epoch 2/5  ━")
        assert drawn[0].endswith(" 88/312  64.0 img/s  03:44 left")  # 224 steps of 64 images at 64 a second
        assert drawn[1].startswith("box 1.500  data-wait")
        assert drawn[2].startswith("ETA 19:20  mAP50 0.")  # 224 + 3 * 312 such steps
        assert drawn[2].endswith("in epoch 1")
        log.append(*map(to_row, (*epochs(5)[1:], END)))
        teller.show(follower.fresh())
        lines = [line for line in seen() if line]
        assert [line[:9] for line in lines[1:-1]] == ["epoch 2/5", "epoch 3/5", "epoch 4/5", "epoch 5/5"]
        assert lines[-1] == "ended: finished"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A run folder without health.jsonl."""
    folder = tmp_path / "old"
    folder.mkdir()
    rows = [f"{epoch},{epoch * 9},{3 / epoch},0.5,0.3,1.5,0.01" for epoch in range(1, 13)]
    header = "epoch,time,train/box_loss,metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss,lr/pg0"
    (folder / "results.csv").write_text("\n".join([header, *rows]))
    (folder / "args.yaml").write_text("epochs: 20\nbox: 7.5\nworkers: 4\npatience: 50\n")
    (folder / "manifest.json").write_text('{"model": "gelan-t", "train_images": 2000}')
    return folder


def test_a_run_without_records_is_told_from_its_table(table: Path) -> None:
    lines = watch(table, last=2).splitlines()
    assert "gelan-t, 12 of 20 epochs" in lines[0]
    assert lines[-2] == "epoch 12/20  box 0.250  mAP50 0.500  mAP50-95 0.300"
    assert "no health.jsonl" in lines[-1]
    rules = [finding.rule for finding in holdfast.advise(table, say=lambda text: None)]
    assert "small-data-set" in rules


def test_advice_names_evidence_remedy_and_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = history(45, lambda epoch: {"wait_share": 0.4, "rss": epoch.epoch * 2**30}, train_images=2000)
    write(tmp_path, replace(run.facts, threads=2), *run.epochs, END)
    assert main(["advise", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[1].startswith("1. memory leak: host memory grew from")
    assert "2. data-bound: 40% of an epoch is spent waiting for images\n" in text
    assert "   --workers 8 --cache ram\n" in text
    assert text.splitlines()[-1].startswith("+  learns well")
    assert main(["advise", str(tmp_path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["rule"] for row in content["findings"]][:2] == ["leak-host", "data-wait"]
    assert content["findings"][1]["evidence"]["wait_share"] == 0.4


def test_the_newest_run_and_files_in_a_run_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("exp", "exp2", "exp3")):
        write(tmp_path / "runs/train" / name, replace(HERE, model=f"m{number}"), *epochs(1), END)
        (tmp_path / "runs/train" / name / "weights").mkdir()
        os.utime(tmp_path / "runs/train" / name / NAME, (9e8 - number, 9e8 - number))
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    holdfast.advise(say=told.append)
    holdfast.advise("runs/train/exp2/weights", say=told.append)
    assert [line.split(":")[0] for line in told if "runs/" in line] == ["runs/train/exp", "runs/train/exp2"]


@pytest.mark.parametrize("verb", ["watch", "advise"])
def test_what_is_no_run_is_one_clear_sentence(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, text in (
        ([str(tmp_path)], "is no folder of a training: it has neither health.jsonl nor results.csv"),
        ([str(tmp_path / "nothing")], "there is no such folder"),
        ([], "There is no run in runs/train"),
    ):
        assert main([verb, *words]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert "runs/train/exp" in error
        assert error.count("\n") == 1


def test_a_run_that_has_just_begun_gets_no_advice(tmp_path: Path) -> None:
    write(tmp_path, HERE)
    told: list[str] = []
    assert holdfast.advise(tmp_path, say=told.append) == []
    assert told[1].startswith("nothing to say")
    with pytest.raises(SettingsError):
        holdfast.advise(tmp_path, sya=1)


def test_facts_come_from_settings_and_manifest() -> None:
    plan = {"peak": 5, "limit": 9, "recompute": "norm"}
    settings = {"workers": 8, "lr0": 0.02, "epochs": 7, "cache": "ram", "optimizer": "auto"}
    manifest = {"cores": 4, "plan": plan, "model": "m", "cache": ["a sentence"], "optimizer": "SGD, lr0 0.01"}
    facts = Facts.of(settings, manifest, pid=3)
    assert (facts.cache, facts.optimizer) == ("ram", "auto")
    assert (facts.threads, facts.lr0, facts.epochs, facts.planned, facts.limit) == (4, 0.02, 7, 5, 9)
    assert (facts.recompute, facts.model, facts.pid) == ("norm", "m", 3)
