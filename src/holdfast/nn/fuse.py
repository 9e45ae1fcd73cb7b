"""Folding for deployment: batch norm into convolutions, and the two kernels of RepConvN into one.

Works in place on a module tree in evaluation use; fold a copy when the original must go on training.
Arithmetic is float64, so a folded model answers like the unfolded one to float32 rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from holdfast.nn.conv import Conv, RepConvN


def fold(module: nn.Module) -> None:
    """Replaces every Conv and RepConvN below `module` by its folded form, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, RepConvN):
            setattr(module, name, _folded_rep(child))
        elif isinstance(child, Conv):
            _fold_conv(child)
        else:
            fold(child)


@torch.no_grad()
def _kernel_and_bias(block: Conv) -> tuple[Tensor, Tensor]:
    """Weight (O, I, k, k) and bias (O,) of the convolution equal to conv and batch norm, float64."""
    weight = block.conv.weight.double()
    bn = block.bn
    if bn is None:
        bias = block.conv.bias
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.double()
    assert bn.running_mean is not None
    assert bn.running_var is not None
    gain = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    return weight * gain[:, None, None, None], bn.bias.double() - bn.running_mean.double() * gain


@torch.no_grad()
def _with_bias(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution like `conv` with the given weight and bias, in `conv`'s dtype and on its device."""
    with torch.device("meta"):  # draws nothing from the random generator
        out = nn.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,  # type: ignore[arg-type]
            groups=conv.groups,
        )  # fmt: skip
    out.weight = nn.Parameter(weight.to(conv.weight.dtype))
    out.bias = nn.Parameter(bias.to(conv.weight.dtype))
    return out.requires_grad_(conv.weight.requires_grad)


def _fold_conv(block: Conv) -> None:
    if block.bn is not None:
        block.conv = _with_bias(block.conv, *_kernel_and_bias(block))
        block.bn = None


def _folded_rep(block: RepConvN) -> Conv:
    weight, bias = _kernel_and_bias(block.conv1)
    point, point_bias = _kernel_and_bias(block.conv2)
    weight[:, :, 1:2, 1:2] += point  # a 1x1 kernel is a 3x3 kernel with zeros around it
    conv = block.conv1.conv
    with torch.device("meta"):
        out = Conv(conv.in_channels, conv.out_channels, 3)
    out.conv = _with_bias(conv, weight, bias + point_bias)
    out.bn = None
    return out.train(block.training)
