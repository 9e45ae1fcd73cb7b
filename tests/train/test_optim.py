"""Parameter groups, the choice of `auto`, decay scaling, and Lion's first steps by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from holdfast.train.lion import Lion
from holdfast.train.optim import (
    build_optimizer,
    choose_optimizer,
    parameter_groups,
    rescaled,
    scaled_weight_decay,
)


def make() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = make()
    model[0].weight.requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1)
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [len(g["params"]) for g in groups] == [
        2,
        1,
        1,
    ]  # biases of norm and conv, conv weight, norm weight
    assert [g["weight_decay"] for g in groups] == [0.0, 0.1, 0.0]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "LION", "MuSGD"])
def test_every_optimizer_does_a_step_without_momentum(name: str) -> None:
    model = make()
    choice = choose_optimizer(name, steps=1, classes=3, lr0=0.1, momentum=0.0, warmup_bias_lr=0.0)
    optimizer = build_optimizer(model, choice, weight_decay=0.0)
    before = model[2].bias.clone()
    model(torch.ones(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(model[2].bias, before)


@pytest.mark.parametrize(("steps", "name", "lr"), [(10_000, "AdamW", 0.001429), (10_001, "SGD", 0.01)])
def test_auto_takes_adamw_for_short_runs_and_sgd_for_long(steps: int, name: str, lr: float) -> None:
    choice = choose_optimizer("auto", steps=steps, classes=3, lr0=0.5, momentum=0.5, warmup_bias_lr=0.1)
    assert (choice.name, choice.lr0) == (name, lr)


def test_auto_takes_what_the_family_is_published_with_for_long_runs() -> None:
    rates = {"classes": 3, "lr0": 0.5, "momentum": 0.5, "warmup_bias_lr": 0.1, "long_run": "MuSGD"}
    long = choose_optimizer("auto", steps=10_001, **rates)
    assert (long.name, long.lr0, long.momentum, long.warmup_bias_lr) == ("MuSGD", 0.01, 0.937, 0.0)
    assert choose_optimizer("auto", steps=10_000, **rates).name == "AdamW"


def test_a_named_optimizer_keeps_the_users_rates() -> None:
    choice = choose_optimizer("Adam", steps=1, classes=3, lr0=0.5, momentum=0.6, warmup_bias_lr=0.1)
    assert (choice.name, choice.lr0, choice.momentum, choice.warmup_bias_lr) == ("Adam", 0.5, 0.6, 0.1)


@pytest.mark.parametrize(("name", "rate"), [("AdamW", 0.001), ("LION", 0.001), ("SGD", 0.1)])
def test_biases_start_no_higher_than_the_rest_where_steps_are_as_long_as_their_rate(
    name: str, rate: float
) -> None:
    choice = choose_optimizer(name, steps=1, classes=3, lr0=0.001, momentum=0.9, warmup_bias_lr=0.1)
    assert choice.warmup_bias_lr == rate
    assert ("warmup_bias_lr 0.1 is for SGD" in choice.note) == (name != "SGD")


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "LION", "MuSGD"])
def test_every_optimizer_lowers_a_quadratic(name: str) -> None:
    model = make()
    choice = choose_optimizer(name, steps=1, classes=3, lr0=0.01, momentum=0.9, warmup_bias_lr=0.1)
    optimizer = build_optimizer(model, choice, weight_decay=0.0)

    def loss() -> torch.Tensor:
        return sum((p.square().sum() for p in model.parameters()), torch.zeros(()))

    before = loss().item()
    for _ in range(5):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < before


def test_decay_scales_with_the_batch() -> None:
    assert scaled_weight_decay(0.0005, batch=16, nominal_batch=64) == pytest.approx(0.000125)


def test_lion_moves_by_the_sign_and_decays_first() -> None:
    p = nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = Lion([p], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    p.grad = torch.tensor([2.0, -3.0])
    optimizer.step()
    torch.testing.assert_close(p.data, torch.tensor([0.95 - 0.1, -0.95 + 0.1]))
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], torch.tensor([0.02, -0.03]))


@pytest.mark.parametrize(("policy", "lr"), [("none", 0.01), ("linear", 0.02), ("sqrt", 0.01 * 2**0.5)])
def test_the_learning_rate_follows_the_batch_as_asked(policy: str, lr: float) -> None:
    choice = choose_optimizer("SGD", steps=1, classes=3, lr0=0.01, momentum=0.9, warmup_bias_lr=0.1)
    scaled = rescaled(choice, policy, batch=128, nominal_batch=64)
    assert scaled.lr0 == pytest.approx(lr)
    assert (scaled.momentum, scaled.warmup_bias_lr) == (0.9, 0.1)
    assert (f"lr_scale {policy}" in scaled.note) == (policy != "none")
