"""Synchronised batch norm: two ranks of 8 images are one of 16, and a rank that fails hangs nobody."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crew import together
from holdfast.nn.conv import Conv
from holdfast.nn.sync_norm import Exchange, SyncNorm, synchronise
from holdfast.train.dist import Ranks

SLOW = pytest.mark.slow


def network() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(Conv(3, 16, 3), Conv(16, 24, 3, 2), Conv(24, 16))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    return model


def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return 3 + torch.randn(16, 3, 12, 12), torch.randn(16, 16, 6, 6)


def results(model: nn.Module, x: Tensor) -> dict[str, Any]:
    return {
        "gradients": [p.grad.clone() for p in model.parameters() if p.grad is not None],
        "state": [b.clone() for b in model.buffers()],
        "input": None if x.grad is None else x.grad.clone(),
    }


def learn(model: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Any]:
    x = x.requires_grad_()
    (model(x) * weights).sum().backward()
    return results(model, x)


def parallel(ranks: Ranks, cuts: tuple[int, ...], dtype: torch.dtype) -> dict[str, Any]:
    model = network()
    exchange = synchronise(model, ranks.sum_)
    with exchange.counting() as found:
        learn(copy.deepcopy(model), torch.randn(1, 3, 4, 4), torch.ones(1))
    x, weights = images()
    start, stop = cuts[ranks.rank], cuts[ranks.rank + 1]
    exchange.begin(found[0])
    if start < stop:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            learned = learn(model, x[start:stop].clone(), weights[start:stop])
    else:
        learned = results(model, x)
    exchange.drain(failed=False)
    gradients = learned["gradients"] or [torch.zeros_like(p) for p in model.parameters()]
    ranks.sum_(gradients)
    return {**learned, "gradients": gradients, "count": found[0], "failed": exchange.any_failed()}


@pytest.mark.parametrize(
    "cuts", [(0, 8, 16), pytest.param((0, 11, 16), marks=SLOW), pytest.param((0, 16, 16), marks=SLOW)]
)
def test_ranks_have_the_gradients_and_statistics_of_the_whole_batch(cuts: tuple[int, ...]) -> None:
    expected = learn(network(), *images())
    told = together(parallel, cuts, torch.float32)
    for answer in told:
        assert answer["count"] == 6  # three layers, forward and backward
        assert not answer["failed"]
        for ours, theirs in zip(answer["gradients"], expected["gradients"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
    inputs = [answer["input"] for answer in told if answer["input"] is not None]
    torch.testing.assert_close(torch.cat(inputs), expected["input"], rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(told[0]["state"], expected["state"], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def failing(ranks: Ranks, at: str) -> tuple[bool, int]:
    """The second rank fails in the middle of forward or backward; says whether all know, and what is left."""
    model = network()
    exchange = synchronise(model, ranks.sum_)
    x, weights = images()
    for attempt in range(2):
        exchange.begin(6)
        failed = False
        try:
            y = model[1](model[0](x[:8]))
            if at == "forward" and ranks.rank and not attempt:
                raise MemoryError
            if at == "backward" and ranks.rank and not attempt:
                y.register_hook(_fail)
            (model[2](y) * weights[:8]).sum().backward()
        except MemoryError:
            failed = True
        exchange.drain(failed=failed)
        if not exchange.any_failed():
            return attempt == 1, exchange.left
    return False, exchange.left


def _fail(gradient: Tensor) -> Tensor:
    raise MemoryError


@pytest.mark.parametrize("at", [pytest.param("forward", marks=SLOW), "backward"])
def test_a_rank_that_fails_is_known_to_all_and_the_attempt_can_be_made_again(at: str) -> None:
    assert together(failing, at) == [(True, 0), (True, 0)]


def test_only_training_exchanges_and_names_stay() -> None:
    model, plain = network(), network()
    synchronise(model, lambda tensors: pytest.fail("nothing to exchange"))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert sum(isinstance(module, SyncNorm) for module in model.modules()) == 3
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_an_exchange_too_many_and_layers_out_of_step_are_errors() -> None:
    exchange = Exchange(lambda tensors: None, channels=4, device=torch.device("cpu"))
    exchange.begin(1)
    exchange.swap(torch.ones(4), torch.ones(4), 3, 1)
    with pytest.raises(RuntimeError, match="More exchanges"):
        exchange.swap(torch.ones(4), torch.ones(4), 3, 1)
    second = torch.tensor((1.0, 5.0), dtype=torch.float64)  # another rank, in layer 5
    other = Exchange(lambda tensors: tensors[0][-3:-1].add_(second), channels=4, device=torch.device("cpu"))
    other.begin(1)
    other.swap(torch.ones(4), torch.ones(4), 3, 1)
    with pytest.raises(RuntimeError, match="different layers"):
        other.any_failed()
