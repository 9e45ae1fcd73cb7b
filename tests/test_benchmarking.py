"""`holdfast benchmark` times the deployed form at each size and measures AP where data is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast import YOLO
from holdfast.cli.main import main
from holdfast.data.shapes import write_demo

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
        assert (row["map50"], row["map"]) == (None, None)
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
    assert row.map50 == pytest.approx(model.val(imgsz=64, plots=False, **keys).map50)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark"]) == 2
    assert "benchmark needs 'model'" in capsys.readouterr().err
    assert main(["benchmark", "gelan-t", "--sizes", "9"]) == 2
    assert "sizes=9 does not fit" in capsys.readouterr().err
