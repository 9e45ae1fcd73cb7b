"""Every registered detector runs one sweep: counts, forward, backward, deploy, key map, golden numbers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import golden
import golden26
from holdfast import models
from holdfast.models.detector import Detector
from holdfast.models.outputs import Branch, Outputs
from holdfast.models.profile import gflops, parameter_count, profile
from holdfast.weights import load_official_state_dict, official_state_dict

NAMES = tuple(name for name in models.available() if not name.startswith("yolo26") or "-" not in name)
Counts = dict[str, dict[str, float]]
V9 = tuple(name for name in NAMES if not name.startswith("yolo26"))
GOLDEN = ("yolov9-t", "yolov9-s", "gelan-s", "yolov9-c")
GOLDEN26 = ("yolo26n", "yolo26s", "yolo26m")
# Parameters as trained and deployed, convolution GFLOPs of the deployed form, tensors: the published numbers.
YOLO26 = {
    "yolo26n": (2_572_280, 2_408_932, 5.36, 708),
    "yolo26s": (10_009_784, 9_496_140, 20.69, 708),
    "yolo26m": (21_896_248, 20_411_132, 68.18, 768),
    "yolo26l": (26_299_704, 24_807_420, 86.43, 1092),
    "yolo26x": (58_993_368, 55_725_948, 193.87, 1092),
}
every_variant = pytest.mark.parametrize("name", NAMES)
every_v9 = pytest.mark.parametrize("name", V9)
every_yolo26 = pytest.mark.parametrize("name", YOLO26)
every_fixture = pytest.mark.parametrize("name", GOLDEN)
every_yolo26_fixture = pytest.mark.parametrize("name", GOLDEN26)


@cache
def skeleton(name: str, classes: int = 80) -> Detector:
    """The model without numbers: shapes and names only, at no cost."""
    with torch.device("meta"):
        return models.build(name, classes)


def randomised(name: str, classes: int) -> Detector:
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


def branches(out: Outputs) -> dict[str, Branch]:
    """The branches a forward gave, by name."""
    return {name: branch for name, branch in out._asdict().items() if branch is not None}


@pytest.fixture(scope="session")
def counts(fixtures_v9: Path) -> Counts:
    return json.loads((fixtures_v9 / "counts.json").read_text())["models"]


@every_yolo26
def test_yolo26_has_the_published_size_and_cost(name: str) -> None:
    parameters, deployed_parameters, deployed_gflops, tensors = YOLO26[name]
    model = skeleton(name)
    assert profile(model).parameters == parameters
    assert len(official_state_dict(model)) == tensors
    for nms in (None, True):  # either branch answers at the same cost
        deployed = model.deploy(nms=nms)
        assert parameter_count(deployed) == deployed_parameters
        assert gflops(deployed) == pytest.approx(deployed_gflops, abs=5e-3)


@every_v9
def test_parameters_and_cost_are_the_published_ones(name: str, counts: Counts) -> None:
    want = counts[name]
    got = profile(skeleton(name), imgsz=640)
    assert got.parameters == want["params"]
    assert got.trainable == want["params_trainable"]
    assert got.gflops == pytest.approx(want["gflops_640"], abs=6e-5)
    assert len(official_state_dict(skeleton(name))) == want["state_dict_keys"]


@every_v9
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
    sides = 4 * (1 if name in YOLO26 else 16)
    for branch in branches(out).values():
        assert [tuple(b.shape[:2]) for b in branch.boxes] == [(2, sides)] * 3
        assert [tuple(s.shape) for s in branch.scores] == [(2, 80, 12, 8), (2, 80, 6, 4), (2, 80, 3, 2)]
    assert isinstance(out, model.outputs)
    families = {"gelan": ["main"], "yolov9": ["main", "auxiliary"], "yolo26": ["one_to_many", "one_to_one"]}
    assert list(branches(out)) == families[name[:6].removesuffix("-")]
    assert (model.name, model.task, model.strides, 4 * model.reg_max) == (name, "detect", (8, 16, 32), sides)


def test_auxiliary_branch_runs_in_training_or_when_asked_for() -> None:
    x = torch.empty(1, 3, 64, 64, device="meta")
    model = skeleton("yolov9-t").eval()
    assert model(x).auxiliary is None
    assert model(x, auxiliary=True).auxiliary is not None
    assert model.train()(x, auxiliary=False).auxiliary is None


@every_variant
def test_key_map_is_one_to_one_both_ways(name: str) -> None:
    names = skeleton(name).keymap(name)
    own = [*skeleton(name).state_dict(), *names.constants]
    official = [names.to_official(key) for key in own]
    assert len(set(official)) == len(own)
    assert [names.to_ours(key) for key in official] == own
    heads = {"yolov9": (29, 29, 38, 38, 49), "gelan-": (22, 22, 22, 22, 42), "yolo26": (23,) * 5}[name[:6]]
    sizes = "nsmlx" if name in YOLO26 else "tsmce"
    assert max(int(key.split(".")[1]) for key in official) == heads[sizes.index(name[-1])]


@every_variant
def test_backward_reaches_every_parameter_and_deploy_keeps_outputs(name: str) -> None:
    model = randomised(name, 3).train()
    x = torch.rand(2, 3, 64, 64)
    out = branches(model(x))
    sum(m.square().mean() for branch in out.values() for m in maps(branch)).backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing

    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        want = branches(model(x))
        forms = [model.deploy(), *([model.deploy(nms=True)] if name in YOLO26 else [])]
        found = {branch: value for form in forms for branch, value in branches(form(x)).items()}
    assert list(found) == (["one_to_one", "one_to_many"] if name in YOLO26 else ["main"])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for deployed in forms:
        assert deployed.deployed
        assert not deployed.training
        assert deployed.deploy() is deployed
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in deployed.modules())
    for branch, got in found.items():
        for a, b in zip(maps(want[branch]), maps(got), strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=0)


@every_yolo26
def test_one_to_one_branch_sends_nothing_back(name: str) -> None:
    model = randomised(name, 3).train()
    out = model(torch.rand(1, 3, 64, 64)).one_to_one
    sum(m.square().mean() for m in maps(out)).backward()
    reached = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None}
    assert reached == {"one_to_one"}


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
    names = skeleton(name).keymap(name)
    ours = {names.to_official(key) for key, _ in skeleton(name).named_parameters()}
    assert set(train["grad_l2"]) <= ours
    assert not set(train["params_without_grad"]) & ours


@every_yolo26_fixture
def test_yolo26_names_and_shapes_are_the_official_ones(name: str, fixtures_26: Path) -> None:
    keys = json.loads((fixtures_26 / name / "keys.json").read_text())
    got = [(key, list(value.shape)) for key, value in official_state_dict(skeleton(name)).items()]
    assert got == [(key, shape) for key, shape, _ in keys]


@every_yolo26_fixture
def test_yolo26_golden_maps_of_both_branches_and_of_both_deployed_forms(name: str, fixtures_26: Path) -> None:
    want = np.load(fixtures_26 / name / "golden.npz")
    facts = json.loads((fixtures_26 / "manifest.json").read_text())[name]
    weights = golden26.official_weights(fixtures_26, name)
    total = sum(value.double().sum().item() for value in weights.values())
    assert total == pytest.approx(facts["weights_sum"], abs=1e-2)  # the rule itself
    model = models.build(name)
    transfer = load_official_state_dict(model, weights, strict=True)
    assert (transfer.loaded, transfer.unused) == (facts["state_dict_entries"], [])
    x = golden26.image("yolo26-eval", 1)
    with torch.no_grad():
        forms = [model.eval()(x), model.deploy()(x), model.deploy(nms=True)(x)]
    for out in forms:
        for branch, key in ((out.one_to_many, "o2m"), (out.one_to_one, "o2o")):
            if branch is not None:
                boxes, scores = (torch.cat([m.flatten(2) for m in part], 2)[0] for part in branch[:2])
                np.testing.assert_allclose(boxes, want[f"{key}_boxes"], atol=1e-4, rtol=0)
                np.testing.assert_allclose(scores, want[f"{key}_scores"], atol=1e-4, rtol=0)


@every_yolo26_fixture
def test_yolo26_golden_statistics_of_every_layer(name: str, fixtures_26: Path) -> None:
    want = np.load(fixtures_26 / name / "golden.npz")["layer_stats"]
    model = models.build(name)
    load_official_state_dict(model, golden26.official_weights(fixtures_26, name))
    seen: dict[int, torch.Tensor] = {}
    numbers = {ours: int(theirs.split(".")[1]) for ours, theirs in model.keymap(name).pairs}
    for prefix, number in numbers.items():
        if number < 23:
            module = model.get_submodule(prefix.removesuffix("."))
            module.register_forward_hook(lambda _m, _i, out, n=number: seen.__setitem__(n, out.double()))
    with torch.no_grad():
        model.eval()(golden26.image("yolo26-eval", 1))
    assert len(seen) == 17
    for number, out in seen.items():
        got = [out.mean().item(), out.std().item(), out.abs().max().item()]
        np.testing.assert_allclose(got, want[number], rtol=1e-4, atol=1e-5)


def test_width_of_m_is_rounded_except_with_55_classes() -> None:
    # 180 rounds up to 184, but 180 == 3 * (55 + 5) is exempt in the published builder.
    assert skeleton("gelan-m").neck.down4.cv1.conv.out_channels == 184
    assert skeleton("gelan-m", 55).neck.down4.cv1.conv.out_channels == 180


def test_narrow_class_branch_gives_the_published_size_of_t() -> None:
    with torch.device("meta"):
        deployed = models.build("gelan-t", class_width=80).deploy()
    assert parameter_count(deployed) == 2_001_840
    assert gflops(deployed) == pytest.approx(7.713, abs=5e-4)
