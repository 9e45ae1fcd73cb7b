"""Blocks against their plain definitions: folding, pooling arithmetic, bridges."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from holdfast.nn.bridge import CBLinear, cb_fuse
from holdfast.nn.conv import Conv, RepConvN
from holdfast.nn.csp import RepNCSP
from holdfast.nn.elan import ELAN1, RepNCSPELAN4
from holdfast.nn.fuse import fold
from holdfast.nn.pool import SPPELAN, AConv, ADown

BLOCKS = {
    "conv": lambda: Conv(8, 12, 3, 2),
    "grouped conv": lambda: Conv(8, 8, 3, groups=4),
    "rep": lambda: RepConvN(8, 8),
    "csp": lambda: RepNCSP(8, 12, depth=2),
    "elan1": lambda: ELAN1(8, 12, split=8, branch=6),
    "elan4": lambda: RepNCSPELAN4(8, 12, split=8, branch=6, depth=2),
    "aconv": lambda: AConv(8, 12),
    "adown": lambda: ADown(8, 12),
    "spp": lambda: SPPELAN(8, 12, split=4),
}


def stirred(block: nn.Module) -> nn.Module:
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return block


@pytest.mark.parametrize("name", BLOCKS)
def test_folding_keeps_the_answer(name: str) -> None:
    block = nn.Sequential(stirred(BLOCKS[name]())).eval()
    x = torch.randn(2, 8, 12, 10)
    with torch.no_grad():
        want = block(x)
        fold(block)
        got = block(x)
    assert not any(isinstance(m, (nn.BatchNorm2d, RepConvN)) for m in block.modules())
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_gradient_is_that_of_finite_differences(name: str) -> None:
    # Catches sums written in place over something that backward still needs.
    block = stirred(BLOCKS[name]()).double().eval()
    x = torch.randn(1, 8, 6, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,), fast_mode=True)


@pytest.mark.parametrize("name", BLOCKS)
def test_input_is_left_alone(name: str) -> None:
    block = BLOCKS[name]().eval()
    x = torch.randn(1, 8, 8, 8)
    before = x.clone()
    with torch.no_grad():
        block(x)
    assert torch.equal(x, before)


def test_batch_norm_has_the_published_constants() -> None:
    bn = Conv(3, 4).bn
    assert bn is not None
    assert (bn.eps, bn.momentum) == (1e-3, 0.03)


def test_rep_conv_is_the_sum_of_both_branches() -> None:
    block = stirred(RepConvN(4, 6)).eval()
    x = torch.randn(1, 4, 5, 5)
    want = F.silu(
        block.conv1.bn(F.conv2d(x, block.conv1.conv.weight, padding=1))
        + block.conv2.bn(F.conv2d(x, block.conv2.conv.weight))
    )
    torch.testing.assert_close(block(x), want)


def test_even_sizes_halve() -> None:
    for block in (AConv(8, 8), ADown(8, 8)):
        assert block(torch.zeros(2, 8, 6, 10)).shape[2:] == (3, 5)


def test_bridge_equals_resizing_every_offer_to_the_target() -> None:
    x = torch.randn(1, 2, 8, 8)
    offers = [torch.randn(1, 2, s, s) for s in (8, 4, 2)]
    want = x + sum(F.interpolate(o, size=(8, 8), mode="nearest") for o in offers)
    kept = [o.clone() for o in offers]
    torch.testing.assert_close(cb_fuse(x.clone(), offers), want)
    assert all(torch.equal(a, b) for a, b in zip(offers, kept, strict=True))
    torch.testing.assert_close(cb_fuse(x.clone(), offers[1:]), x + want - x - offers[0])
    assert torch.equal(cb_fuse(x.clone(), []), x)


def test_linear_bridge_cuts_its_output() -> None:
    parts = CBLinear(4, (2, 3))(torch.randn(1, 4, 5, 5))
    assert [p.shape[1] for p in parts] == [2, 3]
