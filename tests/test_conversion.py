"""A weight file keeps every number and fact through each form; targets that would do harm are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import holdfast
from holdfast import YOLO, models
from holdfast.cli import main as cli
from holdfast.conversion import write_model
from holdfast.errors import SettingsError, WeightsError
from holdfast.load import load_model
from holdfast.models.detector import Detector
from holdfast.weights import official_state_dict, read_official

NAMES = {0: "Käfer", 1: "bee", 2: "cat"}


def convert(source: Path, target: Path, **keys: Any) -> Path:
    return holdfast.convert(source, target, say=lambda text: None, **keys)


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether names, order, types and every bit agree."""
    return list(left) == list(right) and all(
        left[key].dtype == right[key].dtype and torch.equal(left[key], right[key]) for key in left
    )


def equal(left: Detector, right: Detector) -> bool:
    return left.header == right.header and same(left.state_dict(), right.state_dict())


@pytest.fixture(params=["yolov9-t", "gelan-t", "yolo26n"])
def model(request: pytest.FixtureRequest) -> Detector:
    made = models.build(request.param, 3, names=NAMES, class_width=80)
    for name, buffer in made.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(12_345)
    return made


@pytest.mark.parametrize("steps", [
    [".safetensors"], [".pt"], [".pt", ".safetensors", ".pt"],
    ["official.pt", ".safetensors"], ["official.safetensors", ".pt"],
    ["official.pt", "official.safetensors", ".safetensors", "official.pt"],
])  # fmt: skip
def test_nothing_is_lost_on_the_way_through_any_forms(
    model: Detector, steps: list[str], tmp_path: Path
) -> None:
    path = write_model(tmp_path / "start.safetensors", model, imgsz=416)
    for number, step in enumerate(steps):
        form = "official" if step.startswith("official") else "holdfast"
        path = convert(path, tmp_path / f"{number}{step}", form=form)
        got = load_model(path)
        assert equal(got.model, model)
        assert got.imgsz == 416


@pytest.mark.parametrize("target", ["x.pt", "x.safetensors"])
def test_official_file_comes_back_bit_for_bit(fixtures_26: Path, tmp_path: Path, target: str) -> None:
    source = fixtures_26 / "checkpoints" / "yolo26n.pt"
    ours = convert(source, tmp_path / target)
    want = read_official(source)
    full = read_official(convert(ours, tmp_path / "32.pt", form="official"))
    half = read_official(convert(ours, tmp_path / "16.pt", form="official", half=True))
    keys = json.loads((fixtures_26 / "yolo26n" / "keys.json").read_text())
    assert list(half.state_dict) == [key for key, *_ in keys]
    assert same({key: half.state_dict[key] for key in want.state_dict}, want.state_dict)
    assert all(torch.equal(full.state_dict[key], value.to(full.state_dict[key].dtype))
               for key, value in want.state_dict.items())
    for got in (full, half):
        assert (got.names, got.task, got.classes, got.epoch) == (want.names, "detect", 80, -1)
        assert (got.strides, got.model_name, got.imgsz) == (want.strides, "yolo26n", 640)


@pytest.mark.parametrize("file", ["yolov9-t.last-nc4", "yolov9-t.stripped-nc5"])
def test_official_file_of_the_older_program_comes_back_bit_for_bit(
    fixtures_v9: Path, tmp_path: Path, file: str
) -> None:
    ours = convert(fixtures_v9 / f"{file}.pt", tmp_path / "x.safetensors", half=True)
    back = read_official(convert(ours, tmp_path / "x.pt", form="official", half=True))
    want = read_official(fixtures_v9 / f"{file}.pt")
    assert same({key: back.state_dict[key] for key in want.state_dict}, want.state_dict)
    assert len(back.state_dict) == len(want.state_dict)
    assert back.names == want.names


def test_official_file_is_plain_data_that_torch_reads(model: Detector, tmp_path: Path) -> None:
    source = write_model(tmp_path / "x.safetensors", model, imgsz=320)
    content = torch.load(convert(source, tmp_path / "x.pt", form="official"), weights_only=True)
    assert same(content["model"], official_state_dict(model))
    assert {key: value for key, value in content.items() if key != "model"} == {
        "epoch": -1, "task": "detect", "nc": 3, "names": NAMES, "stride": [8, 16, 32],
        "yaml_file": f"{model.name}.yaml", "train_args": {"imgsz": 320},
    }  # fmt: skip


def test_official_safetensors_tells_its_classes(model: Detector, tmp_path: Path) -> None:
    source = write_model(tmp_path / "x.pt", model)
    with safe_open(convert(source, tmp_path / "y.safetensors", form="official"), framework="pt") as file:
        assert "model.0.conv.weight" in file.keys() or "model.1.conv.weight" in file.keys()  # noqa: SIM118
        header = json.loads(file.metadata()["holdfast"])
    assert (header["form"], header["names"]["0"], header["task"]) == ("official", "Käfer", "detect")


