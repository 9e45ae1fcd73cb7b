"""Checkpoints of the official YOLOv9 program and of Ultralytics (pickled module objects), read without these
programs and without unpickling.

Such a file holds whole module objects. Only the tensors reachable through `_modules`, `_parameters` and
`_buffers` are used, plus plain attributes (names, class count, options). A training checkpoint holds two sets
of weights: the averaged ones (`ema`), which those programs evaluate, are preferred over the raw ones
(`model`). Files of plain tensors are read too; the same facts may lie beside them.

Anything else in the file - any other class or function, wherever it hides - refuses the file before a tensor
is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from holdfast.errors import WeightsError
from holdfast.weights.archive import StoredTensor, number_array, read_archive, read_tensors
from holdfast.weights.pickles import Global, Instance

# Where classes of model trees live. They become inert records, so a whole package may be named.
_PACKAGES = ("models", "utils", "torch.nn.modules", "ultralytics")
_MAX_MODULES = 100_000
_MAX_DEPTH = 64


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What an official file says.

    Attributes:
        state_dict: official tensor names to tensors, in the stored type (mostly float16), on the CPU.
        names: class names by index.
        classes: class count the model object states.
        task: what the model does, like "detect" or "pose", where the file says so.
        strides: pixels per cell of each level, where the file says so.
        model_name: stem of the model table it was built from, like "yolov9-s"; not checked against the
            tensors.
        epoch: last finished epoch, -1 in a finished (stripped) file.
        date: ISO time of writing.
        settings: the training options, plain data.
        source: "ema" or "model", the entry the weights come from.
        best_fitness: best validation score so far.
        updates: how often the average was updated.
        keypoints: keypoints per object and numbers per keypoint, where the file says so.
    """

    state_dict: dict[str, Tensor]
    names: dict[int, str] | None = None
    classes: int | None = None
    task: str | None = None
    strides: tuple[float, ...] | None = None
    model_name: str | None = None
    epoch: int | None = None
    date: str | None = None
    settings: dict[str, Any] | None = None
    source: str = "model"
    best_fitness: float | None = None
    updates: int | None = None
    keypoints: tuple[int, int] | None = None

    @property
    def imgsz(self) -> int | None:
        """Side of the square input of the training, where the options say so."""
        return _int((self.settings or {}).get("imgsz"))


def read_official(path: Path | str) -> OfficialCheckpoint:
    """Reads an official checkpoint, a bare pickled model, or a plain state dict of official names.

    Raises:
        WeightsError: no such file, damaged, unsafe, or without weights.
    """
    path = Path(path)
    content = read_archive(path, classes=_is_model_class)
    record = content if isinstance(content, dict) and not _is_state_dict(content) else {"model": content}
    for source in ("ema", "model", "state_dict", "model_state_dict"):
        holder = record.get(source)
        if holder is not None:
            break
    else:
        raise WeightsError(f"{path}: holds no model (no 'ema', 'model' or 'state_dict' entry).")
    tensors = _tensors(holder, path)
    if not tensors:
        raise WeightsError(f"{path}: the entry '{source}' holds no weights.")
    attributes = holder.state if isinstance(holder, Instance) and isinstance(holder.state, dict) else record
    return OfficialCheckpoint(
        state_dict=read_tensors(tensors, path),
        names=_names(attributes.get("names")),
        classes=_int(attributes.get("nc")),
        task=_text(attributes.get("task")),
        strides=_strides(attributes.get("stride"), path),
        model_name=_model_name(attributes),
        epoch=_int(record.get("epoch")),
        date=_text(record.get("date")),
        settings=_settings(record),
        source=source,
        best_fitness=_fitness(record.get("best_fitness")),
        updates=_int(record.get("updates")),
        keypoints=keypoint_shape(attributes.get("kpt_shape")),
    )


