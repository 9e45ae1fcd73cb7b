"""One function loads every form of source; what a file holds is told from its content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import golden26
from holdfast import models
from holdfast.errors import SettingsError, WeightsError
from holdfast.load import load_model
from holdfast.models.detector import Detector
from holdfast.post.decode import answer, decode
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


def test_official_yolo26_answers_as_its_own_program_does(fixtures_26: Path) -> None:
    folder = fixtures_26 / "checkpoints"
    facts = json.loads((folder / "yolo26n.json").read_text())
    want = np.load(folder / "yolo26n_golden.npz")
    loaded = load_model(folder / "yolo26n.pt")
    model = loaded.model.eval()
    assert (model.name, model.classes, loaded.imgsz, model.deployed) == ("yolo26n", 80, 640, False)
    assert (model.names[0], model.names[79]) == ("person", "toothbrush")
    assert str(loaded.transfer) == "708 of 708 tensors"
    x = golden26.image(facts["image_tag"], 1)
    ways = {"strides": model.strides, "reg_max": model.reg_max, "max_det": 300}
    with torch.no_grad():
        many = model(x).one_to_many
        best = answer(model.deploy()(x), conf=0.0, iou=1.0, **ways)[0]
        kept = answer(
            model.deploy(nms=True)(x), conf=facts["nms_conf"], iou=facts["nms_iou"], **ways
        )[0]
    boxes, scores = decode(many, strides=model.strides, reg_max=model.reg_max)
    middle, size = (boxes[0, :, :2] + boxes[0, :, 2:]) / 2, boxes[0, :, 2:] - boxes[0, :, :2]
    np.testing.assert_allclose(torch.cat([middle, size], 1).T, want["o2m_decoded"][:4], atol=5e-3, rtol=0)
    np.testing.assert_allclose(scores[0].T, want["o2m_decoded"][4:], atol=1e-4, rtol=0)
    for got, rows in ((best, want["e2e"]), (kept, want["nms"])):
        assert len(got) == len(rows)
        np.testing.assert_allclose(got[:, 4], rows[:, 4], atol=1e-4, rtol=0)
        off = np.abs(got.numpy()[:, None] - rows[None])  # neighbours in the order may have changed places
        same = (off[..., :4].max(2) < 5e-3) & (off[..., 4] < 1e-4) & (off[..., 5] == 0)
        assert same.any(0)[rows[:, 4] > rows[-1, 4] + 1e-4].all()


def test_a_pose_checkpoint_of_the_official_layout_answers_like_the_program_that_wrote_it(
    fixtures_26: Path,
) -> None:
    got = load_model(fixtures_26 / "checkpoints" / "yolo26n-pose.pt")
    assert (got.model.name, got.model.task, got.model.names) == ("yolo26n-pose", "pose", {0: "person"})
    assert got.transfer is not None
    assert got.transfer.loaded == got.transfer.total == 879
    want = np.load(fixtures_26 / "checkpoints" / "yolo26n-pose_golden.npz")["o2m_decoded"]
    with torch.no_grad():
        out = got.model.eval()(golden26.image("yolo26-eval", 1)).one_to_many
    scores = torch.cat([x.flatten(2) for x in out.scores], 2)[0].sigmoid()
    np.testing.assert_allclose(scores, want[4:5], atol=1e-4)


@pytest.mark.parametrize("stem", ["seg", "pose", "obb", "cls"])
def test_the_task_is_told_from_the_tensors_alone(stem: str, fixtures_26: Path, tmp_path: Path) -> None:
    keys = json.loads((fixtures_26 / f"yolo26n-{stem}" / "keys.json").read_text())
    save_file({key: torch.zeros(shape) for key, shape, *_ in keys}, tmp_path / "x.safetensors")
    assert load_model(tmp_path / "x.safetensors").model.name == f"yolo26n-{stem}"


def test_a_file_whose_task_is_not_that_of_its_tensors_is_refused(tmp_path: Path) -> None:
    tensors = official_state_dict(models.build("yolo26n", 2))
    torch.save({"model": tensors, "task": "semantic"}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"x\.pt: says .* 'semantic', but has the tensors of yolo26n\."):
        load_model(tmp_path / "x.pt")


def test_a_detector_fills_what_it_shares_with_a_model_for_another_task(tmp_path: Path) -> None:
    giver = models.build("yolo26n", 3)
    save_file(official_state_dict(giver), tmp_path / "x.safetensors")
    got = load_model("yolo26n-seg", classes=3, weights=tmp_path / "x.safetensors")
    assert got.model.name == "yolo26n-seg"
    own = got.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in giver.state_dict().items())


def test_segmentation_files_of_the_older_family_are_refused(tmp_path: Path) -> None:
    tensors = official_state_dict(models.build("gelan-c", 2, box_groups=1))
    save_file({**tensors, "model.22.proto.cv1.conv.weight": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="YOLOv9 segmentation model"):
        load_model(tmp_path / "x.safetensors")


@pytest.mark.parametrize("size", [*"tsm", *(pytest.param(size, marks=pytest.mark.slow) for size in "ce")])
def test_files_of_ultralytics_for_the_older_family(size: str, tmp_path: Path) -> None:
    # The gelan-* list, box towers without groups, and class towers as wide as that program makes them.
    finest = {"t": 64, "s": 128, "m": 240, "c": 256, "e": 256}[size]
    model = models.build(f"gelan-{size}", 80, class_width=max(finest, 80), box_groups=1)
    torch.save({"model": official_state_dict(model), "train_args": {"imgsz": 320}}, tmp_path / "x.pt")
    got = load_model(tmp_path / "x.pt")
    assert same(got.model, model)
    assert got.imgsz == 320
    head = got.model.heads["head"]
    assert (head.class_width, head.box_groups) == (max(finest, 80), 1)
    assert got.model.header == model.header


def test_named_model_takes_the_widths_of_the_file_that_fills_it(tmp_path: Path) -> None:
    giver = models.build("gelan-t", 80, class_width=80, box_groups=1)
    torch.save(official_state_dict(giver), tmp_path / "x.pt")
    got = load_model("yolov9-t", names=NAMES, weights=tmp_path / "x.pt")
    assert (got.model.name, got.model.names) == ("yolov9-t", NAMES)
    assert same_part(got.model, giver, but=(*giver.class_layers,))
    assert got.transfer is not None
    assert got.transfer.loaded == 1339 - 6


def same_part(model: torch.nn.Module, giver: torch.nn.Module, *, but: tuple[str, ...]) -> bool:
    left, right = model.state_dict(), giver.state_dict()
    return all(torch.equal(left[key], value) for key, value in right.items() if key not in but)


def test_class_width_of_a_fine_tuned_file_stays_through_every_class_count(tmp_path: Path) -> None:
    # 80 wide as the model it came from, where the rule for three classes says 64.
    tuned = models.build("yolo26n", 3, names=dict(enumerate("abc")), class_width=80)
    torch.save({"model": official_state_dict(tuned), "names": tuned.names}, tmp_path / "official.pt")
    first = load_model(tmp_path / "official.pt")
    assert (first.model.header, str(first.transfer)) == (tuned.header, "708 of 708 tensors")
    assert same(first.model, tuned)
    write_checkpoint(tmp_path / "own.pt", first.model, None)
    for source in ("official.pt", "own.pt"):
        again = load_model(tmp_path / source, names=dict(enumerate("vwxyz")))
        assert again.model.header["class_width"] == 80
        assert str(again.transfer).startswith("696 of 708 tensors; kept as they were")
        assert same_part(again.model, tuned, but=(*tuned.class_layers,))
        shared = load_model("yolo26n", names=dict(enumerate("cx")), weights=tmp_path / source)
        assert str(shared.transfer) == "696 of 708 tensors, class rows by name for 1 of 2 classes"
        for key in tuned.class_layers:
            assert torch.equal(shared.model.state_dict()[key][0], tuned.state_dict()[key][2])


@pytest.mark.parametrize(("name", "nms"), [("yolov9-t", None), ("yolo26n", None), ("yolo26n", True)])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_folded_tensors_under_official_names_make_a_deployed_model(
    name: str, nms: bool | None, suffix: str, tmp_path: Path
) -> None:
    model = models.build(name, 2).deploy(nms=nms)
    tensors = official_state_dict(model)
    assert "model.0.conv.bias" in tensors
    assert ("model.23.one2one_cv2.0.2.bias" in tensors) == (name == "yolo26n" and not nms)
    path = tmp_path / f"x{suffix}"
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    got = load_model(path)
    assert got.model.deployed
    assert str(got.transfer) == f"{len(tensors)} of {len(tensors)} tensors"
    assert same(got.model, model)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for mine, theirs in zip(got.model(x), model(x), strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                assert all(torch.equal(a, b) for a, b in zip(mine.boxes, theirs.boxes, strict=True))


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
