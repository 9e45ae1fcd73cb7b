"""Builds weight files by hand: both containers around a given pickle, and small module trees as pickles."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

LEGACY_HEAD = b"".join(
    pickle.dumps(part, protocol=2)
    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
)


def write_zip(path: Path, payload: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("x/data.pkl", payload)
        archive.writestr("x/version", "3\n")
        for key, data in (storages or {}).items():
            archive.writestr(f"x/data/{key}", data)
    return path


def write_legacy(path: Path, payload: bytes) -> Path:
    path.write_bytes(LEGACY_HEAD + payload + pickle.dumps([], protocol=2))
    return path


def module_checkpoint(*, legacy: bool = False) -> bytes:
    """A checkpoint around a real pickled module tree, of classes under names that the reader knows."""
    tree = torch.nn.Sequential(OrderedDict(model=torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1))))
    tree.names = ["a", "b"]
    tree.nc = 2
    out = io.BytesIO()
    record = {"epoch": 7, "model": tree.half(), "ema": None, "updates": None, "date": "2024-01-01"}
    record["opt"] = {"lr0": 0.01}
    torch.save(record, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()
