"""`holdfast compare` reads what runs left, and says what is no run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml

from holdfast.cli.main import main

METRICS = ("metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)")
COLUMNS = ("epoch", "time", "train/box_loss", "train/cls_loss", *METRICS, "lr/pg0")


def left(folder: Path, scores: list[float | None], *, seconds: float, **settings: Any) -> Path:
    """A run folder as a training leaves it; None is an epoch without validation."""
    folder.mkdir(parents=True)
    (folder / "args.yaml").write_text(yaml.safe_dump({"lr0": 0.01, "name": folder.name, **settings}))
    (folder / "manifest.json").write_text(json.dumps({"model": "gelan-t", "train_images": 100}))
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, score in enumerate(scores, 1):
            found = [""] * 4 if score is None else [0.5, 0.4, score, score / 2]
            writer.writerow([number, number * seconds, 3 / number, 2 / number, *found, 0.01])
    return folder


def health(folder: Path, speeds: list[float]) -> None:
    rows: list[dict[str, Any]] = [{"kind": "run", "model": "gelan-t"}]
    for number, speed in enumerate(speeds, 1):
        row = {"kind": "epoch", "epoch": number, "images_per_second": speed, "rss": 2**30}
        rows.append({**row, "peak": (number + 1) * 2**30})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "health.jsonl").write_text(text + '{"kind": "epoch", "epo')  # a line that is being written


def test_table_json_and_picture_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = left(tmp_path / "runs" / "one", [None, 0.2, 0.6, 0.4], seconds=10, mosaic=1.0)
    two = left(tmp_path / "runs" / "two", [0.1, 0.3], seconds=20, mosaic=0.0)
    health(one, [3.0, 50.0, 52.0, 51.0])
    where = ["--project", str(tmp_path / "out")]
    assert main(["compare", str(one), str(two), *where]) == 0
    printed = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert printed["mAP50"] == ["mAP50", "0.6000", "*", "0.3000"]
    assert printed["mAP50-95"][1:] == ["0.3000", "*", "0.1500"]
    assert printed["mosaic"] == ["mosaic", "1.0", "0.0"]
    assert "lr0" not in printed
    assert "name" not in printed
    assert cv2.imread(str(tmp_path / "out" / "exp" / "compare.png")).shape[1] > 1000

    assert main(["compare", str(one), str(two / "results.csv"), "--json", "--no-plots", *where]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["runs"]
    assert (first["name"], first["best_epoch"], first["epochs"], first["mAP50"]) == ("one", 3, 4, 0.6)
    assert first["images_per_second"] == 51.0  # the median of all epochs but the first
    assert first["peak_bytes"] == 5 * 2**30
    assert second["images_per_second"] == 5.0  # 100 images in 20 s, validation included
    assert second["peak_bytes"] is None
    assert found["differences"] == {"mosaic": [1.0, 0.0]}
    assert found["curves"]["one"]["metrics/mAP50(B)"] == [None, 0.2, 0.6, 0.4]
    assert json.loads((tmp_path / "out" / "exp2" / "compare.json").read_text())["runs"] == found["runs"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [left(tmp_path / place / "exp", [0.5], seconds=1) for place in ("a", "b")]
    assert main(["compare", *map(str, folders), "--no-plots", "--project", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.split()[:2] == ["a/exp", "b/exp"]
    assert "settings: all the same" in out


@pytest.mark.parametrize(
    ("second", "code", "message"),
    [
        ("nothing", 3, "there is no such folder"),
        ("empty", 3, "it has no results.csv"),
        ("young", 3, "holds no finished epoch yet"),
        ("broken", 3, "args.yaml or manifest.json cannot be read"),
        (None, 2, "compare needs two runs or more, and 1 were given"),
    ],
)
def test_what_is_no_run_is_named(
    second: str | None, code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left(tmp_path / "one", [0.5], seconds=1)
    (tmp_path / "empty").mkdir()
    left(tmp_path / "young", [], seconds=1)
    (left(tmp_path / "broken", [0.5], seconds=1) / "args.yaml").write_text("a: [")
    words = [str(tmp_path / "one"), *([str(tmp_path / second)] if second else [])]
    assert main(["compare", *words, "--project", str(tmp_path / "out")]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    if second:
        assert str(tmp_path / second) in err
