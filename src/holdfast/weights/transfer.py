"""Moves weights between published numbering and our models, and says what did not fit.

Which names belong to which tensors, a model says itself (`Detector.keymap`). A yolov9-* file can fill a
gelan-* model (its main branch), and a gelan-* file the main branch of a yolov9-* model. A deployed model is
numbered like the published list without the branches it has dropped, with folded convolutions.

Class layers have one row per class. Where two lists of class names differ but share names, rows go by name:
those of shared classes are copied, the others stay as they are. Lists that share nothing say nothing: equal
counts are copied row by row, and another count leaves the layers as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from holdfast.errors import WeightsError
from holdfast.models.detector import Detector


@dataclass(frozen=True)
class Transfer:
    """What a transfer did, counted over the model's tensors.

    Attributes:
        loaded: tensors filled, all of their rows.
        total: tensors of the model, with the constants of its heads.
        skipped: the model's tensors that kept their values.
        reasons: why, for each of `skipped`.
        unused: the file's tensors that have no place in the model.
        shared: classes whose rows were found by name; None where rows did not go by name.
        classes: classes of the model.
    """

    loaded: int
    total: int
    skipped: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    shared: int | None = None
    classes: int = 0

    def __str__(self) -> str:
        text = f"{self.loaded} of {self.total} tensors"
        if self.shared is not None:
            text += f", class rows by name for {self.shared} of {self.classes} classes"
        if self.skipped:
            shown = ", ".join(f"{name} ({self.reasons[name]})" for name in self.skipped[:2])
            more = len(self.skipped) - 2
            text += f"; kept as they were: {shown}" + (f" and {more} more" if more > 0 else "")
        return text


def load_official_state_dict(
    model: Detector,
    state_dict: Mapping[str, Tensor],
    *,
    names: Mapping[int, str] | None = None,
    strict: bool = False,
) -> Transfer:
    """Copies official tensors into `model`, in place.

    Args:
        model: unfolded for unfolded tensors, deployed for folded ones.
        state_dict: official names (`model.0.conv.weight`) to tensors of any floating type.
        names: what the classes of the tensors are called; None when unknown.
        strict: whether a single tensor of the model that stays unfilled is an error.

    Returns:
        How many of how many tensors were loaded, and the official names of the others.

    Raises:
        WeightsError: tensors of another family or size, folded against unfolded, or (strict) any misfit. The
            model is unchanged then.
    """
    source = model.recognise(state_dict)
    if source is None:
        raise WeightsError(
            f"These tensors belong to no published {model.family} model ({len(state_dict)} tensors).",
            hint="Expected official names such as 'model.0.conv.weight'.",
        )
    if source.name not in model.compatible:
        raise WeightsError(
            f"The weights are of {source.name}, but the model is {model.name}: "
            f"{_misfits(model, state_dict)}.",
            hint=f"Build '{source.name}' for these weights.",
        )
    if source.folded != model.deployed:
        raise WeightsError(
            f"The {source.name} weights are {_form(source.folded)}, "
            f"but the model is {_form(not source.folded)}.",
            hint="Folded weights need model.deploy() first; unfolded ones must be loaded before it.",
        )
    theirs, ours = model.keymap(source.name), model.keymap(model.layout)
    tensors: dict[str, Tensor] = {}
    unused: list[str] = []
    own = _named_tensors(model)
    for key, value in state_dict.items():
        try:
            name = theirs.to_ours(key)
        except KeyError:
            name = ""
        if name in own:
            tensors[name] = value
        else:
            unused.append(key)
    return _fill(model, own, tensors, names=names, rename=ours.to_official, unused=unused, strict=strict)


def official_state_dict(model: Detector) -> dict[str, Tensor]:
    """All tensors of `model` under official names, in official order, with the constants of the heads.

    The values share memory with the model. A deployed model gives the folded gelan-* layout.
    """
    names = model.keymap(model.layout)
    renamed = {names.to_official(key): value for key, value in _named_tensors(model).items()}

    prefixes = [theirs for _, theirs in names.pairs]

    def order(key: str) -> tuple[int, int]:
        place = next((i for i, prefix in enumerate(prefixes) if key.startswith(prefix)), len(prefixes))
        return int(key.split(".")[1]), place

    return {key: renamed[key] for key in sorted(renamed, key=order)}


def load_own_state_dict(
    model: Detector,
    state_dict: Mapping[str, Tensor],
    *,
    names: Mapping[int, str] | None = None,
    strict: bool = True,
) -> Transfer:
    """Copies tensors under our own names into `model`, in place; where they do not fit, as `strict` says.

    Args:
        names: what the classes of the tensors are called; None when unknown.
        strict: whether a single tensor of the model that stays unfilled is an error; class rows without a
            name in the file are none.

    Raises:
        WeightsError: nothing fits, or (strict) any misfit. The model is unchanged then.
    """
    own = dict(model.state_dict())
    tensors = {key: value for key, value in state_dict.items() if key in own}
    unused = [key for key in state_dict if key not in own]
    return _fill(model, own, tensors, names=names, rename=str, unused=unused, strict=strict)


def _fill(
    model: Detector,
    own: dict[str, Tensor],
    tensors: Mapping[str, Tensor],
    *,
    names: Mapping[int, str] | None,
    rename: Callable[[str], str],
    unused: list[str],
    strict: bool,
) -> Transfer:
    """Copies what fits of `tensors` into `own`, the model's tensors, both under our names."""
    shared = _shared(names or {}, model.names)
    class_layers = model.class_layers
    reasons: dict[str, str] = {}
    fitting: list[tuple[Tensor, Tensor]] = []
    rows: list[tuple[Tensor, Tensor]] = []
    for key, target in own.items():
        value = tensors.get(key)
        if value is None:
            reasons[rename(key)] = "not in the file"
        elif shared and key in class_layers and value.shape == (len(names or ()), *target.shape[1:]):
            rows.append((target, value))
        elif value.shape != target.shape:
            reasons[rename(key)] = f"{_shape(value)} in the file, {_shape(target)} in the model"
        elif key.endswith(".bins") and not torch.equal(value.float(), target.float()):
            reasons[rename(key)] = "not 0, 1, 2, ... in the file"
        else:
            fitting.append((target, value))
    whole = rows if len(shared) == model.classes else []
    transfer = Transfer(
        loaded=len(fitting) + len(whole),
        total=len(own),
        skipped=list(reasons),
        reasons=reasons,
        unused=unused,
        shared=len(shared) if rows else None,
        classes=model.classes,
    )
    # Counters are scalars and fit anywhere, so only weights tell whether a file belongs to a model at all.
    if not any(target.ndim > 1 for target, _ in fitting) or (strict and reasons):
        raise WeightsError(f"The weights do not fit the model: {transfer}.")
    with torch.no_grad():
        for target, value in fitting:
            target.copy_(value)
        for target, value in rows:
            target[list(shared)] = value[list(shared.values())].to(target)
    return transfer


