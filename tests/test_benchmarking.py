"""`holdfast benchmark` times the deployed form at each size and measures AP where data is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast import YOLO
from holdfast.cli.main import main
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.shapes import write_demo
from holdfast.geometry.targets import Needs
from holdfast.models.registry import build
from holdfast.weights.store import save_safetensors

FEW = ["--rounds", "2", "--warmup", "1", "--device", "cpu"]


def test_the_command_writes_a_row_for_each_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "gelan-t", "--sizes", "96,64", *FEW, "--no-half", "--project", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert [row["imgsz"] for row in found["rows"]] == [64, 96]
    for row in found["rows"]:
        assert row["precision"] == "float32"
        assert row["fps"] > 0
        assert row["network_ms"] > row["boxes_ms"] > 0
        assert row["scores"] == {}
    assert found["rows"][0]["gflops"] < found["rows"][1]["gflops"]
    assert json.loads((tmp_path / "exp" / "benchmark.json").read_text()) == found
    assert main(words) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[2:4]] == [
        ["64", "float32"], ["96", "float32"],
    ]  # fmt: skip


def test_ap_is_that_of_a_validation_at_the_same_size(tmp_path: Path) -> None:
    data = write_demo(tmp_path / "data", images=8)
    model = YOLO("gelan-t").load(YOLO("gelan-t").save(tmp_path / "w.pt"))
    model.model.names.clear()
    model.model.names.update({i: str(i) for i in range(80)})
    text = data.read_text().split("names:")[0] + "names:\n" + "".join(f"  {i}: c{i}\n" for i in range(80))
    data.write_text(text)
    keys = {"data": data, "device": "cpu", "workers": 0, "project": tmp_path / "runs", "verbose": False}
    (row,) = model.benchmark(sizes=[64], half=False, rounds=1, warmup=0, **keys)
    metrics = model.val(imgsz=64, plots=False, **keys)
    assert row.scores == pytest.approx({"mAP50": metrics.map50, "mAP50-95": metrics.map})


@pytest.mark.parametrize(
    ("name", "needs", "scores"),
    [
        ("yolo26n-cls", Needs(whole=True), ["accuracy_top1", "accuracy_top5"]),
        ("yolo26n-seg", Needs(mask_stride=4), ["mAP50(M)", "mAP50-95(M)"]),
    ],
)
def test_the_scores_are_those_of_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, needs: Needs, scores: list[str]
) -> None:
    data = write_demo(tmp_path / "data", images=10, needs=needs)
    names, weights = read_dataset_file(data).names, tmp_path / "w.safetensors"
    model = build(name, len(names), names=names)
    save_safetensors(weights, model.state_dict(), model.header)
    words = ["benchmark", str(weights), "--sizes", "64", *FEW, "--no-half", "--data", str(data)]
    assert main([*words, "--workers", "0", "--project", str(tmp_path)]) == 0
    head, line = capsys.readouterr().out.splitlines()[1:3]
    assert head.split()[-2:] == scores
    assert all(0 <= float(number) <= 1 for number in line.split()[-2:])


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark"]) == 2
    assert "benchmark needs 'model'" in capsys.readouterr().err
    assert main(["benchmark", "gelan-t", "--sizes", "9"]) == 2
    assert "sizes=9 does not fit" in capsys.readouterr().err
