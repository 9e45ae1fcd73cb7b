"""The average follows weights and batch-norm statistics with the published decay."""

from __future__ import annotations

import math

import torch
from torch import nn

from holdfast.train.ema import Ema


def make() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def test_two_updates_give_the_hand_worked_average() -> None:
    model = make()
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    ema = Ema(model, decay=0.5, tau=2.0)
    expected = 1.0
    for update, value in ((1, 3.0), (2, 5.0)):
        with torch.no_grad():
            model[0].weight.fill_(value)
        ema.update()
        decay = 0.5 * (1 - math.exp(-update / 2.0))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(ema.model[0].weight, torch.full((2, 1, 1, 1), expected))


def test_batch_norm_statistics_are_averaged_and_counters_copied() -> None:
    model = make()
    ema = Ema(model, decay=0.9, tau=1.0)
    model(torch.randn(4, 1, 3, 3))
    ema.update()
    assert ema.model[1].num_batches_tracked == 1
    assert not torch.equal(ema.model[1].running_mean, torch.zeros(2))
    assert ema.model[0].weight.requires_grad is False


def test_restoring_continues_the_same_average() -> None:
    model = make()
    ema = Ema(model, decay=0.9, tau=5.0)
    for _ in range(3):
        with torch.no_grad():
            model[0].weight.add_(1.0)
        ema.update()
    other = Ema(make(), decay=0.9, tau=5.0)
    other.load_state_dict(ema.state_dict(), updates=ema.updates)
    other._pairs = [(a, b) for (a, _), (_, b) in zip(other._pairs, ema._pairs, strict=True)]
    ema.update()
    other.update()
    for a, b in zip(ema.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
