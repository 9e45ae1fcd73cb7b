"""The density of keypoint errors, learnt with a pose model: RealNVP (arXiv 1605.08803) as used for residual
log-likelihood estimation (arXiv 2107.11291), in two dimensions.

Names are the published ones; `loc` and `cov` describe the standard normal that the flow starts from.

Dimensions: N errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

COUPLINGS = 6
_HIDDEN = 64


class Flow(nn.Module):
    """Maps errors (N, 2), in units of the error to expect, to the logarithm of their density (N,) float32."""

    loc: Tensor
    cov: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(2))
        self.register_buffer("cov", torch.eye(2))
        self.register_buffer("mask", torch.tensor([[0.0, 1.0], [1.0, 0.0]] * (COUPLINGS // 2)))
        self.s = nn.ModuleList(_net(nn.Tanh) for _ in range(COUPLINGS))
        self.t = nn.ModuleList(_net() for _ in range(COUPLINGS))

    def forward(self, x: Tensor) -> Tensor:
        z, log_determinant = x.float(), x.new_zeros(len(x), dtype=torch.float32)
        for i in reversed(range(COUPLINGS)):
            mask = self.mask[i].float()
            kept = mask * z
            scale, shift = self.s[i](kept) * (1 - mask), self.t[i](kept) * (1 - mask)
            z = (1 - mask) * (z - shift) * torch.exp(-scale) + kept
            log_determinant = log_determinant - scale.sum(1)
        return -0.5 * z.square().sum(1) - math.log(2 * math.pi) + log_determinant


def _net(*last: Callable[[], nn.Module]) -> nn.Sequential:
    layers = (nn.Linear(2, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, 2))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)
    return nn.Sequential(*layers, *(make() for make in last))
