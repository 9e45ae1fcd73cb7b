"""From a name or a weight file to a model: every form of source, one function.

Sources: a model name (random weights), an official `.pt` (read without unpickling), our checkpoint `.pt`
(read with `weights_only=True`, averaged weights preferred), `.safetensors` under our names or the official
ones. What a file holds is told from its content.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from holdfast.errors import SettingsError, WeightsError
from holdfast.models.detector import Detector
from holdfast.models.exported import Exported, is_exported, open_exported
from holdfast.models.registry import build, finds_keypoints, from_header, recognise, resolve, tasks
from holdfast.weights.digest import is_intact
from holdfast.weights.official import OfficialCheckpoint, keypoint_shape, read_official
from holdfast.weights.store import OFFICIAL_FORM, read_safetensors
from holdfast.weights.transfer import (
    Transfer,
    load_official_state_dict,
    load_own_state_dict,
    official_state_dict,
)

CHECKPOINT_FORMAT = "holdfast-checkpoint"
CHECKPOINT_VERSION = 1


@dataclass(frozen=True)
class LoadedModel:
    """A model and where its weights come from.

    Attributes:
        model: the model, in training form unless the file holds a deployed one.
        transfer: what was loaded; None for random weights.
        origin: one phrase for people: "random weights" or the file and its kind.
        imgsz: input size the weights were trained at, when the file says so.
    """

    model: Detector
    transfer: Transfer | None
    origin: str
    imgsz: int | None = None


@dataclass(frozen=True)
class LoadedFile:
    """An exported file, which validates and detects and can do nothing else.

    Attributes:
        model: the network.
        origin: one phrase for people.
        imgsz: input size the file prefers, or takes only.
    """

    model: Exported
    origin: str
    imgsz: int | None


def require_task(model: Detector | Exported, task: str) -> None:
    """Raises a SettingsError where a model does another task than `task`; `detect` takes any."""
    if task not in ("detect", model.task):
        raise SettingsError(
            f"{model.name} is a model for the task '{model.task}', not '{task}'.",
            hint="Leave the task out, or name a model of it.",
        )


def load_exported(path: str | Path, *, dnn: bool = False) -> LoadedFile:
    """Opens an exported `.onnx` or `.torchscript` file.

    Args:
        dnn: run ONNX by OpenCV instead of onnxruntime.

    Raises:
        WeightsError: missing, damaged, or of a kind that is not opened.
        MissingExtraError: its runtime is not installed.
    """
    path = Path(path)
    if path.suffix.lower() == ".pt2":
        raise WeightsError(
            f"{path}: torch may unpickle parts of such a file, so it is not opened here.",
            hint="Give the .onnx or .torchscript file; torch.export.load opens this one.",
        )
    model = open_exported(path, dnn=dnn)
    facts = model.facts
    runtime = "TorchScript" if path.suffix.lower() == ".torchscript" else "OpenCV" if dnn else "onnxruntime"
    inside = f", suppression inside: {facts.suppression}" if facts.suppression else ""
    bits = " in 16 bits" if facts.half else ""
    return LoadedFile(model, f"run by {runtime} on {facts.device}{bits}{inside}", max(facts.imgsz))


def load_model(
    source: str | Path,
    *,
    classes: int | None = None,
    names: Mapping[int, str] | None = None,
    weights: str | Path | None = None,
    keypoints: tuple[int, int] | None = None,
) -> LoadedModel:
    """Builds the model that `source` names or holds.

    Args:
        source: a model name, or a `.pt` or `.safetensors` file.
        classes: class count to build for; by default that of the file, of `names`, or 80. With another count
            than the file's, what fits is transferred.
        names: class names; by default those of the file when the count agrees.
        keypoints: keypoints and numbers per keypoint to build for; counts for models that find keypoints.
        weights: a file, of which everything that fits is copied into the model that `source` names.

    Raises:
        SettingsError: `source` is neither a file nor a model name.
        WeightsError: the file is missing, damaged, unsafe or holds another kind of model.
    """
    for given in (source, weights):
        if given is not None and is_exported(given):
            raise WeightsError(
                f"{given}: an exported file only detects and validates.",
                hint="Give the weight file that it was made from.",
            )
    if weights is not None:
        giver = load_model(weights)  # with its own classes: only what it really holds is counted as moved
        named = not Path(source).is_file()
        if named and resolve(str(source)) == giver.model.name:
            return load_model(weights, classes=classes, names=names, keypoints=keypoints)
        target = load_model(source, classes=classes, names=names, keypoints=keypoints)
        model = _widened(target.model, giver.model) if named else target.model
        transfer = load_official_state_dict(model, official_state_dict(giver.model), names=giver.model.names)
        return LoadedModel(model, transfer, f"{target.origin}, filled from {giver.origin}: {transfer}")
    path = Path(source)
    if classes is None and names is not None:
        classes = len(names)
    suffix = path.suffix.lower()
    if not path.is_file():
        if suffix in (".pt", ".pth", ".safetensors", ".ckpt"):
            raise WeightsError(f"There is no weight file '{source}'.", hint=_name_hint(path))
        return _random(str(source), classes, names, keypoints)
    if suffix == ".safetensors":
        tensors, header = read_safetensors(path)
        if header and header.get("form") != OFFICIAL_FORM:
            return _from_own(path, tensors, header, classes, names, keypoints, "safetensors")
        described = _described(tensors, header)
        return _from_official(path, described, classes, names, keypoints, "official tensors")
    if suffix in (".yaml", ".yml"):
        return _random(path.name, classes, names, keypoints)
    checkpoint = read_checkpoint(path)
    if checkpoint is not None:
        if not is_intact(checkpoint):
            raise WeightsError(
                f"{path}: damaged; its content is not what was written.",
                hint="Take another checkpoint of the run, such as last.previous.pt.",
            )
        averaged = checkpoint.get("ema") is not None
        tensors = checkpoint["ema"] if averaged else checkpoint["weights"]
        kind = "checkpoint, averaged weights" if averaged else "checkpoint"
        header = {**checkpoint["model"], "imgsz": checkpoint.get("settings", {}).get("imgsz")}
        return _from_own(path, tensors, header, classes, names, keypoints, kind)
    official = read_official(path)
    kind = "official checkpoint, averaged weights" if official.source == "ema" else "official checkpoint"
    return _from_official(path, official, classes, names, keypoints, kind)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Our own checkpoint as plain data and tensors; None when the file is of another kind.

    Raises:
        WeightsError: it is ours, but incomplete or of a newer version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        zipfile.BadZipFile,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
    ):
        return None  # not ours; the restricted reader says what it is
    except OSError as fault:
        raise WeightsError(f"{path}: cannot be read ({fault}).") from fault
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        return None
    if content.get("version") != CHECKPOINT_VERSION:
        raise WeightsError(
            f"{path}: checkpoint version {content.get('version')!r}; this program reads version 1."
        )
    if not isinstance(content.get("model"), dict) or not isinstance(content.get("weights"), dict):
        raise WeightsError(f"{path}: a checkpoint without 'model' or 'weights'; the file is incomplete.")
    return content


def _random(
    name: str, classes: int | None, names: Mapping[int, str] | None, keypoints: tuple[int, int] | None
) -> LoadedModel:
    own = keypoints if finds_keypoints(name) else None
    return LoadedModel(build(name, classes or 80, names=names, keypoints=own), None, "random weights")


def _from_own(
    path: Path,
    tensors: Mapping[str, Tensor],
    header: Mapping[str, Any],
    classes: int | None,
    names: Mapping[int, str] | None,
    keypoints: tuple[int, int] | None,
    kind: str,
) -> LoadedModel:
    stored = int(header.get("classes", 80))
    stored_names = _names(header.get("names"))
    wanted = classes or stored
    if names is None and wanted == stored:
        names = stored_names
    known = header.get("keypoints")
    same = wanted == stored and (not known or not keypoints or list(keypoints) == list(known))
    shape = known and (keypoints or known)
    model = from_header({**header, "classes": wanted, "names": names, "keypoints": shape})
    transfer = load_own_state_dict(model, tensors, names=stored_names, strict=same)
    return LoadedModel(model, transfer, f"{path} ({kind}, {transfer})", _size(header.get("imgsz")))


def _from_official(
    path: Path,
    official: OfficialCheckpoint,
    classes: int | None,
    names: Mapping[int, str] | None,
    asked: tuple[int, int] | None,
    kind: str,
) -> LoadedModel:
    tensors, stored_names = official.state_dict, official.names
    try:
        layout = recognise(tensors)
    except WeightsError as fault:
        raise WeightsError(f"{path}: {fault.message}", hint=fault.hint) from None
    if stored_names is not None and sorted(stored_names) != list(range(layout.classes)):
        stored_names = None
    wanted = classes or layout.classes
    if names is None and wanted == layout.classes:
        names = stored_names
    keypoints = layout.keypoints
    if keypoints and official.keypoints and math.prod(official.keypoints) == math.prod(keypoints):
        keypoints = official.keypoints  # a deployed file's tensors leave a doubt
    keypoints = keypoints and (asked or keypoints)
    # The file's widths also for another class count, so that all but the last class layers transfer.
    model = build(
        layout.name, wanted, names=names, class_width=layout.class_width, box_groups=layout.box_groups,
        keypoints=keypoints,
    )  # fmt: skip
    if official.task not in (None, model.task):
        raise WeightsError(
            f"{path}: says that it is for the task '{official.task}', but has the tensors of {layout.name}.",
            hint=f"Tasks are {', '.join(tasks())}.",
        )
    if layout.folded:
        model = model.deploy(nms=None if layout.branch is None else layout.branch == "one_to_many")
    transfer = load_official_state_dict(model, tensors, names=stored_names)
    return LoadedModel(model, transfer, f"{path} ({kind}, {transfer})", _size(official.imgsz))


def _widened(model: Detector, giver: Detector) -> Detector:
    """The random `model`, or another one whose heads have the giver's widths, so that they can be filled."""
    widths = {key: giver.header[key] for key in ("class_width", "box_groups")}
    if giver.layout not in model.compatible or widths.items() <= model.header.items():
        return model
    return build(
        model.name, model.classes, names=model.names, keypoints=model.header.get("keypoints"), **widths
    )


def _described(tensors: dict[str, Tensor], header: Mapping[str, Any]) -> OfficialCheckpoint:
    """Official tensors of a safetensors file, with what its header says about them."""
    return OfficialCheckpoint(
        tensors, _names(header.get("names")), task=header.get("task"),
        settings={"imgsz": header.get("imgsz")},
        keypoints=keypoint_shape(header.get("keypoints")),
    )  # fmt: skip


def _names(value: Any) -> dict[int, str] | None:
    """Class names by number of a header, whose keys may be text; None for anything else."""
    if not isinstance(value, dict) or not all(str(key).isdecimal() for key in value):
        return None
    return {int(key): str(name) for key, name in value.items()} or None


def _size(value: Any) -> int | None:
    """The input size a file states, or None where that cannot be one."""
    return value if isinstance(value, int) and 32 <= value <= 8192 else None


def _name_hint(path: Path) -> str:
    try:
        return f"For random weights give the model name '{resolve(path.stem)}'."
    except SettingsError:
        return "Check the path."
