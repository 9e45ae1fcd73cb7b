"""A result handed from one process to another as plain data: numbers, texts and tensors, no pickled objects.

Objects of this package travel as the name of their class and what they hold; nothing but these classes is
named in a file, and reading one calls nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.runs import replacing

_PACKAGE = __name__.partition(".")[0] + "."


def hand_over(path: Path, result: object) -> None:
    """Writes a result, whole or not at all.

    Args:
        path: the file.
        result: objects of this package, containers, arrays, tensors, paths and plain values.

    Raises:
        TypeError: it holds something else.
    """
    with replacing(path) as file:
        torch.save(_plain(result), file)


def take_over(path: Path) -> Any:
    """Returns what `hand_over` wrote."""
    return _whole(torch.load(path, map_location="cpu", weights_only=True))


def _plain(value: Any) -> Any:
    """Containers and objects become lists that begin with what they are."""
    if isinstance(value, np.generic):  # first, because a float64 is a float too
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, np.ndarray):
        return ["array", torch.from_numpy(np.array(value))]
    if isinstance(value, Path):
        return ["path", str(value)]
    if type(value) in (list, tuple):
        return [type(value).__name__, *map(_plain, value)]
    if isinstance(value, Mapping):
        return ["dict", *([_plain(key), _plain(held)] for key, held in value.items())]
    kind = type(value)
    named = isinstance(value, tuple)
    if not kind.__module__.startswith(_PACKAGE) or not (named or hasattr(value, "__dict__")):
        raise TypeError(f"a {kind.__module__}.{kind.__qualname__} cannot be handed to another process")
    state = _plain(tuple(value) if named else vars(value))
    return ["named" if named else "object", kind.__module__, kind.__qualname__, state]


def _whole(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    what, *held = value
    if what == "array":
        return held[0].numpy()
    if what == "path":
        return Path(held[0])
    if what == "list":
        return [_whole(item) for item in held]
    if what == "tuple":
        return tuple(_whole(item) for item in held)
    if what == "dict":
        return {_whole(key): _whole(item) for key, item in held}
    module, name, state = held
    if not module.startswith(_PACKAGE):
        raise ValueError(f"{module}.{name} is no class of this package")
    kind = getattr(importlib.import_module(module), name)
    if what == "named":
        return tuple.__new__(kind, _whole(state))
    made = kind.__new__(kind)
    vars(made).update(_whole(state))
    return made