def _shared(theirs: Mapping[int, str], ours: Mapping[int, str]) -> dict[int, int]:
    """Our class number to theirs for every name that both lists have; empty where they are the same list.

    Case does not count, and numbers that stand for missing names are no names.
    """

    def known(names: Mapping[int, str]) -> dict[str, int]:
        pairs = [(names[i].casefold(), i) for i in range(len(names)) if names.get(i, str(i)) != str(i)]
        return dict(reversed(pairs))  # of equal names the first counts

    there, here = known(theirs), known(ours)
    if there == here:
        return {}
    return {i: there[name] for name, i in here.items() if name in there}


def _named_tensors(model: Detector) -> dict[str, Tensor]:
    """The model's tensors and, under the names of the key map, the constants of its heads."""
    constants = model.keymap(model.layout).constants
    own = dict(model.state_dict())
    dtype = next(value.dtype for value in own.values())
    bins = torch.arange(model.reg_max, dtype=dtype).view(1, -1, 1, 1)
    return own | {name: bins.clone() for name in constants}


def _misfits(model: Detector, state_dict: Mapping[str, Tensor]) -> str:
    names = model.keymap(model.layout)
    misfits = []
    for key, target in model.state_dict().items():
        value = state_dict.get(names.to_official(key))
        if target.ndim == 4 and (value is None or value.shape != target.shape):
            have = "nothing" if value is None else _shape(value)
            misfits.append(f"{names.to_official(key)} needs {_shape(target)} and finds {have}")
    return "; ".join(misfits[:2]) + (f" and {len(misfits) - 2} more" if len(misfits) > 2 else "")


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "scalar"


def _form(folded: bool) -> str:
    return "folded" if folded else "unfolded"
