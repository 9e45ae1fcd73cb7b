"""Builds weight files by hand: both containers around a given pickle, and small module trees as pickles."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

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


@contextmanager
def foreign_classes(**homes: tuple[str, type]) -> Iterator[dict[str, type]]:
    """Classes that pickle as if they lived elsewhere: name -> (module, base class)."""
    made, stems = {}, set()
    try:
        for name, (home, base) in homes.items():
            made[name] = type(name, (base,), {"__module__": home})
            for depth in range(1, home.count(".") + 2):
                stem = ".".join(home.split(".")[:depth])
                if stem not in sys.modules:
                    sys.modules[stem] = ModuleType(stem)
                    stems.add(stem)
            setattr(sys.modules[home], name, made[name])
        yield made
    finally:
        for stem in stems:
            del sys.modules[stem]


def training_checkpoint(*, task: str = "detect", imgsz: int = 96, fused: bool = False) -> bytes:
    """What Ultralytics writes in the middle of a run: the averaged model in half precision, with all it drags
    along (losses, namespaces, an assigner, NumPy numbers, a device), and an optimizer's state.
    """
    homes: dict[str, tuple[str, type]] = {
        "DetectionModel": ("ultralytics.nn.tasks", nn.Module),
        "v8DetectionLoss": ("ultralytics.utils.loss", object),
        "E2ELoss": ("ultralytics.utils.loss", object),
        "TaskAlignedAssigner": ("ultralytics.utils.tal", nn.Module),
        "IterableSimpleNamespace": ("ultralytics.utils", object),
    }
    with foreign_classes(**homes) as kinds:
        loss = kinds["v8DetectionLoss"]()
        loss.assigner = kinds["TaskAlignedAssigner"]()
        loss.assigner.weight = nn.Parameter(torch.ones(3))
        loss.bce, loss.device, loss.stride = nn.BCEWithLogitsLoss(), torch.device("cpu"), torch.ones(3)
        loss.hyp = kinds["IterableSimpleNamespace"]()
        loss.hyp.box = 7.5
        model = kinds["DetectionModel"]()
        model.model = nn.Sequential(nn.Conv2d(3, 4, 1))
        model.names, model.nc, model.task = {0: "a", 1: "b"}, 2, task
        model.stride, model.yaml = torch.tensor([8.0, 16.0, 32.0]), {"yaml_file": "yolo26n.yaml", "nc": 2}
        model.criterion, model.args = kinds["E2ELoss"](), loss.hyp
        model.criterion.one2many = model.criterion.one2one = loss
        if fused:  # a forward replaced by another method of the same object
            model.forward = model.half
        optimizer = torch.optim.AdamW(model.parameters())
        record = {
            "epoch": 4, "best_fitness": torch.ones(1).numpy()[0], "stopper": {"best_epoch": 3}, "model": None,
            "ema": model.half(), "updates": 9, "optimizer": optimizer.state_dict(), "scaler": {"scale": 1.0},
            "train_args": {"imgsz": imgsz, "task": task}, "train_metrics": {"fitness": 0.5},
            "date": "2026-01-01T00:00:00", "version": "8.4", "git": {"root": None},
        }  # fmt: skip
        out = io.BytesIO()
        torch.save(record, out)
    return out.getvalue()