def keypoint_shape(value: Any) -> tuple[int, int] | None:
    """Keypoints per object and numbers per keypoint as a file states them; None where it does not."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(map(_int, value)):
        return None
    return value[0], value[1]


def _is_model_class(name: Global) -> bool:
    """Class-like names (no dots, first letter a capital) of packages that hold model trees.

    Training losses of Ultralytics, which its files carry along, are called `v8DetectionLoss` and the like.
    """
    inside = any(name.module == p or name.module.startswith(p + ".") for p in _PACKAGES)
    return inside and re.fullmatch(r"(v8)?[A-Z]\w*", name.name) is not None


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, StoredTensor) for v in value.values())


def _tensors(holder: Any, path: Path) -> dict[str, StoredTensor]:
    """Named tensors of a module object or of a plain state dict, in order."""
    if isinstance(holder, dict):
        return {
            key.removeprefix("module."): value
            for key, value in holder.items()
            if isinstance(key, str) and isinstance(value, StoredTensor)
        }
    walk = _Walk(path, {})
    walk.visit(holder, "")
    return walk.found


@dataclass
class _Walk:
    """One pass over a module tree. Shared children are visited again, so visits are counted, not modules."""

    path: Path
    found: dict[str, StoredTensor]
    visits: int = 0

    def visit(self, module: Any, prefix: str) -> None:
        if not isinstance(module, Instance) or not isinstance(module.state, dict):
            return
        self.visits += 1
        if prefix.count(".") > _MAX_DEPTH or self.visits > _MAX_MODULES:
            raise WeightsError(f"{self.path}: the model tree is larger than any real one. Not loaded.")
        state = module.state
        transient = state.get("_non_persistent_buffers_set") or ()
        for kind in ("_parameters", "_buffers"):
            for name, value in _children(state, kind):
                if isinstance(value, StoredTensor) and not (kind == "_buffers" and name in transient):
                    self.found[prefix + name] = value
        for name, child in _children(state, "_modules"):
            self.visit(child, f"{prefix}{name}.")


def _children(state: dict[Any, Any], kind: str) -> list[tuple[str, Any]]:
    values = state.get(kind)
    return [(str(k), v) for k, v in values.items()] if isinstance(values, dict) else []


def _names(value: Any) -> dict[int, str] | None:
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        return None
    if not all(isinstance(k, int) and isinstance(v, (str, int)) for k, v in value.items()):
        return None
    return {key: str(name) for key, name in value.items()}


def _model_name(attributes: dict[Any, Any]) -> str | None:
    file = attributes.get("yaml_file")
    if not isinstance(file, str) and isinstance(attributes.get("yaml"), dict):
        file = attributes["yaml"].get("yaml_file")
    return re.split(r"[/\\]", file)[-1].rsplit(".", 1)[0] if isinstance(file, str) else None


def _settings(record: dict[Any, Any]) -> dict[str, Any] | None:
    options = record.get("opt") or record.get("train_args")
    plain = _plain(options, _MAX_DEPTH, [100_000])
    return plain if isinstance(plain, dict) and plain else None


def _plain(value: Any, depth: int, budget: list[int]) -> Any:
    """`value` with records turned into dicts (namespaces) or their class names (anything else)."""
    budget[0] -= 1
    if depth == 0 or budget[0] < 0:
        return None
    if isinstance(value, dict):
        return {str(k): _plain(v, depth - 1, budget) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v, depth - 1, budget) for v in value]
    if isinstance(value, Instance):
        if value.kind.name in ("Namespace", "SimpleNamespace", "IterableSimpleNamespace"):
            return _plain(value.state, depth, budget)
        return str(value.kind)
    return value if value is None or isinstance(value, (str, int, float, bool)) else None


def _fitness(value: Any) -> float | None:
    numbers = number_array(value)
    if numbers and len(numbers) == 1:
        return float(numbers[0])
    return float(value) if isinstance(value, (int, float)) else None


def _strides(value: Any, path: Path) -> tuple[float, ...] | None:
    if isinstance(value, StoredTensor):
        value = read_tensors({"stride": value}, path)["stride"].flatten().tolist()
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, (int, float)) for v in value):
        return None
    return tuple(float(v) for v in value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
