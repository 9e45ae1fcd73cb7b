"""Exported files say what the model says, whoever runs them; what cannot be is one sentence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from holdfast import YOLO
from holdfast.cli import compat
from holdfast.cli.main import main
from holdfast.conversion import write_model
from holdfast.data.shapes import draw_scene, write_demo
from holdfast.errors import DataError, HoldfastError, SettingsError, WeightsError
from holdfast.geometry.boxes import xyxy_to_cxcywh
from holdfast.load import load_model
from holdfast.models.exported import facts_of, onnx_metadata
from holdfast.models.registry import build
from holdfast.post.decode import answer, answering, decode

NEEDS_ONNX = "the extra 'export' is not installed"
NAMES = {0: "circle", 1: "square", 2: "triangle"}  # as those of the drawn data set
QUIET = {"verbose": False, "device": "cpu"}


def scenes(count: int, height: int, width: int) -> Tensor:
    """(count, 3, height, width) drawn pictures."""
    found = [cv2.resize(draw_scene(1, 0, number)[0], (width, height)) for number in range(count)]
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture
def weights(tmp_path: Path) -> Any:
    """Writes a model whose answers differ from anchor to anchor, as those of a trained one do."""

    def make(name: str) -> Path:
        model = build(name, 3, names=NAMES)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():  # statistics of this batch, so that maps do not fade from layer to layer
            model.train()(scenes(8, 128, 128))
        for norm in norms:  # where they are tiny, rounding would grow a thousandfold
            assert norm.running_var is not None
            norm.running_var.clamp_(min=0.03)
        for head in model.heads.values():
            for towers, start, spread in ((head.box, 1.0, 0.5), (head.cls, -2.0, 0.5)):
                for tower in towers:
                    last = list(tower.children())[-1]
                    assert isinstance(last, nn.Conv2d)
                    nn.init.normal_(last.weight, std=spread)
                    nn.init.normal_(last.bias, mean=start, std=0.5)  # type: ignore[arg-type]
        return write_model(tmp_path / f"{name}.pt", model, imgsz=64)

    return make


def wanted(path: Path, pixels: Tensor) -> Tensor:
    """What a file is to give, by the functions that validation and prediction use."""
    model = load_model(path).model.deploy()
    with torch.no_grad():
        outputs = model(pixels)
        if model.reg_max == 1:
            rows = answer(outputs, strides=model.strides, reg_max=1, conf=0.0, iou=1.0, max_det=300)
            return torch.stack([torch.cat((found, torch.zeros(300 - len(found), 6))) for found in rows])
        boxes, scores = decode(answering(outputs), strides=model.strides, reg_max=model.reg_max)
        return torch.cat((xyxy_to_cxcywh(boxes), scores), 2).transpose(1, 2)


def run(path: Path, pixels: Tensor) -> Tensor:
    """The output of a file, by its runtime and without Holdfast."""
    if path.suffix == ".onnx":
        session = pytest.importorskip("onnxruntime", reason=NEEDS_ONNX).InferenceSession(path)
        return torch.from_numpy(session.run(["output0"], {"images": pixels.numpy()})[0])
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path))(pixels)


@pytest.mark.parametrize(
    ("name", "form", "keys"),
    [
        ("gelan-t", "torchscript", {"batch": 2}),
        ("yolo26n", "torchscript", {"dynamic": True}),
        pytest.param("gelan-t", "pt2", {}, marks=pytest.mark.slow),
        ("yolov9-t", "onnx", {"opset": 12, "dynamic": True}),  # the version of the official program
        ("yolo26n", "onnx", {"opset": 17, "dynamic": True}),
        ("yolo26n", "onnx", {}),
        pytest.param("yolo26n", "onnx", {"dynamic": True}, marks=pytest.mark.slow),
    ],
)
def test_a_file_gives_what_the_model_gives(weights: Any, name: str, form: str, keys: dict[str, Any]) -> None:
    if form == "onnx":
        pytest.importorskip("onnxscript", reason=NEEDS_ONNX)
    source = weights(name)
    path = YOLO(source).export(format=form, **keys, **QUIET)
    assert path == source.with_suffix(f".{form}")
    shapes = [(keys.get("batch", 1), 64, 64)] + [(3, 96, 160)] * ("dynamic" in keys)
    for count, height, width in shapes:
        pixels = scenes(count, height, width)
        found, ours = run(path, pixels), wanted(source, pixels)
        if ours.shape[2] == 6:
            torch.testing.assert_close(found[..., 4], ours[..., 4], atol=1e-4, rtol=0)
            gaps = -torch.diff(ours[..., 4], dim=1, prepend=torch.full((count, 1), 2.0))
            clear = gaps.minimum(gaps.roll(-1, 1)) > 1e-4  # of rows of one score either may come first
            assert clear.sum() > 10 * count
            found, ours = found[clear], ours[clear]
        torch.testing.assert_close(found, ours, atol=2e-3, rtol=1e-4)
    assert sorted(file.name for file in source.parent.iterdir()) == sorted([source.name, path.name])


def test_suppression_inside_a_file_is_that_of_predict(weights: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason=NEEDS_ONNX)
    source = weights("gelan-t")
    photos = sorted((write_demo(tmp_path / "set", images=8).parent / "images").glob("*/*.jpg"))
    keys = {"conf": 0.15, "iou": 0.5}
    for agnostic in (False, True):
        path = YOLO(source).export(
            format="onnx", nms=True, opset=17, dynamic=True, agnostic_nms=agnostic, **keys, **QUIET
        )
        rows = YOLO(path).predict(photos, conf=0.0, iou=1.0, **QUIET)
        ours = YOLO(source).predict(photos, agnostic_nms=agnostic, **keys, **QUIET)
        assert sum(len(found) for found in ours) > 10
        for one, other in zip(rows, ours, strict=True):
            np.testing.assert_allclose(one.boxes.data, other.boxes.data, atol=1e-2)


@pytest.mark.parametrize("name", ["gelan-t", pytest.param("yolo26n", marks=pytest.mark.slow)])
def test_predict_and_val_take_exported_files(weights: Any, tmp_path: Path, name: str) -> None:
    pytest.importorskip("onnxscript", reason=NEEDS_ONNX)
    source, data = weights(name), write_demo(tmp_path / "set", images=8)
    photos = sorted((data.parent / "images").glob("*/*.jpg"))
    script = YOLO(source).export(format="torchscript", dynamic=True, **QUIET)
    fixed = YOLO(source).export(format="onnx", opset=17, batch=3, **QUIET)
    ours = YOLO(source).predict(photos, conf=0.15, **QUIET)
    for one, other in zip(YOLO(script).predict(photos, conf=0.15, batch=2, **QUIET), ours, strict=True):
        np.testing.assert_allclose(one.boxes.data, other.boxes.data, atol=1e-2)
        assert one.names == NAMES
    by_onnx = YOLO(fixed).predict(photos, conf=0.15, **QUIET)  # squares, as the file has one size
    for one, other in zip(YOLO(fixed).predict(photos, conf=0.15, dnn=True, **QUIET), by_onnx, strict=True):
        np.testing.assert_allclose(one.boxes.data, other.boxes.data, atol=1e-2)
    keys = {"data": data, "workers": 0, "plots": False, "project": tmp_path / "runs", **QUIET}
    square = YOLO(source).val(rect=False, **keys).results_dict
    assert YOLO(fixed).val(**keys).results_dict == pytest.approx(square, abs=1e-4)


def test_what_differs_from_the_model_is_not_written(weights: Any, tmp_path: Path) -> None:
    source = weights("gelan-t")
    model = load_model(source).model
    for tower in model.heads["head"].cls:
        nn.init.constant_(list(tower.children())[-1].bias, 1e5)  # type: ignore[union-attr, arg-type]
    nn.init.constant_(next(model.parameters()), 1e5)  # too large for 16 bits
    write_model(source, model)
    target = tmp_path / "kept.torchscript"
    target.write_text("earlier")
    with pytest.raises(WeightsError, match="not written, because what TorchScript computes differs"):
        YOLO(source).export(file=target, half=True, imgsz=64, **QUIET)
    assert target.read_text() == "earlier"
    assert sorted(file.name for file in tmp_path.iterdir()) == [source.name, target.name]


@pytest.mark.slow
def test_half_a_file_takes_half_the_room(tmp_path: Path) -> None:
    source = write_model(tmp_path / "n.pt", build("yolo26n", 3), imgsz=64)
    sizes = [YOLO(source).export(half=half, **QUIET).stat().st_size for half in (False, True)]
    assert sizes[1] < 0.6 * sizes[0]
    pixels = np.full((64, 64, 3), 128, np.uint8)
    assert len(YOLO(source.with_suffix(".torchscript")).predict(pixels, conf=0.0, **QUIET)[0]) > 0


def test_ap_of_file_and_model_are_compared(
    weights: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, data = weights("gelan-t"), write_demo(tmp_path / "set", images=20)
    words = ["export", str(source), "--data", str(data), "--fraction", "0.5", "--workers", "0"]
    assert main([*words, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "AP: mAP50-95 of the file" in out
    assert "on 2 images" in out  # half of the four for validation
    assert "so low that comparing it says nothing" in out  # the model is not trained
    assert "parity: TorchScript against the model on 2 images: boxes" in out
    other = write_model(tmp_path / "other.pt", build("gelan-t", 5))
    with pytest.raises(DataError, match="names 3 classes, but the model has 5"):
        YOLO(other).export(data=data, imgsz=64, workers=0, **QUIET)
    assert not other.with_suffix(".torchscript").exists()


@pytest.mark.slow
def test_a_comparison_of_nothing_is_told(weights: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason=NEEDS_ONNX)
    words = ["export", str(weights("gelan-t")), "--format", "onnx", "--opset", "17", "--device", "cpu"]
    assert main([*words, "--nms", "--conf", "0.999"]) == 0
    assert "both found nothing above 0.999 on drawn pictures" in capsys.readouterr().out


def test_a_file_says_what_it_is(weights: Any) -> None:
    onnx = pytest.importorskip("onnx", reason=NEEDS_ONNX)
    path = YOLO(weights("yolo26n")).export(format="onnx", opset=17, imgsz=(64, 96), **QUIET)
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert onnx_metadata(path) == told
    facts = facts_of(told, path)
    assert (facts.names, facts.stride, facts.imgsz, facts.task) == (NAMES, 32, (64, 96), "detect")


def test_onnx_recorded_on_a_gpu_runs_without_one(weights: Any) -> None:
    onnx = pytest.importorskip("onnx", reason=NEEDS_ONNX)
    pytest.importorskip("onnxruntime", reason=NEEDS_ONNX)
    path = YOLO(weights("gelan-t")).export(format="onnx", opset=17, **QUIET)
    program = onnx.load(path)
    told = {entry.key: entry.value for entry in program.metadata_props}
    onnx.helper.set_model_props(program, {**told, "device": "cuda:0"})
    onnx.save(program, path)
    picture = np.zeros((64, 64, 3), np.uint8)
    for dnn in (False, True):
        assert len(YOLO(path).predict(picture, dnn=dnn, verbose=False)) == 1


def test_facts_of_other_programs_are_understood() -> None:
    told = {"names": "{0: 'cat'}", "stride": "32", "imgsz": "[320, 640]", "task": "detect", "batch": "1",
            "args": "{'dynamic': True, 'half': False}"}  # fmt: skip
    facts = facts_of(told, Path("theirs.onnx"))
    assert (facts.names, facts.imgsz, facts.dynamic, facts.half) == ({0: "cat"}, (320, 640), True, False)
    with pytest.raises(WeightsError, match="for the task 'segment'"):
        facts_of({**told, "task": "segment"}, Path("theirs.onnx"))
    with pytest.raises(WeightsError, match="does not say which classes"):
        facts_of({"stride": "32"}, Path("theirs.onnx"))


@pytest.mark.slow
def test_official_flags_export(weights: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxscript", reason=NEEDS_ONNX)
    source = weights("yolov9-t")
    words = ["--weights", str(source), "--img", "64", "64", "--include", "torchscript", "onnx"]
    words += ["--opset", "12", "--simplify", "--device", "cpu", "--batch-size", "1"]
    assert compat.main("export", words) == 0
    assert source.with_suffix(".onnx").is_file()
    assert source.with_suffix(".torchscript").is_file()
    assert "--simplify: is done in any case" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "engine"}, "TensorRT's own tool"),
        ({"format": "openvino"}, "which OpenVINO reads"),
        ({"format": "picture"}, "There is no format 'picture'"),
        ({"nms": True}, "nms and opset are for ONNX files; add format=onnx"),
        ({"format": ["onnx", "pt2"]}, "Call it once for each format"),
        ({"file": "a.onnx"}, "must end in .torchscript"),
        ({"file": "nowhere/a.torchscript"}, "There is no folder 'nowhere'"),
        ({"int8": True}, "onnxruntime.quantization"),
        ({"end2end": True}, "nms=False is not possible"),
        ({"model": "yolo26n-seg"}, "only detectors are exported"),
    ],
)
def test_what_cannot_be_exported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model = YOLO(keys.pop("model", "gelan-t"))
    with pytest.raises(SettingsError) as caught:
        model.export(imgsz=64, **keys, **QUIET)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_attention_needs_a_newer_onnx(weights: Any) -> None:
    pytest.importorskip("onnxscript", reason=NEEDS_ONNX)
    with pytest.raises(SettingsError, match="yolo26n needs opset 14"):
        YOLO(weights("yolo26n")).export(format="onnx", opset=12, **QUIET)


@pytest.mark.slow
def test_a_version_that_torch_does_not_write_is_one_sentence(
    weights: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason=NEEDS_ONNX)
    with pytest.raises(SettingsError, match="opset 30"):
        YOLO(weights("yolo26n")).export(format="onnx", opset=30, **QUIET)
    assert capfd.readouterr().err == ""


def test_exported_files_do_nothing_else(weights: Any, tmp_path: Path) -> None:
    source = weights("gelan-t")
    script, program = YOLO(source).export(**QUIET), tmp_path / "program.pt2"
    model, picture = YOLO(script), np.zeros((64, 64, 3), np.uint8)
    faults: list[tuple[Any, str]] = [
        (lambda: model.train(data=write_demo(tmp_path / "set", images=8)), "an exported file only detects"),
        (lambda: model.model, "an exported file only detects"),
        (lambda: YOLO(program), "may unpickle parts"),
        (lambda: model.predict(picture, imgsz=96, **QUIET), "takes 64x64 only, so imgsz=96"),
        (lambda: model.predict(picture, nms=True, **QUIET), "holds one branch"),
        (lambda: model.predict(picture, half=True, **QUIET), "computes in 32 bits, so half=True"),
        (lambda: model.predict(picture, device=0, verbose=False), "is run on cpu, so device=0"),
        (lambda: model.predict(picture, dnn=True, **QUIET), "dnn runs ONNX files"),
        (lambda: YOLO(source).predict(picture, dnn=True, **QUIET), "dnn runs ONNX files"),
        (lambda: YOLO(tmp_path / "gone.torchscript"), "There is no exported file"),
        (lambda: YOLO(source).export(file="/proc/a.torchscript", **QUIET), "can be written into '/proc'"),
    ]
    for attempt, message in faults:
        with pytest.raises(HoldfastError) as caught:
            attempt()
        assert message in str(caught.value)


@pytest.mark.parametrize("suffix", [".onnx", ".torchscript"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason=NEEDS_ONNX)
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(b"\x07" * 64)
    with pytest.raises(WeightsError, match=f"damaged{suffix}: cannot be read"):
        YOLO(damaged)
