"""Model names to models. Accepts the published names and the file names users know them by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from holdfast.errors import SettingsError, WeightsError, did_you_mean
from holdfast.models.yolov9 import SPECS, YOLOv9


def available() -> tuple[str, ...]:
    """Every model name that `build` knows."""
    return tuple(f"{family}-{size}" for family in ("yolov9", "gelan") for size in SPECS)


def resolve(name: str) -> str:
    """The published name for `yolov9-s`, `yolov9s`, `yolov9-s.yaml` or `models/detect/yolov9-s.yaml`.

    Raises:
        SettingsError: no such model; names the nearest one.
    """
    stem = re.sub(r"\.ya?ml$", "", re.split(r"[/\\]", str(name).strip())[-1], flags=re.IGNORECASE).lower()
    key = re.sub(r"[-_]", "", stem)
    for known in available():
        if key == known.replace("-", ""):
            return known
    near = did_you_mean(stem, available())
    raise SettingsError(f"There is no model '{name}'.{near}", hint=f"Known models: {', '.join(available())}.")


def build(
    name: str,
    classes: int = 80,
    *,
    names: Mapping[int, str] | None = None,
    class_width: int | None = None,
) -> YOLOv9:
    """A model with random weights.

    Args:
        name: a name `resolve` accepts; `yolov9-*` is the training form with auxiliary branch, `gelan-*`
            has none.
        classes: number of classes, at least 1.
        names: class names for 0..classes-1; the numbers themselves when None.
        class_width: hidden width of the class branch where a file differs from the rule (published T
            files: 80).

    Raises:
        SettingsError: unknown name, class count below 1, or names that do not match the count.
    """
    known = resolve(name)
    if classes < 1:
        raise SettingsError(f"A model needs at least one class, but classes={classes}.")
    if names is None:
        names = {i: str(i) for i in range(classes)}
    elif sorted(names) != list(range(classes)):
        raise SettingsError(
            f"{classes} classes need names for 0..{classes - 1}, but names has {len(names)} entries."
        )
    family, size = known.split("-")
    return YOLOv9(
        known,
        SPECS[size],
        classes=classes,
        names=names,
        auxiliary=family == "yolov9",
        class_width=class_width,
    )


def from_header(header: Mapping[str, Any]) -> YOLOv9:
    """Rebuilds the (randomly initialised) model that wrote `header`, folded if it was.

    Raises:
        WeightsError: the header lacks a needed entry.
    """
    try:
        classes = int(header["classes"])
        names = {int(k): str(v) for k, v in dict(header["names"]).items()} if header.get("names") else None
        model = build(header["name"], classes, names=names, class_width=header.get("class_width"))
    except (KeyError, TypeError, ValueError) as fault:
        raise WeightsError(f"This model description cannot be read ({fault!r}): {dict(header)!r}.") from fault
    return model.deploy() if header.get("deployed") else model
