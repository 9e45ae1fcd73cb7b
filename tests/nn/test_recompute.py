"""Blocks that make activations again: same gradients, fewer maps kept, nothing held behind the scenes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

from holdfast.nn.attention import C2PSA
from holdfast.nn.c3 import Bottleneck, C3k2
from holdfast.nn.conv import Conv, RepConvN
from holdfast.nn.csp import RepNCSP
from holdfast.nn.elan import ELAN1, RepNCSPELAN4
from holdfast.nn.pool import SPPELAN, SPPF, AConv, ADown
from holdfast.nn.recompute import LEVELS, Level, Recomputing, derived, kept, recipe, thrifty

BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Sequential(Conv(8, 16, 3), Conv(16, 8, 3)),
    "narrow conv": lambda: nn.Sequential(Conv(8, 8, 3), Conv(8, 8, 3)),
    "rep": lambda: RepConvN(8, 8),
    "csp": lambda: RepNCSP(8, 12, depth=2),
    "elan1": lambda: ELAN1(8, 12, split=8, branch=6),
    "elan4": lambda: RepNCSPELAN4(8, 12, split=8, branch=6, depth=2),
    "aconv": lambda: nn.Sequential(Conv(8, 8), AConv(8, 12)),
    "adown": lambda: nn.Sequential(Conv(8, 8), ADown(8, 12)),
    "spp": lambda: SPPELAN(8, 12, split=4),
    "sppf": lambda: SPPF(8),
    "c3k2": lambda: C3k2(8, 8, hidden=8, depth=2, inner=lambda c: Bottleneck(c, hidden=c // 2)),
    "attention": lambda: C2PSA(16, depth=1),
}


class Frame(Recomputing):
    """One stage."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.stage(x, self.block)


def at(model: nn.Module, level: Level) -> nn.Module:
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, Recomputing):
            module.level = level
    return model


def results(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    out = model(x)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out))
    assert x.grad is not None
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"output": out.detach(), "input": x.grad, **grads, **dict(model.named_buffers())}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_and_statistics_are_those_of_the_block_that_keeps_everything(
    name: str, layout: torch.memory_format
) -> None:
    model = Frame(BLOCKS[name]()).double().to(memory_format=layout).train()  # type: ignore[call-overload]
    x = torch.randn(2, 16 if name == "attention" else 8, 8, 8, dtype=torch.double).to(memory_format=layout)
    want = results(at(model, "none"), x)
    for level in LEVELS[1:]:
        got = results(at(model, level), x)
        assert got.keys() == want.keys()
        for key, value in want.items():
            torch.testing.assert_close(got[key], value, rtol=1e-8, atol=1e-10)
        assert all(torch.equal(got[k], want[k]) for k, _ in model.named_buffers())


def test_of_a_convolution_block_only_the_output_of_the_convolution_is_kept() -> None:
    block, consumer = at(Conv(16, 16, 3), "norm"), nn.Conv2d(16, 4, 1)
    refs = {}
    out = thrifty(block.conv, torch.randn(1, 16, 8, 8))
    refs["convolution"] = StorageWeakRef(out.untyped_storage())
    out = block._normed(block.bn, out)
    refs["norm"] = StorageWeakRef(out.untyped_storage())
    out = derived(thrifty(F.silu, out), F.silu, out)
    refs["activation"] = StorageWeakRef(out.untyped_storage())
    out = thrifty(consumer, out)
    assert {name: not ref.expired() for name, ref in refs.items()} == {
        "convolution": True, "norm": False, "activation": False
    }  # fmt: skip
    out.sum().backward()
    assert refs["convolution"].expired()


def test_a_recipe_is_followed_once_for_all_who_ask_and_forgotten_after() -> None:
    calls = []

    def make(x: Tensor) -> Tensor:
        calls.append(1)
        return x * 2

    source = kept(torch.ones(3, requires_grad=True) * 1)
    x = derived(source * 2, make, source)
    total = sum(thrifty(torch.square, x).sum() for _ in range(3))  # square keeps its input
    found = recipe(x)
    assert found is not None
    assert found.users == 3
    del x
    total.backward()
    assert len(calls) == 1
    assert found.value is None


def test_a_map_that_was_overwritten_has_no_recipe() -> None:
    x = kept(torch.ones(3, requires_grad=True) * 1)
    assert recipe(x) is not None
    x.add_(1)
    assert recipe(x) is None


def test_a_source_that_was_overwritten_is_an_error() -> None:
    block = at(nn.Sequential(Conv(4, 4), Conv(4, 4)), "norm").train()
    out = block(torch.randn(1, 4, 4, 4))
    with torch.no_grad():
        block[0].bn.bias.add_(1)  # as an optimizer does
    with pytest.raises(RuntimeError, match="was overwritten"):
        out.sum().backward()


def test_another_class_of_batch_norm_is_called_as_it_is() -> None:
    class Other(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    model = nn.Sequential(Conv(4, 16), Conv(16, 4)).double()
    for conv in model:
        other = Other(conv.bn.num_features, eps=conv.bn.eps, momentum=conv.bn.momentum).double()
        other.load_state_dict(conv.bn.state_dict())
        conv.bn = other
    x = torch.randn(2, 4, 6, 6, dtype=torch.double)
    want = results(at(model, "none"), x)
    for key, value in results(at(model, "norm"), x).items():
        torch.testing.assert_close(value, want[key])


@pytest.mark.parametrize("level", LEVELS[1:])
def test_evaluation_and_disabled_gradients_leave_no_recipes(level: Level) -> None:
    model = at(Frame(Conv(4, 4)), level)
    x = torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        assert recipe(model.train()(x)) is None
    with torch.inference_mode():
        assert recipe(model(x)) is None
    assert recipe(model.eval()(x)) is None


def test_a_stage_that_fails_in_backward_leaves_batch_norm_as_it_was() -> None:
    class Failing(nn.Module):
        armed = False

        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled() and self.armed:
                raise MemoryError("no room")
            return x * 1

    model = at(Frame(nn.Sequential(Conv(4, 4), Failing())), "stages").train()
    out = model(torch.randn(1, 4, 4, 4))
    model.block[1].armed = True
    with pytest.raises(MemoryError):
        out.sum().backward()
    assert model.block[0].bn.track_running_stats
    assert model.block[0].bn.num_batches_tracked == 1


def test_blocks_answer_in_inference_mode() -> None:
    block = nn.Sequential(Conv(8, 16, 3), Conv(16, 8, 3)).eval()
    x = torch.randn(1, 8, 8, 8)
    with torch.inference_mode():
        answer = block(x * 1)
    assert torch.allclose(answer, block(x), atol=1e-6)
