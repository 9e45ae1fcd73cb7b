"""One function loads every form of source; what a file holds is told from its content."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from holdfast import models
from holdfast.errors import SettingsError, WeightsError
from holdfast.load import load_model
from holdfast.models.detector import Detector
from holdfast.weights import official_state_dict
from holdfast.weights.store import save_safetensors

NAMES = {0: "ant", 1: "bee"}


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def write_checkpoint(path: Path, model: Detector, averaged: Detector | None) -> Path:
    record = {
        "format": "holdfast-checkpoint",
        "version": 1,
        "model": model.header,
        "weights": model.state_dict(),
        "ema": averaged.state_dict() if averaged else None,
    }
    torch.save(record, path)
    return path


@pytest.mark.parametrize("source", ["gelan-t", "gelan-t.yaml", "models/detect/gelan-t.yaml", "GELANT"])
def test_names_give_random_weights(source: str) -> None:
    got = load_model(source, names=NAMES)
    assert (got.model.name, got.model.names, got.transfer, got.origin) == (
        "gelan-t",
        NAMES,
        None,
        "random weights",
    )


def test_checkpoint_prefers_averaged_weights(tmp_path: Path) -> None:
    raw, averaged = models.build("gelan-t", 2, names=NAMES), models.build("gelan-t", 2)
    got = load_model(write_checkpoint(tmp_path / "a.pt", raw, averaged))
    assert same(got.model, averaged)
    assert got.model.names == NAMES
    assert "averaged" in got.origin
    assert same(load_model(write_checkpoint(tmp_path / "b.pt", raw, None)).model, raw)


def test_checkpoint_for_another_class_count_transfers_what_fits(tmp_path: Path) -> None:
    raw = models.build("gelan-s", 2)
    got = load_model(write_checkpoint(tmp_path / "a.pt", raw, None), classes=5)
    assert got.model.classes == 5
    assert got.transfer is not None
    assert got.transfer.loaded == got.transfer.total - 6
    assert torch.equal(got.model.neck.out5.cv4.conv.weight, raw.neck.out5.cv4.conv.weight)


def test_safetensors_of_training_and_deployed_form(tmp_path: Path) -> None:
    for model in (whole := models.build("yolov9-t", 2, names=NAMES), whole.deploy()):
        save_safetensors(tmp_path / "x.safetensors", model.state_dict(), model.header)
        got = load_model(tmp_path / "x.safetensors").model
        assert same(got, model)
        assert (got.deployed, got.names, got.name) == (model.deployed, NAMES, "yolov9-t")


def test_narrow_class_branch_is_read_from_the_file(tmp_path: Path) -> None:
    model = models.build("gelan-t", 80, class_width=80)
    torch.save(official_state_dict(model), tmp_path / "official.pt")
    got = load_model(tmp_path / "official.pt").model
    assert got.head.class_width == 80
    assert same(got, model)
    other = load_model(tmp_path / "official.pt", classes=3)
    assert other.transfer is not None
    assert other.transfer.loaded == other.transfer.total - 6  # only the last class layers
    again = load_model(write_checkpoint(tmp_path / "own.pt", got, None)).model
    assert same(again, model)


@pytest.mark.parametrize(("file", "names"), [("last-nc4", "ant bee cat dog eared"), ("stripped-nc5", None)])
def test_official_checkpoint_brings_names_and_count(fixtures_v9: Path, file: str, names: str | None) -> None:
    got = load_model(fixtures_v9 / f"yolov9-t.{file}.pt")
    assert got.model.name == "yolov9-t"
    assert got.transfer is not None
    assert got.transfer.loaded == got.transfer.total == 1772
    assert got.model.classes == int(file[-1])
    if names:
        assert " ".join(got.model.names.values()) == names


def test_second_file_fills_what_fits(tmp_path: Path) -> None:
    donor = models.build("gelan-t", 2)
    got = load_model("yolov9-t", classes=3, weights=write_checkpoint(tmp_path / "a.pt", donor, None))
    assert torch.equal(got.model.backbone.stem1.conv.weight, donor.backbone.stem1.conv.weight)
    assert (got.model.name, got.model.classes) == ("yolov9-t", 3)
    assert got.transfer is not None
    assert 1300 < got.transfer.loaded < 1339


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'yolov9-"):
        load_model("yolov9-x")
    with pytest.raises(WeightsError, match="no weight file"):
        load_model(tmp_path / "yolov9-s.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"bad\.pt"):
        load_model(tmp_path / "bad.pt")
    path = write_checkpoint(tmp_path / "a.pt", models.build("gelan-t", 2), None)
    record = torch.load(path, weights_only=True)
    torch.save({**record, "version": 99}, path)
    with pytest.raises(WeightsError, match="99"):
        load_model(path)
    torch.save({**record, "weights": {"backbone.stem1.bn.num_batches_tracked": torch.tensor(1)}}, path)
    with pytest.raises(WeightsError, match="do not fit"):
        load_model(path)
