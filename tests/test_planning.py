"""`holdfast plan` and `YOLO.plan` predict a training without data; a training follows its plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast import YOLO
from holdfast.cli.main import main
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError, WeightsError
from holdfast.memory.budget import held
from holdfast.planning import run_plan
from holdfast.settings import PlanSettings

MIB = 2**20
SMALL = {"model": "gelan-t", "imgsz": 64, "device": "cpu", "boxes": 5}


def room(mib: int) -> str:
    """A limit that leaves so much beside what this process holds."""
    return f"{held(torch.device('cpu')) // MIB + mib}MiB"


def test_the_command_prints_plan_and_table(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "gelan-t", "--imgsz", "128", "--batch", "8", "--device", "cpu", "--compare"]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("gelan-t at 128, cpu")
    assert "8 images a step in one piece, no recompute" in printed[1]
    assert "predicted peak" in printed[2]
    rows = [line.split() for line in printed[printed.index(next(x for x in printed if "imgsz" in x)) + 1 :]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (side, batch, level)
        for side in ("128", "64")
        for level in ("none", "norm", "stages")
        for batch in ("8", "2")
    ]


def test_json_holds_the_whole_plan_and_nothing_else_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", "gelan-t", "--imgsz", "64", "--device", "cpu", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    plan = json.loads(line)
    assert (plan["model"], plan["imgsz"], plan["batch"], plan["parts"]) == ("gelan-t", 64, 16, 1)
    assert 0 < plan["peak"] < plan["limit"]


def test_batch_minus_one_fills_the_limit_without_a_cut() -> None:
    keys = {**SMALL, "imgsz": 128, "batch": -1, "headroom": 0.0}
    plan = run_plan(PlanSettings(**keys, memory_limit=room(260)), say=lambda text: None)
    assert plan.batch > 1
    assert (plan.parts, plan.recompute, plan.fits) == (1, "none", True)


def test_ckpt_and_micro_batch_are_followed() -> None:
    said: list[str] = []
    plan = run_plan(PlanSettings(**SMALL, batch=12, accumulate=2, micro_batch=5, ckpt=True), say=said.append)
    assert (plan.batch, plan.micro_batch, plan.parts, plan.recompute) == (24, 5, 5, "stages")
    assert any("were given" in line for line in said)


def test_the_python_object_is_untouched_by_its_plan() -> None:
    model = YOLO("gelan-t")
    model._say = lambda text: None
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    assert model.plan(imgsz=64, batch=4, device="cpu").batch == 4
    assert all(torch.equal(before[name], tensor) for name, tensor in model.model.state_dict().items())


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(SettingsError, match="needs 'model'"):
        run_plan(PlanSettings())
    with pytest.raises(SettingsError, match="memory_limit=lots"):
        run_plan(PlanSettings(**SMALL, memory_limit="lots"))
    with pytest.raises(WeightsError, match="deployed"):
        run_plan(PlanSettings(), model=YOLO("gelan-t").fuse().model)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.yaml of 10 training and 2 validation images."""
    return write_demo(tmp_path_factory.mktemp("shapes"), images=12)


def test_a_training_plans_says_and_records_it(shapes: Path, tmp_path: Path) -> None:
    said: list[str] = []
    model = YOLO("gelan-t")
    model._say = said.append
    keys: dict[str, Any] = {"data": shapes, "imgsz": 128, "batch": 8, "epochs": 1, "workers": 0}
    model.train(**keys, plots=False, device="cpu", project=tmp_path, memory_limit=room(20))
    plan = json.loads((tmp_path / "exp/manifest.json").read_text())["plan"]
    assert plan["batch"] == 8
    assert plan["micro_batch"] < 8 or plan["recompute"] != "none"
    shown = next(line for line in said if line.startswith("  plan"))
    assert f"8 images a step in {plan['parts']} micro-batches" in shown or "recompute" in shown
    assert any("predicted peak" in line for line in said)


def test_a_run_with_batch_minus_one_resumes_with_the_batch_it_had(shapes: Path, tmp_path: Path) -> None:
    model = YOLO("gelan-t")
    model._say = lambda text: None
    keys: dict[str, Any] = {"data": shapes, "imgsz": 64, "workers": 0, "plots": False, "device": "cpu"}
    model.train(**keys, batch=-1, epochs=1, project=tmp_path)
    first = json.loads((tmp_path / "exp/manifest.json").read_text())
    assert first["batch"] == 10  # the whole training set fits
    model.train(resume=tmp_path / "exp", epochs=2, memory_limit=room(40))
    again = json.loads((tmp_path / "exp/manifest.json").read_text())
    assert again["batch"] == 10
