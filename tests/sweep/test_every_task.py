"""Every YOLO26 model beyond detection: published counts, key map, golden numbers, deployed form."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import golden26
from holdfast import models
from holdfast.errors import SettingsError
from holdfast.models.detector import Detector
from holdfast.models.outputs import Angles, Branch, ClassOutputs, DualOutputs, Keypoints, Masks
from holdfast.models.profile import gflops, parameter_count
from holdfast.weights import official_state_dict

# Parameters as trained and deployed, convolution GFLOPs of the deployed form, tensors: the published numbers.
# Of 80 classes, but 1 for pose, 15 for obb and 1000 for cls.
PUBLISHED = {
    "yolo26n-seg": (3_126_280, 2_722_980, 9.13, 844),
    "yolo26s-seg": (11_505_800, 10_396_300, 34.22, 844),
    "yolo26m-seg": (27_112_072, 23_569_148, 121.50, 904),
    "yolo26l-seg": (31_515_528, 27_965_436, 139.75, 1228),
    "yolo26x-seg": (70_693_800, 62_819_132, 313.49, 1228),
    "yolo26n-pose": (3_679_464, 2_926_494, 7.45, 879),
    "yolo26s-pose": (11_809_352, 10_359_750, 23.88, 879),
    "yolo26m-pose": (24_222_664, 21_538_166, 73.08, 939),
    "yolo26l-pose": (28_626_120, 25_934_454, 91.33, 1263),
    "yolo26x-pose": (62_731_860, 57_557_832, 201.73, 1263),
    "yolo26n-obb": (2_652_984, 2_449_332, 13.95, 792),
    "yolo26s-obb": (10_531_832, 9_756_972, 55.11, 792),
    "yolo26m-obb": (23_493_688, 21_209_468, 183.27, 852),
    "yolo26l-obb": (27_897_144, 25_605_756, 229.98, 1176),
    "yolo26x-obb": (62_661_528, 57_559_452, 516.46, 1176),
    "yolo26n-cls": (2_812_104, 2_807_024, 0.39, 236),
    "yolo26s-cls": (6_724_008, 6_715_128, 1.47, 236),
    "yolo26m-cls": (11_634_216, 11_622_632, 4.81, 296),
    "yolo26l-cls": (14_115_624, 14_099_432, 6.05, 494),
    "yolo26x-cls": (29_637_064, 29_613_416, 13.52, 494),
}
SIDES = {"obb": 1024, "cls": 224}
SMALL = ("yolo26n-seg", "yolo26n-pose", "yolo26n-obb", "yolo26n-cls")
EXTRA = {"segment": Masks, "pose": Keypoints, "obb": Angles}
every = pytest.mark.parametrize("name", PUBLISHED)
every_small = pytest.mark.parametrize("name", SMALL)


@cache
def skeleton(name: str) -> Detector:
    """The model without numbers: shapes and names only, at no cost."""
    with torch.device("meta"):
        return models.build(name, golden26.CLASSES.get(name.partition("-")[2], 80))


def maps(out: models.Outputs | Branch | Tensor | object) -> list[Tensor]:
    """All tensors of some outputs, in order."""
    if isinstance(out, Tensor):
        return [out]
    return [x for part in out for x in maps(part)] if isinstance(out, tuple) else []


def randomised(name: str) -> Detector:
    """A model whose batch norm statistics are not the trivial ones, so that folding has something to fold."""
    model = models.build(name, 3)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            torch.nn.init.uniform_(module.weight, 0.9, 1.1)
    return model


def test_every_model_beyond_detection_is_here() -> None:
    assert {name for name in models.available() if skeleton(name).task != "detect"} == set(PUBLISHED)


@every
def test_size_and_cost_are_the_published_ones(name: str) -> None:
    parameters, deployed_parameters, deployed_gflops, tensors = PUBLISHED[name]
    model = skeleton(name)
    assert parameter_count(model) == parameters
    assert len(official_state_dict(model)) == tensors
    deployed = model.deploy()
    assert parameter_count(deployed) == deployed_parameters
    side = SIDES.get(name.partition("-")[2], 640)
    assert gflops(deployed, side) == pytest.approx(deployed_gflops, abs=5e-3)


@every
def test_key_map_is_one_to_one_and_the_tensors_tell_the_model(name: str) -> None:
    for model in (skeleton(name), skeleton(name).deploy()):
        names = model.keymap(name)
        own = list(model.state_dict())
        official = [names.to_official(key) for key in own]
        assert len(set(official)) == len(own)
        assert [names.to_ours(key) for key in official] == own
        layout = models.recognise(official_state_dict(model))
        assert (layout.name, layout.classes, layout.folded) == (name, model.classes, model.deployed)
        with torch.device("meta"):
            again = models.from_header(model.header)
        assert again.header == model.header
        assert list(again.state_dict()) == own


@every_small
def test_names_and_shapes_are_the_official_ones(name: str, fixtures_26: Path) -> None:
    keys = json.loads((fixtures_26 / name / "keys.json").read_text())
    got = [(key, list(value.shape)) for key, value in official_state_dict(skeleton(name)).items()]
    assert got == [(key, shape) for key, shape, _ in keys]


@every_small
def test_golden_maps_of_both_branches_and_of_the_deployed_forms(name: str, fixtures_26: Path) -> None:
    want = np.load(fixtures_26 / name / "golden.npz")
    facts = json.loads((fixtures_26 / "manifest.json").read_text())[name]
    weights = golden26.official_weights(fixtures_26, name)
    total = sum(value.double().sum().item() for value in weights.values())
    assert total == pytest.approx(facts["weights_sum"], abs=1e-2)  # the rule itself
    model = golden26.model(fixtures_26, name).eval()
    x = golden26.image("yolo26-eval", 1)
    forms = [model, model.deploy(), *([model.deploy(nms=True)] if model.extra else [])]
    for form in forms:
        with torch.no_grad():
            out = form(x)
        if isinstance(out, ClassOutputs):
            np.testing.assert_allclose(out.logits[0], want["logit"], atol=1e-4, rtol=0)
            continue
        for branch, key in ((out.one_to_many, "o2m"), (out.one_to_one, "o2o")):
            if branch is None:
                continue
            parts = {"boxes": branch.boxes, "scores": branch.scores}
            parts[{"segment": "coef", "pose": "kpts", "obb": "angle"}[model.task]] = branch.extra[0]
            for part, levels in parts.items():
                got = torch.cat([m.flatten(2) for m in levels], 2)[0]
                np.testing.assert_allclose(got, want[f"{key}_{part}"], atol=1e-4, rtol=0)
            if isinstance(branch.extra, Masks):
                np.testing.assert_allclose(branch.extra.prototypes[0], want["proto"], atol=1e-4, rtol=0)


def test_golden_density_of_keypoint_errors(fixtures_26: Path) -> None:
    want = np.load(fixtures_26 / "yolo26n-pose" / "golden.npz")
    with torch.no_grad():
        got = golden26.model(fixtures_26, "yolo26n-pose").flow(torch.from_numpy(want["flow_in"]))
    np.testing.assert_allclose(got, want["flow_log_prob"], atol=1e-4)


def test_a_new_density_is_nearly_that_of_a_standard_normal() -> None:
    torch.manual_seed(0)
    flow = models.build("yolo26n-pose", 1).flow
    side = torch.linspace(-8, 8, 161)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        assert flow(grid).exp().sum().item() * 0.01 == pytest.approx(1.0, abs=1e-3)


@every_small
def test_backward_reaches_every_parameter_and_deploying_keeps_answers(name: str) -> None:
    model = randomised(name).train()
    x = torch.rand(2, 3, 64, 64)
    out = model(x)
    loss = sum(m.float().square().mean() for m in maps(out))
    if isinstance(out, DualOutputs) and isinstance(out.one_to_many.extra, Keypoints):
        loss = loss + out.one_to_many.extra.log_density(torch.rand(5, 2)).sum()
    loss.backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing
    model.eval()
    with torch.no_grad():
        want, got = model(x), model.deploy()(x)
    want = want._replace(one_to_many=None) if isinstance(want, DualOutputs) else want
    for a, b in zip(maps(want), maps(got), strict=True):
        torch.testing.assert_close(a, b, atol=3e-4, rtol=1e-4)


@every_small
def test_what_only_teaches_is_there_in_training_mode_alone(name: str) -> None:
    model = skeleton(name)
    x = torch.empty(1, 3, 64, 64, device="meta")
    out = model.eval()(x)
    more = len(maps(model.train()(x))) - len(maps(out))
    assert more == {"segment": 2, "pose": 6, "obb": 0, "classify": 0}[model.task]
    deployed = model.deploy()
    left = [key for key in deployed.state_dict() if "semseg" in key or "flow" in key or "sigmas" in key]
    assert left == []


@pytest.mark.parametrize("name", SMALL[:3])
def test_one_to_one_branch_sends_nothing_back(name: str) -> None:
    model = randomised(name).train()
    out = model(torch.rand(1, 3, 64, 64)).one_to_one
    assert isinstance(out.extra, EXTRA[model.task])
    sum(m.square().mean() for m in maps(out) if m.requires_grad).backward()
    reached = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None}
    assert reached == {"one_to_one"}


def test_other_keypoints_can_be_asked_for() -> None:
    with torch.device("meta"):
        model = models.build("yolo26n-pose", 2, keypoints=(5, 2))
    out = model(torch.empty(1, 3, 64, 64, device="meta"))
    assert out.one_to_one.extra.points[0].shape[1] == 10
    assert models.recognise(official_state_dict(model)).keypoints == (5, 2)
    with pytest.raises(SettingsError, match="finds no keypoints"):
        models.build("yolo26n", keypoints=(5, 2))
    with pytest.raises(SettingsError, match="2 or 3 numbers"):
        models.build("yolo26n-pose", keypoints=(5, 4))