@pytest.mark.parametrize(("name", "nms"), [("yolov9-t", None), ("yolo26n", False), ("yolo26n", True)])
@pytest.mark.parametrize("form", ["holdfast", "official"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_deployed_form_keeps_the_branch_that_was_asked_for(
    name: str, nms: bool | None, form: str, suffix: str, tmp_path: Path
) -> None:
    model = models.build(name, 3, names=NAMES)
    source = write_model(tmp_path / "x.pt", model)
    target = convert(source, tmp_path / f"y{suffix}", deploy=True, nms=nms, form=form)
    got, want = load_model(target).model, model.deploy(nms=nms)
    assert got.deployed
    assert got.names == NAMES
    assert same(got.state_dict(), want.state_dict())
    assert list(got.heads) == list(want.heads)
    again = convert(target, tmp_path / f"z{suffix}", form=form)  # folded already
    assert same(load_model(again).model.state_dict(), want.state_dict())


def test_half_stores_16_bits_and_refuses_what_they_cannot_hold(tmp_path: Path) -> None:
    model = models.build("gelan-t", 3, names=NAMES)
    source = write_model(tmp_path / "x.pt", model)
    half = convert(source, tmp_path / "half.safetensors", half=True)
    assert 0.4 < half.stat().st_size / source.stat().st_size < 0.6
    got = load_model(half).model
    assert {value.dtype for value in got.state_dict().values()} == {torch.float32, torch.int64}
    assert same(got.state_dict(), {
        key: value.half().to(value.dtype) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    })
    model.backbone.stem1.bn.running_var.fill_(1e6)
    source = write_model(tmp_path / "big.pt", model)
    with pytest.raises(WeightsError, match=r"16 bits cannot hold .*running_var.*--half"):
        convert(source, tmp_path / "no.pt", half=True)
    assert not (tmp_path / "no.pt").exists()


def test_targets_that_would_do_harm_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_model(Path("x.pt"), models.build("gelan-t", 2))
    before = source.read_bytes()
    Path("there.pt").write_bytes(b"precious")
    Path("folder.pt").mkdir()
    Path("link.pt").symlink_to("x.pt")
    for target, says in {
        "x.pt": "the same file",
        str(tmp_path / "x.pt"): "the same file",
        "link.pt": "the same file",
        "there.pt": r"there\.pt is there already\. Add --exist-ok",
        "folder.pt": "is a folder",
        "no/y.pt": "no folder 'no'",
        "y.onnx": r"'y\.onnx' must end in \.safetensors or \.pt",
        "y": "must end in",
    }.items():
        with pytest.raises(SettingsError, match=says):
            convert(source, Path(target), exist_ok=target in ("x.pt", "folder.pt"))
    assert source.read_bytes() == before
    assert Path("there.pt").read_bytes() == b"precious"
    convert(source, Path("there.pt"), exist_ok=True)
    assert load_model("there.pt").model.classes == 2
    assert sorted(os.listdir()) == ["folder.pt", "link.pt", "there.pt", "x.pt"]


def test_other_mistakes_are_named(tmp_path: Path) -> None:
    target = tmp_path / "y.pt"
    with pytest.raises(WeightsError, match="no weight file"):
        convert(tmp_path / "absent.pt", target)
    with pytest.raises(SettingsError, match="'gelan-t' is the name of a model"):
        convert(Path("gelan-t"), target)
    source = write_model(tmp_path / "x.pt", models.build("yolo26n", 2))
    with pytest.raises(SettingsError, match="nms=True chooses .* Add --deploy"):
        convert(source, target, nms=True)
    folded = convert(source, tmp_path / "folded.pt", deploy=True)
    with pytest.raises(WeightsError, match="one-to-one branch only"):
        convert(folded, target, deploy=True, nms=True)
    with pytest.raises(SettingsError, match="form=onnx does not fit: expected one of holdfast, official"):
        convert(source, target, form="onnx")
    assert not target.exists()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    source = write_model(tmp_path / "x.pt", models.build("gelan-t", 2))
    monkeypatch.setattr("holdfast.conversion.write_atomic", full)
    with pytest.raises(WeightsError, match=r"y\.safetensors: cannot be written \(No space left on device\)"):
        convert(source, tmp_path / "y.safetensors")


def test_command_line_takes_two_words_and_says_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(Path("a,b.pt"), models.build("yolo26n", 2))
    assert cli.main(["convert", "a,b.pt", "y.safetensors", "--form", "official", "--deploy", "half"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("y.safetensors: yolo26n, deployed, official names, 16 bits, ")
    assert "from a,b.pt (checkpoint, 708 of 708 tensors)" in out
    assert out.count("\n") == 1
    assert cli.main(["convert", "a,b.pt"]) == 2
    assert "convert needs 'target'" in capsys.readouterr().err
    assert cli.main(["convert", "a,b.pt", "y.pt", "z.pt"]) == 2
    assert "convert does not know what 'z.pt' means" in capsys.readouterr().err


def test_python_object_folds_in_place(tmp_path: Path) -> None:
    source = write_model(tmp_path / "x.pt", models.build("yolo26n", 3, names=NAMES))
    holder = YOLO(source).fuse()
    assert holder.model.deployed
    got = load_model(holder.save(tmp_path / "y.pt")).model
    assert equal(got, load_model(source).model.deploy())


def test_python_object_saves_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_model(tmp_path / "x.pt", models.build("gelan-t", 3, names=NAMES), imgsz=96)
    holder = YOLO(source)
    with torch.no_grad():
        holder.model.backbone.stem1.conv.weight.fill_(0.25)
    for path in (holder.save(), holder.save(tmp_path / "y.safetensors"), holder.save(tmp_path / "y.pt")):
        got = load_model(path)
        assert equal(got.model, holder.model)
        assert got.imgsz == 96
    assert Path("saved_model.pt").is_file()
    holder.save("saved_model.pt")  # replaces it
    with pytest.raises(SettingsError, match="must end in"):
        holder.save("y.onnx")
    with pytest.raises(WeightsError, match="cannot be written"):
        holder.save("absent/y.pt")
