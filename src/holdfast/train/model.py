"""The model that a training starts from, on its device, frozen and compiled as asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from holdfast.devices import Device, compile_fault
from holdfast.errors import WeightsError
from holdfast.load import LoadedModel, load_model
from holdfast.models.detector import Detector
from holdfast.train.freeze import freeze


def starting_model(
    model: str,
    *,
    named: bool,
    weights: str,
    pretrained: bool | str,
    names: Mapping[int, str],
    keypoints: tuple[int, int] | None = None,
) -> LoadedModel:
    """Returns the model to train: `model` filled with what fits of `weights`, or that of `weights` alone.

    Args:
        model: name or file.
        named: whether the user named it; if not, weights that are given decide alone.
        weights: a file, or empty.
        pretrained: False drops what a file holds; a file means `weights`.
        names: class names of the data set.
        keypoints: (count, numbers per point) of the data set; counts for models that find keypoints.

    Raises:
        WeightsError: a file cannot be used.
    """
    weights = weights or (pretrained if isinstance(pretrained, str) else "")
    if weights and not named:
        return load_model(weights, names=names, keypoints=keypoints)
    loaded = load_model(model, names=names, weights=weights or None, keypoints=keypoints)
    if pretrained is False and loaded.transfer is not None:
        return load_model(loaded.model.name, names=names, keypoints=keypoints)
    return loaded


def placed(
    loaded: LoadedModel, device: Device, *, channels_last: bool, frozen: int | Sequence[int | str]
) -> Detector:
    """Returns the model on the device, with the layers `frozen` that `freeze` describes.

    Raises:
        WeightsError: it is a deployed model.
        SettingsError: layers to freeze that do not exist.
    """
    if loaded.model.deployed:
        raise WeightsError(
            f"{loaded.origin} holds a deployed model (batch-norm folded away), which cannot be trained.",
            hint="Train from the training-form checkpoint (best.pt or last.pt of a run).",
        )
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model: Detector = loaded.model.to(device.device, memory_format=layout)  # type: ignore[call-overload]
    if frozen:
        names = loaded.model.keymap(loaded.model.layout)
        freeze(model, frozen, layer_of=lambda key: int(names.to_official(key).split(".")[1]))
    return model


def compiled(model: Detector, device: Device) -> str:
    """Has the model compiled at its first step; names of tensors stay. Returns the sentence about it."""
    fault = compile_fault(device.device)
    if fault:
        return f"no, because torch.compile cannot be used: {fault}"
    model.compile()
    return "torch.compile; the first step and each new input size wait for it"


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Holds a GPU to convolutions that repeat exactly, or lets it choose; afterwards it is as before."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
