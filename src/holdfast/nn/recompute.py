"""Activations made again in backward instead of being kept: less memory for some time.

Two means, both off until `Detector.recompute` switches them on, and both acting only while a training-mode
module records gradients:

- **Recipes** ("norm"). Of a convolution block only the convolution's output and the batch's mean and
  variance are kept. What follows from them - batch norm, SiLU, sums, concatenation, slices, pooling - costs
  little, so such a map carries a recipe, and who needs the map for backward keeps the recipe. A recipe that
  several ask for is followed once; its map lives until the last of them has had it.
- **Stages** ("stages"). Of a run of blocks only the input is kept. Backward runs the blocks again, with the
  same batch statistics but without touching the running ones, and goes through that graph.

A recipe belongs to one state of a tensor: a map that is overwritten afterwards counts as having none. Recipes
point from later maps to earlier ones and hold no graph, so they end with the nodes that keep them.

Dimensions: B batch, C channels, H W height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from holdfast.nn.sync_norm import SyncNorm

Level = Literal["none", "norm", "stages"]
LEVELS: tuple[str, ...] = get_args(Level)
_MARK = "_holdfast_recipe"


class Recipe:
    """How to make a map again.

    Args:
        make: maps the sources to the map; runs without gradients.
        sources: tensors, or recipes for them.
    """

    __slots__ = ("make", "sources", "users", "value", "versions")

    def __init__(self, make: Callable[..., Tensor], *sources: Tensor | Recipe) -> None:
        self.make = make
        self.sources = tuple(s if isinstance(s, Recipe) else s.detach() for s in sources)
        self.versions = self._versions()
        self.users = 0
        self.value: Tensor | None = None

    def promise(self) -> Recipe:
        """Announces one call."""
        if self.users == 0:
            for source in self.sources:
                if isinstance(source, Recipe):
                    source.promise()
        self.users += 1
        return self

    def __call__(self) -> Tensor:
        """Returns the map; it is remembered while other announced calls are to come.

        Raises:
            RuntimeError: a source has been overwritten, as autograd says it of tensors that it keeps.
        """
        value = self.value
        if value is None:
            if self.versions != self._versions():
                raise RuntimeError("A tensor from which backward makes an activation again was overwritten.")
            with torch.no_grad():
                value = self.make(*(s() if isinstance(s, Recipe) else s for s in self.sources))
        self.users -= 1
        self.value = value if self.users > 0 else None
        return value

    def _versions(self) -> list[int]:
        return [source._version for source in self.sources if isinstance(source, Tensor)]


def recipe(x: Tensor) -> Recipe | None:
    """The recipe of a map, if it has one for its present contents. Compiled models have none."""
    if torch.compiler.is_compiling() or not hasattr(x, _MARK):
        return None
    found: Recipe
    found, version = getattr(x, _MARK)
    return found if version == x._version else None


def kept(x: Tensor) -> Tensor:
    """Declares a map that is kept in any case, so that what follows from it need not be."""
    if x.requires_grad:
        setattr(x, _MARK, (Recipe(_itself, x), x._version))
    return x


def derived(x: Tensor, make: Callable[..., Tensor], *sources: Tensor) -> Tensor:
    """Declares that `make(*sources)` gives `x`; without effect unless one of the sources has a recipe.

    Args:
        x: (B, C, H, W), returned as it is.
        make: a pure function, cheap beside a convolution.
        sources: maps; one without a recipe is kept.
    """
    recipes = [recipe(source) for source in sources]
    if x.requires_grad and any(recipes):
        parts = (found or source for found, source in zip(recipes, sources, strict=True))
        setattr(x, _MARK, (Recipe(make, *parts), x._version))
    return x


def thrifty(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`function(x)` whose backward keeps the recipe of `x` instead of `x`, where there is one."""
    found = recipe(x)
    if found is None or not torch.is_grad_enabled():
        return function(x)
    with _replaced(x, found):
        return function(x)


def add_(x: Tensor, y: Tensor) -> Tensor:
    """x + y, written over `x`."""
    before = recipe(x)
    x.add_(y)
    if before is not None:
        setattr(x, _MARK, (Recipe(torch.add, before, recipe(y) or y), x._version))
    return x


def detached(x: Tensor) -> Tensor:
    """`x` without its gradient, but with its recipe."""
    out = x.detach()
    found = recipe(x)
    if found is not None:
        setattr(out, _MARK, (found, out._version))
    return out


