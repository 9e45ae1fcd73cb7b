"""Types of settings: the spellings each understands, as one value."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from holdfast.settings.base import as_items, as_seconds, as_switch, casefold

_OFF = ("off", "false", "none", "no", "0", "")
_RAM = ("ram", "true", "1")
MAX_WORKERS = 256


def _cache(value: object) -> object:
    word = str(value).lower()
    return "off" if word in _OFF else "ram" if word in _RAM else word if isinstance(value, str) else value


def _some(value: int) -> int:
    if value == 0:
        raise ValueError("a batch has at least one image")
    return value


def _recompute(value: object) -> object:
    return {True: "stages", False: "off"}.get(value, value) if isinstance(value, bool) else value


Task = Literal["detect", "segment", "pose", "obb", "classify"]
Optimizer = Annotated[
    Literal["auto", "SGD", "Adam", "AdamW", "LION", "MuSGD"],
    casefold("auto", "SGD", "Adam", "AdamW", "LION", "MuSGD")]
AmpType = Annotated[
    Literal["auto", "bfloat16", "float16"],
    BeforeValidator(lambda value: {"bf16": "bfloat16", "fp16": "float16"}.get(value, value)
                    if isinstance(value, str) else value)]
Duration = Annotated[float, BeforeValidator(as_seconds)]
Half = Annotated[Literal["auto"] | bool, BeforeValidator(as_switch)]
AutoSwitch = Annotated[Literal["auto"] | bool, BeforeValidator(as_switch)]
Parts = Annotated[tuple[int | str, ...], BeforeValidator(as_items)]
Cache = Annotated[Literal["off", "ram", "disk"], BeforeValidator(_cache)]
Layout = Annotated[bool, BeforeValidator(lambda value: True if value == "auto" else value)]
Workers = Annotated[int, BeforeValidator(lambda value: MAX_WORKERS if value == "auto" else value)]
Batch = Annotated[int, BeforeValidator(lambda value: -1 if value == "auto" else value), AfterValidator(_some)]
Auto = Annotated[int, BeforeValidator(lambda value: 0 if value == "auto" else value)]
Recompute = Annotated[
    Literal["auto", "off", "norm", "stages"] | bool, AfterValidator(_recompute), BeforeValidator(as_switch)]
Names = Annotated[tuple[str, ...], BeforeValidator(as_items)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=32, le=8192)], ...], BeforeValidator(as_items)]
Logger = Literal["tensorboard", "wandb", "mlflow"]
Loggers = Annotated[
    tuple[Logger, ...],
    BeforeValidator(as_items),
    BeforeValidator(lambda value: () if value is None or str(value).strip().lower() in _OFF else value)]
Seeds = Annotated[Literal["different", "same"], casefold("different", "same")]
Spread = Annotated[
    bool | float,
    BeforeValidator(lambda value: value / 2 if isinstance(value, bool) else value),
    BeforeValidator(as_switch)]
Tiles = Annotated[Literal["4", "9", "auto"], BeforeValidator(str)]
Policy = Annotated[
    Literal["none", "randaugment", "autoaugment"],
    casefold("none", "randaugment", "autoaugment"),
    BeforeValidator(lambda value: "none" if value is None or str(value).lower() in _OFF else value)]


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
