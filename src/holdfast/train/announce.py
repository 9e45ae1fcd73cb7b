"""What was decided and on what a run stands: plain data for the manifest and the checkpoints, and the lines
at the start of a run.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from holdfast import __version__
from holdfast.data.index import Index
from holdfast.data.splits import spreads
from holdfast.load import LoadedModel
from holdfast.train.checkpoint import Progress
from holdfast.train.plan import MemoryPlan


def run_facts(
    loaded: LoadedModel,
    train_index: Index,
    val_index: Index,
    *,
    device: str,
    precision: str,
    compiled: str,
    optimizer: str,
    batch: int,
    asked_batch: int,
    imgsz: int,
    asked_imgsz: int,
    fraction: float,
    cache: Sequence[str],
    augmentation: Sequence[str],
    plan: MemoryPlan,
    ranks: int,
    cores: int,
) -> dict[str, Any]:
    """Collects the facts of a run.

    Args:
        loaded: the model and where its weights come from.
        train_index, val_index: the images.
        device, precision, optimizer: what was chosen, a sentence each.
        batch: images per step; `asked_batch` before it was cut to the data set.
        imgsz: input size; `asked_imgsz` before it was rounded to the model's stride.
        fraction: share of the training images that is used.
        compiled: whether the model is compiled, a sentence; empty where nobody asked.
        cache: what is kept of decoded images, a sentence per split.
        augmentation: a sentence for each augmentation that cannot act.
        plan: how a step fits into memory.
        ranks: processes that share a step.
        cores: cores of this process.
    """
    model = loaded.model
    return {
        "holdfast": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "platform": platform.platform(),
        "command": " ".join(sys.argv),
        "model": model.name,
        "origin": loaded.origin,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable_tensors": sum(p.requires_grad for p in model.parameters()),
        "classes": dict(model.names),
        "device": device,
        "precision": precision,
        "compiled": compiled,
        "batch": batch,
        "asked_batch": asked_batch,
        "imgsz": imgsz,
        "asked_imgsz": asked_imgsz,
        "stride": max(model.strides),
        "optimizer": optimizer,
        "fraction": fraction,
        "cores": cores,
        "object_side": object_side(train_index, imgsz),
        "train_images": len(train_index),
        "val_images": len(val_index),
        "train_fingerprint": train_index.fingerprint,
        "val_fingerprint": val_index.fingerprint,
        "train_problems": [*train_index.notes, *train_index.problems.lines()],
        "val_problems": [*val_index.notes, *val_index.problems.lines()],
        "keypoints": spreads(train_index.sigmas),
        "cache": list(cache),
        "augmentation": list(augmentation),
        "ranks": ranks,
        "plan": {**plan.as_dict(), "lines": plan.lines()},
    }


def object_side(index: Index, imgsz: int) -> float | None:
    """Median side of an object, the root of its area, in pixels of an input of side `imgsz`; None without
    objects.
    """
    if not len(index.boxes):
        return None
    images = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    sizes = index.sizes[images].astype(np.float64)  # (M, 2) height, width
    areas = index.boxes[:, 2] * index.boxes[:, 3] * sizes.prod(1) * (imgsz / sizes.max(1)) ** 2
    return float(np.sqrt(np.median(areas)))


def announcement(facts: Mapping[str, Any], folder: Path, progress: Progress) -> list[str]:
    """The lines at the start of a run."""
    lines = [
        f"Holdfast {facts['holdfast']}, torch {facts['torch']}, Python {facts['python']}",
        f"  model      {facts['model']}, {facts['parameters']:,} parameters, {facts['origin']}",
        f"  data       {facts['train_images']} train, {facts['val_images']} val images, "
        f"{len(facts['classes'])} classes"
        + (f" (fraction {facts['fraction']:g} of the training images)" if facts["fraction"] < 1 else ""),
        f"  device     {facts['device']}",
        f"  precision  {facts['precision']}",
        f"  batch      {facts['batch']} images per optimizer step"
        + (" (the whole training set)" if facts["batch"] < facts["asked_batch"] else ""),
        *(f"  {'' if i else 'plan':<10} {line}" for i, line in enumerate(facts["plan"]["lines"])),
        f"  optimizer  {facts['optimizer']}",
        f"  run        {folder}",
    ]
    if facts["compiled"]:
        lines.insert(5, f"  compile    {facts['compiled']}")
    if facts["keypoints"]:
        lines.append(f"  keypoints  {facts['keypoints']}")
    lines += [f"  cache      {line}" for line in facts["cache"]]
    if facts.get("workers"):
        lines.append(f"  workers    {facts['workers']}")
    if facts.get("batch_norm"):
        lines.append(f"  batch-norm {facts['batch_norm']}")
    if facts["imgsz"] != facts["asked_imgsz"]:
        lines.append(
            f"  imgsz      {facts['imgsz']} (asked {facts['asked_imgsz']}; this model takes multiples of "
            f"{facts['stride']} from 64 up)"
        )
    lines += [f"  augment    {line}" for line in facts["augmentation"]]
    lines += [f"  train: {line}" for line in facts["train_problems"]]
    lines += [f"  val: {line}" for line in facts["val_problems"]]
    if progress.step:
        within = f" and {progress.batch} steps of the next" if progress.batch else ""
        lines.append(f"  resumed after epoch {progress.epoch}{within}, step {progress.step}")
    return lines
