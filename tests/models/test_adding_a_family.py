"""The family of docs/adding-a-family.md works as printed: one file and one line, and nothing else."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast import YOLO, models
from holdfast.cli.models import listing
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError, WeightsError
from holdfast.load import load_model
from holdfast.models import registry
from holdfast.weights import load_official_state_dict, official_state_dict
from holdfast.weights.store import save_safetensors

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-family.md"


@pytest.fixture(autouse=True)
def _registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's code as a module, its class in the registry's list."""
    page = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    file = tmp_path / "tiny.py"
    file.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("tiny_of_the_page", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(registry, "FAMILIES", (*registry.FAMILIES, module.Tiny))


def test_its_names_work_in_every_spelling() -> None:
    assert models.available()[-2:] == ("tiny-n", "tiny-s")
    for spelling in ("tiny-n", "tinyn", "TINY_N", "cfg/tiny-n.yaml", "tiny.yaml"):
        assert models.resolve(spelling) == "tiny-n"
    with pytest.raises(SettingsError, match="Did you mean 'tiny-s'"):
        models.build("tiny-ss")
    lines = [line for line in listing().splitlines() if line.startswith("tiny-")]
    assert [len(line.split()) for line in lines] == [6, 6]


def test_it_trains_saves_loads_validates_and_detects(tmp_path: Path) -> None:
    data = write_demo(tmp_path / "shapes", images=12)
    keys: dict[str, Any] = {"data": data, "workers": 0, "project": tmp_path, "verbose": False}
    model = YOLO("tiny-n.yaml")
    metrics = model.train(imgsz=72, epochs=1, batch=4, freeze=1, amp=False, name="run", **keys)
    folder = tmp_path / "run"
    assert (folder / "results.png").is_file()
    header = (folder / "results.csv").read_text().splitlines()[0]
    assert "train/l1_loss" in header
    manifest = (folder / "manifest.json").read_text()
    assert '"imgsz": 80' in manifest  # the next multiple of its largest stride, 16

    again = YOLO(folder / "weights" / "best.pt")
    assert (again.model.name, again.names) == ("tiny-n", {0: "disc", 1: "square", 2: "triangle"})
    assert again.val(imgsz=80, name="val", **keys).map == metrics.map
    results = again.predict(data.parent / "images" / "val", conf=0.0, verbose=False)
    assert len(results) == 2
    assert all(len(result) for result in results)

    longer = YOLO(folder / "weights" / "last.pt")
    with pytest.raises(SettingsError, match="nothing to resume"):
        longer.train(resume=True)
    longer.train(resume=True, epochs=2)
    assert len((folder / "results.csv").read_text().splitlines()) == 3


def test_its_tensors_are_known_again_under_their_published_names(tmp_path: Path) -> None:
    model = models.build("tiny-s", 3)
    for form in (model, model.deploy()):
        tensors = official_state_dict(form)
        layout = models.recognise(tensors)
        assert (layout.name, layout.classes, layout.folded) == ("tiny-s", 3, form.deployed)
        save_safetensors(tmp_path / "own.safetensors", form.state_dict(), form.header)
        save_safetensors(tmp_path / "published.safetensors", tensors, {})
        for name in ("own", "published"):
            loaded = load_model(tmp_path / f"{name}.safetensors").model
            assert loaded.header == form.header
            pairs = zip(loaded.state_dict().values(), form.state_dict().values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
    other = models.build("tiny-s", 5)
    moved = load_official_state_dict(other, official_state_dict(model))
    assert all(name.startswith("model.4.cls.") for name in moved.skipped)
    assert len(moved.skipped) == 4  # the last weight and bias of both levels
    with pytest.raises(WeightsError, match="belong to no published Tiny model"):
        load_official_state_dict(other, official_state_dict(models.build("gelan-t", 3)))


def test_the_deployed_form_answers_like_the_trained_one() -> None:
    model = models.build("tiny-n", 3).eval()
    x = torch.rand(1, 3, 48, 80)
    with torch.no_grad():
        for a, b in zip(model(x).main.boxes, model.deploy()(x).main.boxes, strict=True):
            assert torch.allclose(a, b, atol=1e-5)
    with pytest.raises(SettingsError, match="nms=False is not possible"):
        model.deploy(nms=False)
