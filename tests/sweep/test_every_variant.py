"""Every registered model runs the same sweep: counts, forward, backward, deploy, key map, golden numbers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import golden
from holdfast import models
from holdfast.models.outputs import Branch
from holdfast.models.profile import gflops, parameter_count, profile
from holdfast.models.yolov9 import YOLOv9
from holdfast.weights import load_official_state_dict, official_state_dict
from holdfast.weights.keymap import keymap

NAMES = models.available()
Counts = dict[str, dict[str, float]]
GOLDEN = ("yolov9-t", "yolov9-s", "gelan-s", "yolov9-c")
every_variant = pytest.mark.parametrize("name", NAMES)
every_fixture = pytest.mark.parametrize("name", GOLDEN)


@cache
def skeleton(name: str, classes: int = 80) -> YOLOv9:
    """The model without numbers: shapes and names only, at no cost."""
    with torch.device("meta"):
        return models.build(name, classes)


def randomised(name: str, classes: int) -> YOLOv9:
    """A model whose batch norm statistics are not the trivial ones, so that folding has something to fold."""
    model = models.build(name, classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
            torch.nn.init.uniform_(module.weight, 0.9, 1.1)
    return model


def maps(branch: Branch) -> list[torch.Tensor]:
    return [torch.cat(pair, 1) for pair in zip(branch.boxes, branch.scores, strict=True)]


@pytest.fixture(scope="session")
def counts(fixtures_v9: Path) -> Counts:
    return json.loads((fixtures_v9 / "counts.json").read_text())["models"]


@every_variant
def test_parameters_and_cost_are_the_published_ones(name: str, counts: Counts) -> None:
    want = counts[name]
    got = profile(skeleton(name), imgsz=640)
    assert got.parameters == want["params"]
    assert got.trainable == want["params_trainable"]
    assert got.gflops == pytest.approx(want["gflops_640"], abs=6e-5)
    assert len(official_state_dict(skeleton(name))) == want["state_dict_keys"]


@every_variant
def test_deployed_size_is_that_of_the_folded_main_branch(name: str, counts: Counts) -> None:
    want = counts[name.replace("yolov9", "gelan")]
    deployed = skeleton(name).deploy()
    assert parameter_count(deployed) == want["fused_params"]
    assert gflops(deployed) == pytest.approx(want["fused_gflops_640"], abs=6e-5)
    assert len(official_state_dict(deployed)) == want["fused_state_dict_keys"]


@every_variant
def test_maps_have_the_stated_shapes(name: str) -> None:
    model = skeleton(name)
    out = model.train()(torch.empty(2, 3, 96, 64, device="meta"))
    assert [tuple(b.shape) for b in out.main.boxes] == [(2, 64, 12, 8), (2, 64, 6, 4), (2, 64, 3, 2)]
    assert [tuple(s.shape) for s in out.main.scores] == [(2, 80, 12, 8), (2, 80, 6, 4), (2, 80, 3, 2)]
    assert (out.auxiliary is not None) == name.startswith("yolov9")
    assert (model.name, model.task, model.strides, model.reg_max) == (name, "detect", (8, 16, 32), 16)


def test_auxiliary_branch_runs_in_training_or_when_asked_for() -> None:
    x = torch.empty(1, 3, 64, 64, device="meta")
    model = skeleton("yolov9-t").eval()
    assert model(x).auxiliary is None
    assert model(x, auxiliary=True).auxiliary is not None
    assert model.train()(x, auxiliary=False).auxiliary is None


@every_variant
def test_key_map_is_one_to_one_both_ways(name: str) -> None:
    names = keymap(name)
    own = [*skeleton(name).state_dict(), *names.constants]
    official = [names.to_official(key) for key in own]
    assert len(set(official)) == len(own)
    assert [names.to_ours(key) for key in official] == own
    layers = sorted({int(key.split(".")[1]) for key in official})
    assert (
        layers[-1]
        == {"yolov9": {"t": 29, "s": 29, "m": 38, "c": 38, "e": 49}}.get(
            name[:6], dict.fromkeys("tsmc", 22) | {"e": 42}
        )[name[-1]]
    )


@every_variant
def test_backward_reaches_every_parameter_and_deploy_keeps_outputs(name: str) -> None:
    model = randomised(name, 3).train()
    x = torch.rand(2, 3, 64, 64)
    out = model(x)
    branches = [out.main] if out.auxiliary is None else [out.main, out.auxiliary]
    sum(m.square().mean() for branch in branches for m in maps(branch)).backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing

    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        want = model(x).main
        deployed = model.deploy()
        got = deployed(x).main
    assert deployed.deployed
    assert not deployed.training
    assert deployed.deploy() is deployed
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in deployed.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for a, b in zip(maps(want), maps(got), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


@every_fixture
def test_names_and_shapes_are_the_official_ones(name: str, fixtures_v9: Path) -> None:
    keys = json.loads((fixtures_v9 / f"{name}.keys.json").read_text())
    got = official_state_dict(skeleton(name))
    assert [(key, list(value.shape)) for key, value in got.items()] == [
        (key, shape) for key, shape, _ in keys
    ]


@every_fixture
def test_golden_maps_of_both_branches_and_of_the_deployed_form(name: str, fixtures_v9: Path) -> None:
    want = np.load(fixtures_v9 / f"{name}.golden.npz")
    weights = golden.official_weights(fixtures_v9, name)
    sums = np.array([[v.double().sum(), v.double().square().sum()] for v in weights.values()])
    np.testing.assert_allclose(sums, want["weights_check"], rtol=1e-6, atol=1e-6)  # the rule itself
    model = models.build(name)
    assert load_official_state_dict(model, weights, strict=True).loaded == len(weights)
    x = golden.image(1, 128, 160)
    with torch.no_grad():
        out = model.eval()(x, auxiliary=True)
        deployed = model.deploy()(x)
    branches = {"main": [out.main, deployed.main], "aux": [out.auxiliary] if out.auxiliary else []}
    for which, forms in branches.items():
        for form in forms:
            for level, got in zip((3, 4, 5), maps(form), strict=True):
                np.testing.assert_allclose(got, want[f"raw_{which}_p{level}"], atol=2e-4, rtol=0)


@every_fixture
def test_golden_training_statistics_and_batch_norm(name: str, fixtures_v9: Path) -> None:
    facts = json.loads((fixtures_v9 / f"{name}.golden.json").read_text())
    model = models.build(name)
    load_official_state_dict(model, golden.official_weights(fixtures_v9, name))
    with torch.no_grad():
        out = model.train()(golden.image(4, 128, 160))
    for which, branch in (("main", out.main), ("aux", out.auxiliary)):
        for level, got in zip((3, 4, 5), maps(branch) if branch else [], strict=branch is not None):
            want = facts["train"]["stats"][f"{which}_p{level}"]
            assert got.double().norm().item() == pytest.approx(want["l2"], rel=1e-4)
            assert got.double().std().item() == pytest.approx(want["std"], rel=1e-4)
            np.testing.assert_allclose(got.flatten()[:8], want["first8"], atol=2e-4)
    state = official_state_dict(model)
    for layer, want in facts["bn_after_one_train_forward"].items():
        for part in ("running_mean", "running_var"):
            norm = state[f"{layer}.{part}"].double().norm().item()
            assert norm == pytest.approx(want[f"{part}_l2"], rel=1e-4)
        assert state[f"{layer}.num_batches_tracked"] == want["num_batches_tracked"]


@every_fixture
def test_gradients_have_the_official_names(name: str, fixtures_v9: Path) -> None:
    train = json.loads((fixtures_v9 / f"{name}.golden.json").read_text())["train"]
    names = keymap(name)
    ours = {names.to_official(key) for key, _ in skeleton(name).named_parameters()}
    assert set(train["grad_l2"]) <= ours
    assert not set(train["params_without_grad"]) & ours


def test_width_of_m_is_rounded_except_with_55_classes() -> None:
    # 180 rounds up to 184, but 180 == 3 * (55 + 5) is exempt in the published builder.
    assert skeleton("gelan-m").neck.down4.cv1.conv.out_channels == 184
    assert skeleton("gelan-m", 55).neck.down4.cv1.conv.out_channels == 180


def test_narrow_class_branch_gives_the_published_size_of_t() -> None:
    with torch.device("meta"):
        deployed = models.build("gelan-t", class_width=80).deploy()
    assert parameter_count(deployed) == 2_001_840
    assert gflops(deployed) == pytest.approx(7.713, abs=5e-4)
