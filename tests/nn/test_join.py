"""Parting and joining: the values and gradients of slices and concatenation, and dense gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from holdfast.nn.conv import Conv
from holdfast.nn.join import fork, join


def plain(x: Tensor, kept: int, block: nn.Module) -> Tensor:
    """What `forked` does, in slices and one concatenation."""
    return torch.cat((x * 1.0, block(x[:, kept:])), 1)


def forked(x: Tensor, kept: int, block: nn.Module) -> Tensor:
    whole, part = fork(x * 1.0, kept)
    return join((whole, block(part)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_slices_and_concatenation(layout: torch.memory_format) -> None:
    block = nn.Sequential(nn.Conv2d(5, 7, 3, padding=1), nn.SiLU())
    found = []
    for function in (plain, forked):
        x = torch.linspace(-1, 1, 2 * 8 * 36).view(2, 8, 6, 6).contiguous(memory_format=layout)
        x.requires_grad_()
        block.zero_grad()
        y = function(x, 3, block)
        (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        found.append((y.detach(), x.grad, *(p.grad.clone() for p in block.parameters())))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_of_the_parts_are_dense() -> None:
    parts = [torch.randn(1, c, 4, 4).to(memory_format=torch.channels_last).requires_grad_() for c in (3, 5)]
    seen: list[Tensor] = []
    for part in parts:
        part.register_hook(seen.append)
    joined = join(parts)
    joined.backward(torch.randn(1, 8, 4, 4).to(memory_format=torch.channels_last))
    assert [g.is_contiguous(memory_format=torch.channels_last) for g in seen] == [True, True]


def test_without_gradients_they_are_slices_and_concatenation_too() -> None:
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        whole, part = fork(x, 3)
        assert torch.equal(whole, x)
        assert torch.equal(part, x[:, 3:])
        assert torch.equal(join((whole, part)), torch.cat((whole, part), 1))


def test_norm_of_a_narrow_map_is_the_norm() -> None:
    torch.manual_seed(0)
    narrow = Conv(6, 8, 3).train()
    x = torch.randn(2, 6, 12, 12)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        narrow.to(memory_format=layout)
        narrow.zero_grad()
        for bn in (narrow.bn,):
            bn.reset_running_stats()
        y = narrow(x.contiguous(memory_format=layout))
        y.square().sum().backward()
        grads = [p.grad.clone() for p in narrow.parameters()]
        results.append((y.detach(), narrow.bn.running_var.clone(), *grads))
        assert y.is_contiguous(memory_format=layout)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=2e-4)
