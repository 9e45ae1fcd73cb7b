"""The Python use that people know from other programs, in the keywords they know, works as written."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import ImageShow

from holdfast import YOLO
from holdfast.data.index import build_index
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError
from holdfast.settings import ExportSettings, PredictSettings, TrainSettings, ValSettings
from holdfast.settings.base import Settings
from holdfast.settings.foreign import FOREIGN
from holdfast.settings.types import usable_cores
from holdfast.train.model import starting_model

ROOT = Path(__file__).parents[2]
KINDS: dict[str, type[Settings]] = {
    "train": TrainSettings, "val": ValSettings, "predict": PredictSettings, "export": ExportSettings,
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with data.yaml and a.jpg, on a machine without a GPU."""
    data = write_demo(tmp_path, images=12, seed=1)
    (tmp_path / "a.jpg").write_bytes((data.parent / "images" / "val" / "0000.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return tmp_path


@pytest.fixture
def trained(here: Path) -> YOLO:
    """A small model after one epoch."""
    model = YOLO("gelan-t.yaml")
    model.train(data="data.yaml", imgsz=64, epochs=1, batch=4, workers=0, plots=False, verbose=False)
    return model


def test_the_training_script_everyone_knows(
    here: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = shared / "fixtures" / "yolo26" / "checkpoints" / "yolo26n.pt"
    if not weights.is_file():
        pytest.skip("the yolo26n.pt fixture is absent")
    (here / "yolo26n.pt").symlink_to(weights)

    model = YOLO("yolo26.yaml")
    model.load("yolo26n.pt")
    model.train(data="data.yaml", imgsz=64, epochs=1, batch=4, workers=8, device="0", optimizer="SGD",
                close_mosaic=10, resume=False, project="runs/train", name="exp", single_cls=False,
                cache=False)  # fmt: skip
    said = capsys.readouterr().out
    assert "cpu, because device 0 was asked for and this machine has no CUDA device" in said
    assert "yolo26n.pt" in said
    args = yaml.safe_load((here / "runs/train/exp/args.yaml").read_text())
    assert (args["optimizer"], args["device"], args["cache"], args["name"]) == ("SGD", "0", "off", "exp")
    assert (here / "runs/train/exp/weights/best.pt").is_file()

    (result,) = YOLO("yolo26n.pt").predict(source="a.jpg", save=True, show=False)
    assert result.path == "a.jpg"
    assert sorted(p.name for p in (here / "runs/detect/predict").iterdir()) == ["a.jpg"]


@pytest.mark.parametrize("device", ["0", 0, [0], "cuda:0", "cuda"])
def test_a_missing_gpu_is_said_also_by_a_quiet_run(
    here: Path, device: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    YOLO("gelan-t.yaml").predict("a.jpg", imgsz=64, device=device, verbose=False)
    assert capsys.readouterr().out.count("device 0 was asked for and this machine has no CUDA device") == 1


def test_validation_after_training_needs_no_data(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = YOLO("gelan-t.yaml")
    keys: dict[str, Any] = {"workers": 0, "plots": False}
    train: dict[str, Any] = {"imgsz": 64, "epochs": 1, "batch": 4, "amp": False, **keys}
    after = model.train(data="data.yaml", single_cls=True, **train)
    for trained in (model, YOLO("runs/train/exp/weights/best.pt")):
        capsys.readouterr()
        assert trained.val(**keys).results_dict == after.results_dict
        assert f"data: 2 images of split 'val' in {here / 'data.yaml'}" in capsys.readouterr().out
    (here / "data.yaml").rename(here / "gone.yaml")
    with pytest.raises(SettingsError, match="val needs 'data'"):
        model.val(**keys)


def test_pretrained_decides_whether_weights_are_kept(here: Path, trained: YOLO) -> None:
    file = str(here / "runs/train/exp/weights/best.pt")
    stem = "backbone.stem1.conv.weight"
    kept = trained.model.state_dict()[stem]

    def is_kept(**keys: Any) -> bool:
        settings = TrainSettings(**keys)
        start = starting_model(
            settings.model,
            named="model" in settings.given(),
            weights=settings.weights,
            pretrained=settings.pretrained,
            names=trained.names,
        )
        return torch.equal(start.model.state_dict()[stem], kept)

    assert is_kept(model=file)
    assert is_kept(model=file, pretrained=True)
    assert is_kept(model="gelan-t.yaml", pretrained=file)
    assert is_kept(model="yolov9-t.yaml", pretrained=file)  # another architecture takes what fits
    assert is_kept(pretrained=file)  # no model named: that of the file
    assert not is_kept(model=file, pretrained=False)
    assert not is_kept(model="gelan-t.yaml", pretrained=True)  # a name has no weights to keep
    for value in (False, "b.pt"):
        with pytest.raises(SettingsError, match=r"weights=a\.pt and pretrained=.* exclude each other"):
            TrainSettings(weights="a.pt", pretrained=value)


def test_pretrained_false_drops_what_was_loaded(here: Path, trained: YOLO) -> None:
    model = YOLO("yolov9-t.yaml").load(here / "runs/train/exp/weights/best.pt")
    model.train(data="data.yaml", pretrained=False, imgsz=64, epochs=1, batch=10, workers=0, plots=False,
                verbose=False)  # fmt: skip
    manifest = yaml.safe_load((here / "runs/train/exp2/manifest.json").read_text())
    assert (manifest["model"], manifest["origin"]) == ("yolov9-t", "random weights")


def test_fraction_takes_the_same_images_every_time_and_a_larger_one_holds_the_smaller(here: Path) -> None:
    def paths(fraction: float) -> list[str]:
        index = build_index([here / "images/train"], names={0: "a", 1: "b", 2: "c"}, fraction=fraction)
        return index.paths

    everything, half, third = paths(1.0), paths(0.5), paths(0.3)
    assert (len(everything), len(half), len(third), len(paths(0.01))) == (10, 5, 3, 1)
    assert set(third) < set(half) < set(everything)
    assert half == paths(0.5) == sorted(half)
    model = YOLO("gelan-t.yaml")
    model.train(data="data.yaml", fraction=0.5, imgsz=64, epochs=1, batch=4, workers=0, plots=False,
                verbose=False)  # fmt: skip
    manifest = yaml.safe_load((here / "runs/train/exp/manifest.json").read_text())
    assert (manifest["train_images"], manifest["val_images"], manifest["fraction"]) == (5, 2, 0.5)


def test_val_and_save_can_be_switched_off_and_deterministic_holds_for_the_run(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    model = YOLO("gelan-t.yaml")
    seen = []
    model._say = lambda line: seen.append(torch.backends.cudnn.deterministic)
    model.train(data="data.yaml", val=False, save=False, deterministic=True, imgsz=64, epochs=2, batch=10,
                workers=0, plots=False)  # fmt: skip
    assert True in seen
    assert not torch.backends.cudnn.deterministic
    with Path("runs/train/exp/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["metrics/mAP50(B)"]) for row in rows] == [False, True]


@pytest.mark.parametrize("kind", [TrainSettings, ValSettings])
def test_caches_in_every_spelling(kind: type[Settings]) -> None:
    words = {True: "ram", "True": "ram", "RAM": "ram", "ram": "ram", "disk": "disk", "Disk": "disk"}
    assert [kind(cache=asked).as_dict()["cache"] for asked in words] == list(words.values())
    with pytest.raises(SettingsError, match="cache=tape does not fit: expected one of off, ram, disk"):
        kind(cache="tape")


def test_auto_takes_as_many_workers_as_there_are_cores() -> None:
    assert TrainSettings(workers="auto").threads == usable_cores()
    assert TrainSettings(workers=0).threads == 0


@pytest.mark.parametrize("off", [False, None, "off", "False", "none", 0, ""])
def test_no_cache_is_accepted_in_every_spelling(off: object) -> None:
    assert TrainSettings(cache=off).as_dict()["cache"] == "off"


def test_boxes_can_be_left_undrawn(here: Path) -> None:
    model = YOLO("gelan-t.yaml")
    for name, keys in {"plain": {"boxes": False}, "bare": {"show_boxes": False}, "full": {}}.items():
        model.predict("a.jpg", imgsz=64, conf=0, save=True, name=name, verbose=False, **keys)
    files = {name: Path(f"runs/detect/{name}/a.jpg").read_bytes() for name in ("plain", "bare", "full")}
    assert files["plain"] == files["bare"] != files["full"]


def test_show_opens_every_picture_where_there_is_a_screen(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = YOLO("gelan-t.yaml")
    opened: list[str] = []

    class Viewer(ImageShow.Viewer):
        def show(self, image: Any, **options: Any) -> int:
            opened.append(options["title"])
            return 1

    monkeypatch.setattr(ImageShow, "_viewers", [Viewer()])
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    keys: dict[str, Any] = {"imgsz": 64, "verbose": False, "show": True}
    model.predict(["a.jpg", np.zeros((64, 64, 3), np.uint8)], **keys)
    assert opened == ["a.jpg", "image0.jpg"]

    monkeypatch.setattr(ImageShow, "_viewers", [])
    assert len(model.predict(["a.jpg", "a.jpg"], **keys)) == 2
    assert capsys.readouterr().out.count("no picture viewer was found") == 1

    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert len(model.predict(["a.jpg", "a.jpg"], **keys)) == 2
    assert capsys.readouterr().out.count("this machine has no screen") == 1


FOREIGN_KEYS = [(verb, key) for verb, keys in FOREIGN.items() for key in keys]


@pytest.mark.parametrize(("verb", "key"), FOREIGN_KEYS)
def test_a_key_of_other_programs_is_taken_only_where_it_asks_for_nothing(verb: str, key: str) -> None:
    kind, known = KINDS[verb], FOREIGN[verb][key]
    assert key not in kind.model_fields
    for value in (None, "None", *known.idle, *(str(value) for value in known.idle)):
        assert kind(**{key: value}).given() == {}
    if known.obsolete:
        assert kind(**{key: 17}).notes == (f"{key} does nothing: {known.instead}",)
        return
    with pytest.raises(SettingsError) as caught:
        kind(**{key: 17})
    assert str(caught.value) == f"{verb} has no key '{key}', so {key}=17 is not possible. {known.instead}"
    for word in set(known.instead.replace(",", " ").replace(";", " ").replace(".", " ").split()):
        if word.startswith("--"):
            assert word[2:].replace("-", "_") in kind.model_fields, word


def test_the_page_of_moving_lists_every_such_key() -> None:
    page = (ROOT / "docs" / "moving.md").read_text(encoding="utf-8")
    assert [key for _, key in FOREIGN_KEYS if f"`{key}`" not in page] == []


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        (TrainSettings, {"exist_ok": True, "plots": False, "verbose": False, "seed": 1, "deterministic": True,
                         "pretrained": True, "amp": True, "cos_lr": True, "val": True, "save": True,
                         "rect": False, "fraction": 1.0, "dropout": 0.0, "time": None, "profile": False,
                         "multi_scale": False, "overlap_mask": True, "mask_ratio": 4, "nbs": 64,
                         "cache": False, "workers": 8, "save_period": -1, "copy_paste": 0.0}),
        (ValSettings, {"conf": 0.001, "iou": 0.6, "max_det": 300, "half": False, "dnn": False, "plots": True,
                       "rect": True, "split": "test", "save_json": True, "augment": False, "cache": False}),
        (PredictSettings, {"conf": 0.25, "iou": 0.7, "half": True, "show": False, "save": True,
                           "save_txt": True, "save_conf": True, "save_crop": True, "show_labels": True,
                           "show_conf": True, "line_width": None, "boxes": True,
                           "visualize": False, "augment": False, "agnostic_nms": False, "classes": None,
                           "retina_masks": False, "embed": None, "max_det": 300, "vid_stride": 1,
                           "persist": False}),
    ],
)  # fmt: skip
def test_keywords_of_scripts_are_known(kind: type[Settings], keys: dict[str, Any]) -> None:
    assert isinstance(kind(**keys), kind)
