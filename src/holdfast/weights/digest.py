"""A digest of what a checkpoint holds. PyTorch reads its files without checking sums, so a flipped bit would
go unnoticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

KEY = "digest"


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes of everything in `content` but an entry `digest`."""
    total = hashlib.sha256()
    for path, value in _leaves({key: value for key, value in content.items() if key != KEY}, ""):
        total.update(path.encode("utf-8", "surrogatepass"))
        if isinstance(value, Tensor):
            total.update(f"{value.dtype}{tuple(value.shape)}".encode())
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            total.update(repr(value).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def is_intact(content: Mapping[str, Any]) -> bool:
    """Whether the content is what was written; contents without a digest are taken as they are."""
    return KEY not in content or content[KEY] == digest(content)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield path, f"mapping of {len(value)}"
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}/{key!r}")
    elif isinstance(value, (list, tuple)):
        yield path, f"list of {len(value)}"
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}/{number}")
    else:
        yield path, value
