"""Faults are planted from outside by torch's hooks, and a certificate says what came of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from holdfast.certify.driver import Driver
from holdfast.certify.run import disturbed
from holdfast.cli.main import main
from holdfast.models.registry import build


def stepped(driver: Driver, gradient: float) -> torch.nn.Parameter:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    weight.grad = torch.full((3,), gradient)
    driver.before_step(optimizer)
    driver.after_step(optimizer)
    return weight


def test_the_driver_counts_from_the_manifest_on(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "manifest.json")
    stepped(driver, float("nan"))
    assert (driver.steps, driver.bad) == (0, [])
    (tmp_path / "manifest.json").touch()
    for gradient in (1.0, float("nan"), 0.0):
        stepped(driver, gradient)
    found = driver.measures()
    assert (found["steps"], found["bad_steps"], found["still_steps"]) == (3, [2], [3])
    assert len(found["resident"]) == 3
    assert found["first_step"] > 0


def test_each_fault_strikes_once_where_it_was_asked_for(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.touch()
    nan = Driver(manifest, fault="nan_weights", step=2)
    assert [bool(stepped(nan, 1.0).isnan().any()) for _ in range(3)] == [False, True, False]
    image = tmp_path / "image.jpg"
    image.write_bytes(b"x" * 30)
    stepped(Driver(manifest, fault="damaged_images", step=1, victims=[str(image)]), 1.0)
    assert image.stat().st_size == 10
    memory, model = Driver(manifest, fault="out_of_memory", step=2), build("gelan-t", 3).train()
    memory.after_pass(model, (), None)
    with pytest.raises(torch.OutOfMemoryError, match="planted once"):
        memory.after_pass(model, (), None)
    memory.after_pass(model, (), None)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--resume"], "made in one go"), (["--device", "cpu", "--ranks", "2"], "Name one device")],
)
def test_what_cannot_be_certified_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["certify", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_survives_every_fault(tmp_path: Path) -> None:
    keys = {"model": "gelan-t", "imgsz": 64, "batch": 8, "device": "cpu", "workers": 0, "mosaic": 0.0}
    keys |= {"micro_batch": 64, "ckpt": "off", "plots": False}
    found = disturbed(keys, tmp_path / "faults", print)
    assert [verdict.name for verdict in found if not verdict.holds] == []
    assert len(found) == 5


@pytest.mark.slow
def test_the_command_writes_json_and_a_page_and_answers_by_its_exit_code(tmp_path: Path) -> None:
    words = ["imgsz=64", "images=20", "epochs=4", "repeats=2", "seeds=same", "device=cpu", "workers=0"]
    code = main(["certify", *words, "faults=no", "micro_batch=64", "ckpt=off", f"project={tmp_path}"])
    found = json.loads((tmp_path / "exp" / "certificate.json").read_text())
    holds = {verdict["name"]: verdict["holds"] for verdict in found["verdicts"]}
    assert holds["exactness"]
    assert not holds["convergence"]  # so short a run learns nothing
    assert (code, found["holds"]) == (1, False)
    assert "Repeats end at the same mAP50" in (tmp_path / "exp" / "certificate.html").read_text()
