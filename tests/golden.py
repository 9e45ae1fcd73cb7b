"""The rule that rebuilds the weights and images of the golden numbers (shared/fixtures/yolov9/README.md)."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch


def rng(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode("utf-8"))))


def weight(key: str, shape: tuple[int, ...], prefix: str = "") -> torch.Tensor:
    if key.endswith(".num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if re.search(r"\.dfl2?\.conv\.weight$", key):
        return torch.arange(16, dtype=torch.float32).view(shape)
    n = rng(prefix + key).standard_normal(shape)
    if key.endswith(".bn.weight"):
        v = 1 + 0.1 * n
    elif key.endswith(".bn.bias"):
        v = 1 + 0.3 * n
    elif key.endswith(".running_mean"):
        v = 0.1 * n
    elif key.endswith(".running_var"):
        v = 1 + 0.1 * abs(n)
    elif len(shape) == 4:
        gain = 0.6 if ".m." in key else 1.2 if key.endswith(".conv.weight") else 0.8
        v = gain * n / np.sqrt(np.prod(shape[1:]))
    elif re.search(r"\.cv[24]\.\d\.2\.bias$", key):
        v = 0.5 * n - 0.3 * (np.arange(len(n)) % 16)
    elif re.search(r"\.cv[35]\.\d\.2\.bias$", key):
        v = 0.5 * n - 4
    else:
        v = 0.5 * n
    return torch.from_numpy(v.astype(np.float32))


def image(batch: int, height: int, width: int) -> torch.Tensor:
    r = rng(f"image/{batch}x3x{height}x{width}")
    coarse = r.random((batch, 3, height // 16, width // 16)).repeat(16, 2).repeat(16, 3)
    fine = r.random((batch, 3, height, width))
    return torch.from_numpy((0.7 * coarse + 0.3 * fine).astype(np.float32))


def official_weights(folder: Path, model: str) -> dict[str, torch.Tensor]:
    """The whole official state dict of a fixture model, in the order of its keys file."""
    keys = json.loads((folder / f"{model}.keys.json").read_text())
    return {key: weight(key, tuple(shape)) for key, shape, _ in keys}
