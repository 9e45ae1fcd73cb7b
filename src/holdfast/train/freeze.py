"""Freezing of layers by official layer number or by name part; batch-norm of frozen layers stays in
evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from holdfast.errors import SettingsError


def freeze(
    model: nn.Module, parts: int | Sequence[int | str], *, layer_of: Callable[[str], int]
) -> list[str]:
    """Switches gradients off and keeps batch statistics of the frozen layers fixed in training mode.

    Args:
        parts: a number N freezes official layers 0 to N-1; a list freezes those layer numbers and names.
        layer_of: official layer number of a parameter name.

    Returns:
        Names of the frozen parameters.

    Raises:
        SettingsError: there is no such layer, a name part matches nothing, or everything would be frozen.
    """
    chosen: Sequence[int | str] = range(parts) if isinstance(parts, int) else parts
    numbers = {p for p in chosen if isinstance(p, int)}
    words = [p for p in chosen if isinstance(p, str)]
    names = [name for name, _ in model.named_parameters()]
    for word in words:
        if not any(word in name for name in names):
            stages = ", ".join(name for name, _ in model.named_children())
            raise SettingsError(
                f"freeze: no parameter name contains '{word}'.", hint=f"Stages of this model: {stages}."
            )
    last = max(map(layer_of, names))
    listed = {min(parts, 0)} if isinstance(parts, int) else numbers
    unknown = [number for number in listed if not 0 <= number <= last]
    if unknown:
        raise SettingsError(
            f"freeze: there is no layer {unknown[0]}.", hint=f"Layers of this model are 0 to {last}."
        )
    frozen = [n for n in names if layer_of(n) in numbers or any(word in n for word in words)]
    if len(frozen) == len(names):
        raise SettingsError(
            "freeze: every layer would be frozen, nothing left to train.", hint="Freeze fewer layers."
        )
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    still = set(frozen)
    for prefix, module in model.named_modules():
        own = [f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if isinstance(module, nn.BatchNorm2d) and own and still.issuperset(own):
            module.train = _stay_in_evaluation.__get__(module)  # type: ignore[method-assign]
            module.eval()
    return frozen


def _stay_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    module.training = False
    return module
