"""Checkpoints: everything a run needs to go on, in one file that loads with `weights_only=True`.

Made in two steps: `snapshot` copies the state to the CPU between two steps, `write` puts it on disk, which
can happen in the background (saver.py). A file is written under another name, fsynced, and renamed, and holds
a digest of its content; so a kill or a full disk leaves the old file whole, and a damaged one is recognised.
The file before the newest stays as `<name>.previous`, and is read when the newest is damaged.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.errors import WeightsError
from holdfast.load import CHECKPOINT_FORMAT, CHECKPOINT_VERSION
from holdfast.load import read_checkpoint as read_own
from holdfast.runs import replacing
from holdfast.train.ema import Ema
from holdfast.weights.digest import KEY, digest, is_intact


@dataclass
class Progress:
    """Where a run stands, after whole steps.

    Attributes:
        epoch: epochs completed, validation included.
        batch: steps done of the epoch under way; all of them while its validation is still to come.
        step: optimizer steps done.
        best_fitness: highest fitness so far, -1 before the first validation.
        best_epoch: epoch (from 0) of the highest fitness, -1 before the first validation.
        seconds: time spent in earlier parts of the run.
        quality: from 0 to 1 per class, how well the last validation found it; empty before the first.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_fitness: float = -1.0
    best_epoch: int = -1
    seconds: float = 0.0
    quality: tuple[float, ...] = ()


def snapshot(
    *,
    model: nn.Module,
    ema: Ema | None,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler | None,
    progress: Progress,
    items: Tensor,
    step: Mapping[str, Any],
    rescue: Mapping[str, Any],
) -> dict[str, Any]:
    """Copies the full state of a run to the CPU; training may go on while the copy is written, together with
    `rows` of results.csv, `settings` and `facts` (decisions, data fingerprint), which are plain data.

    Args:
        items: (n, T) losses of the steps done in the epoch under way.
        step: what the next step must know of those before it (`Stepper.state`).
        rescue: what failed steps have led to (`Rescue.state`).
    """
    content = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "model": model.header,
        "weights": model.state_dict(),
        "ema": None if ema is None else ema.state_dict(),
        "ema_updates": 0 if ema is None else ema.updates,
        "optimizer": optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "progress": asdict(progress),
        "items": items,
        "step": dict(step),
        "rescue": dict(rescue),
    }
    copied: dict[str, Any] = _copied(content)
    return copied


def weights_snapshot(
    model: nn.Module, *, settings: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Copies a model's weights only (best.pt): half the size of last.pt or less, not for resuming."""
    content = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "model": model.header,
        "weights": model.state_dict(),
        "ema": None,
        "progress": None,
        "settings": dict(settings),
        "facts": dict(facts),
    }
    copied: dict[str, Any] = _copied(content)
    return copied


def _copied(value: Any) -> Any:
    """The same structure with every tensor copied to the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(inner) for inner in value)
    return value


def write(path: Path, content: dict[str, Any], *, keep_previous: bool) -> None:
    """Writes a snapshot; what stood there stays as `<name>.previous` if asked for.

    Raises:
        OSError: the file cannot be written; what stood there is untouched.
    """
    content[KEY] = digest(content)
    with replacing(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # closing its archive, torch covers the error of the file up
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        if keep_previous and path.exists():
            previous = path.with_suffix(".previous.pt")
            previous.unlink(missing_ok=True)
            try:
                os.link(path, previous)
            except OSError:  # file systems without hard links
                shutil.copyfile(path, previous)


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Path]:
    """Reads a full checkpoint without executing anything from it; falls back to the previous file when it
    is damaged or gone.

    Returns:
        The content, and the file it was read from.

    Raises:
        WeightsError: the file is missing, damaged, from another program, or holds weights only.
    """
    previous = path.with_suffix(".previous.pt")
    if not path.is_file() and not previous.is_file():
        raise WeightsError(
            f"{path}: there is no such checkpoint.", hint="Give the path of a run's weights/last.pt."
        )
    content = _intact(path) if path.is_file() else None
    if content is None:
        if previous.is_file():
            return read_checkpoint(previous)
        raise WeightsError(
            f"{path}: damaged, or not a Holdfast checkpoint, so it cannot be resumed.",
            hint="Start from it with --weights instead.",
        )
    if content.get("progress") is None:
        raise WeightsError(
            f"{path}: holds weights only, so it cannot be resumed.", hint="Resume from last.pt beside it."
        )
    if not all(isinstance(content.get(key), dict) for key in ("progress", "settings", "facts")):
        raise WeightsError(
            f"{path}: a checkpoint without settings or facts of its run, so it cannot be resumed.",
            hint="Start from it with --weights instead.",
        )
    return content, path


def _intact(path: Path) -> dict[str, Any] | None:
    """A checkpoint's content; None when it is damaged or not one of ours."""
    try:
        content = read_own(path)
    except WeightsError:  # a flipped bit may look like anything, a newer version too
        if path.with_suffix(".previous.pt").is_file():
            return None
        raise
    return content if content is not None and is_intact(content) else None


def restore(
    content: Mapping[str, Any],
    *,
    model: nn.Module,
    ema: Ema | None,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler | None,
) -> Progress:
    """Puts a checkpoint's state back into the parts of a run and returns where it stood."""
    model.load_state_dict(content["weights"])
    if ema is not None and content["ema"] is not None:
        ema.load_state_dict(content["ema"], updates=content["ema_updates"])
    optimizer.load_state_dict(content["optimizer"])
    if scaler is not None and content["scaler"]:
        scaler.load_state_dict(content["scaler"])
    return Progress(**content["progress"])