def batch_norm(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`bn(x)` with a recipe. A batch norm of another class is called as it is, and its output kept.

    Args:
        bn: layer with affine weights and running statistics, in training or (frozen) in evaluation mode.
        x: (B, C, H, W) float, kept for backward in any case.
    """
    if isinstance(bn, SyncNorm) and bn.training:
        out = bn(x)
        assert bn.found is not None
        mean, variance, _ = bn.found
        return _made_by_norm(bn, x, out, mean, variance)
    if type(bn) not in (nn.BatchNorm2d, SyncNorm):
        return kept(bn(x))
    update = bn.training and bn.track_running_stats
    if update and bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
    running = (bn.running_mean, bn.running_var) if update or not bn.training else (None, None)
    assert bn.momentum is not None
    out, mean, inverse = torch.native_batch_norm(
        x, bn.weight, bn.bias, *running, bn.training, bn.momentum, bn.eps
    )
    if not out.requires_grad:
        return out
    variance = inverse.pow(-2).sub_(bn.eps)
    if not bn.training:
        assert bn.running_mean is not None
        assert bn.running_var is not None
        mean, variance = bn.running_mean, bn.running_var
    return _made_by_norm(bn, x, out, mean, variance)


def _made_by_norm(bn: nn.BatchNorm2d, x: Tensor, out: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Returns `out` with its recipe."""
    if out.requires_grad:
        again = partial(_normalised, eps=bn.eps)
        setattr(out, _MARK, (Recipe(again, x, bn.weight, bn.bias, mean, variance), out._version))
    return out


def _normalised(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, eps: float
) -> Tensor:
    return torch.native_batch_norm(x, weight, bias, mean, variance, False, 0.0, eps)[0]


class Recomputing(nn.Module):
    """A module that acts on the level of recomputation.

    Attributes:
        level: set by `Detector.recompute`; not part of the state.
    """

    level: Level = "none"

    def recomputes(self, level: Level) -> bool:
        """Whether this level or a higher one is on, and gradients are being recorded in training mode."""
        return LEVELS.index(self.level) >= LEVELS.index(level) and self.training and torch.is_grad_enabled()

    def stage(self, x: Tensor, *blocks: nn.Module) -> Tensor:
        """Runs blocks one after another; at "stages", of all of it only `x` is kept.

        Args:
            x: (B, C, H, W).
            blocks: modules that map one map to one map and draw no random numbers.
        """
        if not self.recomputes("stages"):
            return _run(blocks, x)
        parameters = [p for block in blocks for p in block.parameters()]
        out: Tensor = thrifty(lambda x: _Stage.apply(blocks, x, *parameters), x)  # type: ignore[no-untyped-call]
        return kept(out)


class _Stage(Function):
    """Blocks as one node. Parameters are arguments, so that their gradients leave by the common way."""

    @staticmethod
    def forward(ctx: Any, blocks: Sequence[nn.Module], x: Tensor, *parameters: Tensor) -> Tensor:
        device = x.device.type
        ctx.blocks = blocks
        ctx.autocast = {
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }
        ctx.save_for_backward(x)
        # The cache would hand weights that were cast without gradients to whoever uses them next.
        with torch.autocast(device, **ctx.autocast, cache_enabled=False):
            return _run(blocks, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        _, *needed = ctx.needs_input_grad
        x = x.detach().requires_grad_(needed[0])
        leaves = [x, *(p for block in ctx.blocks for p in block.parameters())]
        with torch.enable_grad(), torch.autocast(x.device.type, **ctx.autocast), _statistics_kept(ctx.blocks):
            out = _run(ctx.blocks, x)
        wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
        found = iter(torch.autograd.grad(out, wanted, grad))
        return None, *(next(found) if need else None for need in needed)


@contextmanager
def _statistics_kept(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Leaves running statistics and counters of batch norm as they are; batches are normalised as before."""
    modules = (module for block in blocks for module in block.modules())
    norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _run(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def _replaced(x: Tensor, found: Recipe) -> saved_tensors_hooks:
    """While entered, a recipe is kept in the place of `x`. Nodes keep the hooks, which must not hold `x`."""
    wanted = id(x)

    def pack(saved: Tensor) -> Tensor | Recipe:
        return found.promise() if id(saved) == wanted else saved

    return saved_tensors_hooks(pack, _unpacked)


def _unpacked(saved: Tensor | Recipe) -> Tensor:
    return saved() if isinstance(saved, Recipe) else saved


def _itself(x: Tensor) -> Tensor:
    return x
