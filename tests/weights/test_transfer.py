"""Official weights go in and come out again; what does not fit is counted and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import golden
from holdfast import models
from holdfast.errors import WeightsError
from holdfast.models.detector import Detector
from holdfast.models.published import Layout
from holdfast.weights import load_official_state_dict, official_state_dict, read_official
from holdfast.weights.transfer import load_own_state_dict


def distinct(name: str, classes: int = 80) -> dict[str, torch.Tensor]:
    """Official tensors of `name`, each filled with its own number."""
    with torch.device("meta"):
        shapes = official_state_dict(models.build(name, classes))
    made = {}
    for i, (key, value) in enumerate(shapes.items()):
        bins = torch.arange(16.0).view(1, 16, 1, 1)
        made[key] = bins if ".dfl" in key else torch.full(value.shape, i % 97 + 1, dtype=value.dtype)
    return made


def test_round_trip_gives_back_every_tensor() -> None:
    want = distinct("yolov9-t")
    model = models.build("yolov9-t")
    transfer = load_official_state_dict(model, want, strict=True)
    assert (transfer.loaded, transfer.total, transfer.skipped, transfer.unused) == (1772, 1772, [], [])
    assert str(transfer) == "1772 of 1772 tensors"
    got = official_state_dict(model)
    assert list(got) == list(want)
    assert all(torch.equal(got[key], want[key]) for key in want)


def test_main_branch_of_a_dual_file_fills_the_single_model() -> None:
    want = distinct("yolov9-s")
    model = models.build("gelan-s")
    transfer = load_official_state_dict(model, want, strict=True)
    assert (transfer.loaded, transfer.total) == (1339, 1339)
    assert "model.22.cv1.conv.weight" in transfer.unused  # auxiliary pyramid
    assert "model.29.cv2.0.2.bias" in transfer.unused  # auxiliary head
    got = official_state_dict(model)
    assert torch.equal(got["model.22.cv3.1.2.bias"], want["model.29.cv5.1.2.bias"])
    assert torch.equal(got["model.12.cv4.conv.weight"], want["model.12.cv4.conv.weight"])


def test_single_file_fills_the_main_branch_of_a_dual_model() -> None:
    want = distinct("gelan-t")
    model = models.build("yolov9-t")
    transfer = load_official_state_dict(model, want)
    assert (transfer.loaded, transfer.total) == (1339, 1772)
    assert transfer.reasons["model.22.cv1.conv.weight"] == "not in the file"
    got = official_state_dict(model)
    assert torch.equal(got["model.29.cv4.0.2.bias"], want["model.22.cv2.0.2.bias"])
    with pytest.raises(WeightsError, match="1339 of 1772"):
        load_official_state_dict(models.build("yolov9-t"), want, strict=True)


def test_another_class_count_keeps_only_the_class_layers() -> None:
    model = models.build("gelan-s", 3)
    transfer = load_official_state_dict(model, distinct("gelan-s"))
    assert transfer.skipped == [f"model.22.cv3.{i}.2.{part}" for i in range(3) for part in ("weight", "bias")]
    assert transfer.loaded == transfer.total - 6 == 1333
    assert transfer.reasons["model.22.cv3.0.2.bias"] == "80 in the file, 3 in the model"
    assert "1333 of 1339 tensors; kept as they were: model.22.cv3.0.2.weight" in str(transfer)


def rows(model: Detector) -> dict[str, torch.Tensor]:
    """Every tensor that has one row per class, as a copy."""
    return {key: model.state_dict()[key].clone() for key in sorted(model.class_layers)}


@pytest.mark.parametrize("name", ["yolov9-t", "yolo26n"])
@pytest.mark.parametrize("own", [False, True])
def test_rows_of_shared_classes_go_by_name(name: str, own: bool) -> None:
    giver = models.build(name, 4, names={0: "cat", 1: "Dog", 2: "2", 3: "owl"}, class_width=80)
    model = models.build(name, 3, names={0: "OWL", 1: "bee", 2: "dog"}, class_width=80)
    with torch.no_grad():
        for key in giver.class_layers:
            giver.state_dict()[key].normal_()
    theirs, before = rows(giver), rows(model)
    if own:
        transfer = load_own_state_dict(model, giver.state_dict(), names=giver.names, strict=True)
    else:
        transfer = load_official_state_dict(model, official_state_dict(giver), names=giver.names)
    assert (transfer.shared, transfer.classes) == (2, 3)
    assert (transfer.skipped, transfer.total - transfer.loaded, len(before)) == ([], 12, 12)
    assert str(transfer).endswith(" tensors, class rows by name for 2 of 3 classes")
    for key, got in rows(model).items():
        assert torch.equal(got[[0, 2]], theirs[key][[3, 1]])
        assert torch.equal(got[1], before[key][1])


def test_rows_of_a_subset_are_all_found() -> None:
    giver = models.build("gelan-t", 4, names=dict(enumerate("abcd")), class_width=80)
    model = models.build("gelan-t", 2, names={0: "d", 1: "b"}, class_width=80)
    transfer = load_official_state_dict(model, official_state_dict(giver), names=giver.names, strict=True)
    assert (transfer.skipped, transfer.shared) == ([], 2)
    assert str(transfer) == "1339 of 1339 tensors, class rows by name for 2 of 2 classes"


@pytest.mark.parametrize("theirs", [None, "xyz", "abc", "012"])
def test_rows_stay_in_order_where_names_say_nothing(theirs: str | None) -> None:
    giver, model = models.build("gelan-t", 3), models.build("gelan-t", 3, names=dict(enumerate("abc")))
    names = None if theirs is None else dict(enumerate(theirs))
    transfer = load_official_state_dict(model, official_state_dict(giver), names=names, strict=True)
    assert (transfer.loaded, transfer.total, transfer.shared) == (1339, 1339, None)
    want = rows(giver)
    assert all(torch.equal(got, want[key]) for key, got in rows(model).items())


def test_equal_counts_in_another_order_go_by_name() -> None:
    giver = models.build("gelan-t", 3, names=dict(enumerate("abc")))
    model = models.build("gelan-t", 3, names=dict(enumerate("cab")))
    load_official_state_dict(model, official_state_dict(giver), names=giver.names, strict=True)
    want = rows(giver)
    assert all(torch.equal(got, want[key][[2, 0, 1]]) for key, got in rows(model).items())


def test_names_that_do_not_match_their_tensors_are_ignored() -> None:
    giver, model = models.build("gelan-t", 3), models.build("gelan-t", 3, names=dict(enumerate("abc")))
    for names in (dict(enumerate("cabd")), {-1: "c"}, {5: "a"}):
        transfer = load_official_state_dict(model, official_state_dict(giver), names=names, strict=True)
        assert transfer.loaded == 1339


def test_weights_of_another_size_change_nothing_and_are_named() -> None:
    model = models.build("gelan-s")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"yolov9-c.*gelan-s.*model\.0\.conv\.weight needs 32x3x3x3"):
        load_official_state_dict(model, distinct("yolov9-c"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_foreign_tensors_are_refused() -> None:
    with pytest.raises(WeightsError, match="no published"):
        load_official_state_dict(models.build("gelan-t"), {"layer.weight": torch.ones(2)})
    with pytest.raises(WeightsError, match="no published"):
        load_official_state_dict(models.build("gelan-t"), {})


def test_changed_distribution_constants_are_noticed() -> None:
    weights = distinct("gelan-t")
    weights["model.22.dfl.conv.weight"] = weights["model.22.dfl.conv.weight"] * 2
    transfer = load_official_state_dict(models.build("gelan-t"), weights)
    assert transfer.reasons == {"model.22.dfl.conv.weight": "not 0, 1, 2, ... in the file"}


def test_deployed_model_has_the_folded_layout_and_takes_only_that() -> None:
    model = models.build("yolov9-t", 2).deploy()
    folded = official_state_dict(model)
    assert models.recognise(folded) == Layout(
        name="gelan-t", classes=2, class_width=64, box_groups=4, folded=True
    )
    assert load_official_state_dict(models.build("gelan-t", 2).deploy(), folded, strict=True).loaded == 371
    with pytest.raises(WeightsError, match="folded"):
        load_official_state_dict(models.build("gelan-t", 2), folded)
    with pytest.raises(WeightsError, match="unfolded"):
        load_official_state_dict(model, distinct("yolov9-t", 2))


@pytest.mark.parametrize("name", models.available())
def test_tensors_alone_tell_the_model(name: str) -> None:
    with torch.device("meta"):
        model = models.build(name, 7)
    got = models.recognise(official_state_dict(model))
    assert got == Layout(
        name=name,
        classes=7,
        class_width=model.header["class_width"],
        box_groups=model.header["box_groups"],
        keypoints=model.default_keypoints,
    )


@pytest.mark.parametrize(("file", "classes"), [("yolov9-t.last-nc4", 4), ("yolov9-t.stripped-nc5", 5)])
def test_checkpoint_answers_like_its_own_program(fixtures_v9: Path, file: str, classes: int) -> None:
    model = models.build("yolov9-t", classes)
    load_official_state_dict(model, read_official(fixtures_v9 / f"{file}.pt").state_dict, strict=True)
    want = np.load(fixtures_v9 / f"{file}.golden.npz")
    with torch.no_grad():
        out = model.eval()(golden.image(1, 128, 160), auxiliary=True)
    for branch, key in ((out.main, "eval_main"), (out.auxiliary, "eval_aux")):
        scores = torch.cat([s.flatten(2) for s in branch.scores], 2).sigmoid()
        np.testing.assert_allclose(scores, want[key][:, 4:], atol=5e-5, rtol=0)
