"""`holdfast convert`: a weight file in another form, and how each form is written.

Two ways to name tensors, two containers. Under our names a file says itself which model it holds: the header
of a safetensors file, or a checkpoint without anything to resume from. Under official names the tensors tell
the model; class names and the like lie beside them, as plain data.
"""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from holdfast.downloads import weights_folder
from holdfast.errors import SettingsError, WeightsError
from holdfast.load import load_model
from holdfast.models.detector import Detector
from holdfast.runs import write_atomic
from holdfast.settings import ConvertSettings
from holdfast.train.checkpoint import weights_snapshot, write
from holdfast.weights.release import locate
from holdfast.weights.store import OFFICIAL_FORM, safetensors_bytes
from holdfast.weights.transfer import official_state_dict

SUFFIXES = (".safetensors", ".pt")

Form = Literal["holdfast", "official"]


def run_convert(settings: ConvertSettings, *, say: Callable[[str], None] = print) -> Path:
    """Runs `holdfast convert`, and returns the file.

    Args:
        settings: what to read and how to write it.
        say: where the line about the outcome goes.

    Raises:
        SettingsError: a target that cannot be, or is there already.
        WeightsError: a source that cannot be read, or a target that cannot be written.
    """
    settings.require("source", "target")
    source, target = Path(locate(settings.source, weights_folder())), Path(settings.target)
    _check(source, target, exist_ok=settings.exist_ok)
    if settings.nms is not None and not settings.deploy:
        raise SettingsError(
            f"nms={settings.nms} chooses the branch that a deployed model keeps, and this one keeps all.",
            hint="Add --deploy, or leave nms out.",
        )
    loaded = load_model(source)
    if loaded.transfer is None:
        raise SettingsError(f"convert needs a weight file, but '{source}' is the name of a model.")
    model = loaded.model.deploy(nms=settings.nms) if settings.deploy else loaded.model
    write_model(target, model, form=settings.form, half=settings.half, imgsz=loaded.imgsz)
    form = "deployed" if model.deployed else "training form"
    names = "official names" if settings.form == "official" else "our names"
    bits = 16 if settings.half else 32
    size = target.stat().st_size
    say(f"{target}: {model.name}, {form}, {names}, {bits} bits, {size:,} bytes, from {loaded.origin}")
    return target


def write_model(
    path: Path, model: Detector, *, form: Form = "holdfast", half: bool = False, imgsz: int | None = None
) -> Path:
    """Writes a model so that `load_model` reads it, and returns the path. Atomic: never a part of a file.

    Args:
        path: the file; its suffix chooses the container.
        model: what to write; it stays as it is.
        form: whose tensor names.
        half: store floating-point numbers in 16 bits.
        imgsz: input size the weights were trained at, if known.

    Raises:
        SettingsError: another suffix.
        WeightsError: the file cannot be written, or the numbers do not fit into 16 bits.
    """
    _check_suffix(path)
    stored = _halved(model, path) if half else model
    size = {} if imgsz is None else {"imgsz": imgsz}
    try:
        if form == "official":
            write_atomic(path, _official(path, stored, size))
        elif path.suffix == ".safetensors":
            write_atomic(path, safetensors_bytes(stored.state_dict(), {**stored.header, **size}))
        else:
            write(path, weights_snapshot(stored, settings=size, facts={}), keep_previous=False)
    except OSError as fault:
        raise WeightsError(
            f"{path}: cannot be written ({fault.strerror}).", hint="Choose a folder you may write to."
        ) from fault
    return path


def _official(path: Path, model: Detector, size: dict[str, int]) -> bytes:
    """The content of a file under official names; of a .pt file plain data that any `torch.load` accepts."""
    tensors = {key: value.detach().cpu() for key, value in official_state_dict(model).items()}
    facts: dict[str, Any] = {"task": model.task, "nc": model.classes, "names": model.names}
    if path.suffix == ".safetensors":
        return safetensors_bytes(tensors, {"form": OFFICIAL_FORM, "name": model.layout, **facts, **size})
    content = {"epoch": -1, "model": tensors, **facts, "stride": list(model.strides)}
    content |= {"yaml_file": f"{model.layout}.yaml", "train_args": size}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _halved(model: Detector, path: Path) -> Detector:
    stored = copy.deepcopy(model).half()
    for name, value in stored.state_dict().items():
        if not value.isfinite().all():
            raise WeightsError(
                f"{path}: not written, because 16 bits cannot hold the numbers of '{name}'.",
                hint="Leave out --half.",
            )
    return stored


def _check(source: Path, target: Path, *, exist_ok: bool) -> None:
    """Refuses what would fail or do harm, before anything is read.

    Raises:
        SettingsError: says which path is wrong and what to do.
    """
    _check_suffix(target)
    if not target.parent.is_dir():
        raise SettingsError(f"There is no folder '{target.parent}' to write {target.name} into.")
    if not target.exists():
        return
    if source.exists() and os.path.samefile(source, target):
        raise SettingsError(f"source and target are the same file, {target}.", hint="Choose another target.")
    if target.is_dir():
        raise SettingsError(f"{target} is a folder.", hint="Choose another target.")
    if not exist_ok:
        raise SettingsError(
            f"{target} is there already.", hint="Add --exist-ok to replace it, or choose another target."
        )


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise SettingsError(
            f"'{path}' must end in {' or '.join(SUFFIXES)}, which chooses how it is written."
        )
