"""MuSGD: golden weights after five steps, golden groups, and what its first step does to matrices."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import golden26
from holdfast import models
from holdfast.devices import Precision
from holdfast.losses.detect import DualLoss
from holdfast.train.ema import Ema
from holdfast.train.musgd import MuSGD, orthogonalised
from holdfast.train.optim import build_optimizer, choose_optimizer, musgd_groups
from holdfast.train.step import Stepper
from holdfast.weights import load_official_state_dict


def drawn(tag: str, shape: tuple[int, ...]) -> torch.Tensor:
    z = np.random.RandomState(zlib.crc32(tag.encode())).standard_normal(shape)
    return torch.from_numpy(z)


@pytest.mark.parametrize("rates", ["const", "warm"])
def test_golden_weights_after_each_of_five_steps(fixtures_26: Path, rates: str) -> None:
    facts = json.loads((fixtures_26 / "musgd.json").read_text())
    want = np.load(fixtures_26 / "musgd.npz")
    weights = {
        name: nn.Parameter(drawn(f"musgd.{name}", tuple(shape)).float())
        for name, shape in facts["tensors"].items()
    }
    matrices = [weights[name] for name in facts["muon_group"]]
    others = [p for name, p in weights.items() if name not in facts["muon_group"]]
    decay = facts["weight_decay_muon_group"]
    groups = [{"params": matrices, "use_muon": True, "weight_decay": decay}, {"params": others}]
    optimizer = MuSGD(groups, lr=0.01, momentum=0.9)
    for step, (lr, momentum) in enumerate(facts[f"{rates}_lr_momentum"]):
        for group in optimizer.param_groups:
            group["lr"], group["momentum"] = lr, momentum
        for name, p in weights.items():
            p.grad = (0.5 * drawn(f"musgd.grad.{name}.{step}", tuple(p.shape))).float()
        optimizer.step()
        for name, p in weights.items():
            np.testing.assert_allclose(p.detach(), want[f"{rates}.{name}"][step], atol=1e-4, rtol=0)


def test_golden_orthogonalised_updates(fixtures_26: Path) -> None:
    facts = json.loads((fixtures_26 / "musgd.json").read_text())
    want = np.load(fixtures_26 / "musgd.npz")
    gradients = {
        name: (0.5 * drawn(f"musgd.grad.{name}.0", tuple(facts["tensors"][name]))).float()
        for name in facts["muon_group"]
    }
    # Nesterov over an empty buffer: 0.9 * 0.1 g + 0.1 g; one call for all, so equal shapes run together.
    found = orthogonalised([0.19 * g for g in gradients.values()])
    for (name, g), update in zip(gradients.items(), found, strict=True):
        factor = max(1.0, g.shape[-2] / g.shape[-1]) ** 0.5
        np.testing.assert_allclose(update.float() * factor, want[f"ortho.{name}"], atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", [(8, 8), (40, 12), (12, 40), (16, 8, 3, 3), (8, 1, 3, 3)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    (update,) = orthogonalised([torch.randn(shape)])
    assert update.shape == shape
    values = torch.linalg.svdvals(update.float().flatten(1))
    assert values.min() > 0.4
    assert values.max() < 1.4


def test_equal_shapes_in_one_call_give_what_each_gives_alone() -> None:
    matrices = [torch.randn(16, 8, 3, 3) for _ in range(3)] + [torch.randn(8, 16)]
    together = orthogonalised(matrices)
    for matrix, update in zip(matrices, together, strict=True):
        torch.testing.assert_close(update, orthogonalised([matrix])[0], atol=0.02, rtol=0)


def test_memory_layout_of_filters_does_not_matter() -> None:
    w = torch.randn(16, 8, 3, 3)
    (plain,), (last,) = (
        orthogonalised([x]) for x in (w, w.contiguous(memory_format=torch.channels_last))
    )
    assert torch.equal(plain, last)


def test_golden_groups_of_yolo26(fixtures_26: Path) -> None:
    golden = json.loads((fixtures_26 / "param_groups.json").read_text())["yolo26n"]
    want = [group for group in golden if group["tensors"]]
    with torch.device("meta"):
        model = models.build("yolo26n")
    groups = musgd_groups(model, weight_decay=0.0005, class_branches=model.class_branches)
    names = {id(p): model.keymap("yolo26n").to_official(key) for key, p in model.named_parameters()}
    assert len(groups) == len(want)
    for group, expected in zip(groups, want, strict=True):
        assert {"norm": "bn"}.get(group["name"], group["name"]) == expected["param_group"]
        assert {names[id(p)] for p in group["params"]} == set(expected["names"])
        assert group.get("lr_scale", 1.0) == pytest.approx(expected["lr"] / 0.01)
        assert group["weight_decay"] == expected["weight_decay"]
        assert bool(group.get("use_muon")) == expected["use_muon"]


class FloatStepper(Stepper):
    """Takes images that are scaled already; those of the fixture are no bytes."""

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        return images


def test_golden_training_steps(fixtures_26: Path) -> None:
    facts = json.loads((fixtures_26 / "train_steps.json").read_text())
    model = models.build("yolo26n")
    load_official_state_dict(model, golden26.official_weights(fixtures_26, "yolo26n"), strict=True)
    model.train()
    groups = musgd_groups(model, weight_decay=0.0005, class_branches=model.class_branches)
    for group in groups:
        group["lr"] = 0.01 * group.get("lr_scale", 1.0)
    ema = Ema(model, decay=0.9999, tau=2000.0)
    stepper = FloatStepper(
        model,
        DualLoss(strides=model.strides),
        MuSGD(groups, lr=0.01, momentum=0.9),
        ema=ema,
        precision=Precision(torch.float32, False, ""),
        clip_norm=10.0,
        channels_last=False,
    )
    images, targets = golden26.image(facts["image_tag"], 4), golden26.targets(fixtures_26)
    for number, want in enumerate(facts["steps"]):
        items = stepper.run(images, targets).items
        drift = 5e-4 if number == 0 else 2e-2  # bfloat16 in the orthogonalisation
        assert items.tolist() == pytest.approx(list(want["items"].values()), rel=drift)
        for state, key in ((model.state_dict(), "weight_l2"), (ema.state_dict(), "ema_l2")):
            official = {model.keymap("yolo26n").to_official(name): value for name, value in state.items()}
            for name, norm in want[key].items():
                assert official[name].double().norm().item() == pytest.approx(norm, rel=1e-5 * 10**number)


def test_state_survives_saving_bit_for_bit(tmp_path: Path) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        choice = choose_optimizer("MuSGD", steps=1, classes=3, lr0=0.01, momentum=0.9, warmup_bias_lr=0.1)
        return model, build_optimizer(model, choice, weight_decay=0.1, class_branches=["2"])

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        g = torch.Generator().manual_seed(number)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=g)
        optimizer.step()

    model, optimizer = make()
    for number in range(2):
        step(model, optimizer, number)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
    content = torch.load(tmp_path / "x.pt", weights_only=True)
    again, resumed = make()
    again.load_state_dict(content["model"])
    resumed.load_state_dict(content["optimizer"])
    for m, o in ((model, optimizer), (again, resumed)):
        step(m, o, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
