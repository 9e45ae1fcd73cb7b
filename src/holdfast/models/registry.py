"""Model names to models. Accepts the published names and the file names users know them by.

A family is one line here (docs/adding-a-family.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from holdfast.errors import SettingsError, WeightsError, did_you_mean
from holdfast.models.detector import Detector
from holdfast.models.published import Layout, layer_numbers
from holdfast.models.yolo26 import YOLO26
from holdfast.models.yolo26_tasks import YOLO26Classify, YOLO26Pose, YOLO26Rotated, YOLO26Segment
from holdfast.models.yolov9 import YOLOv9

FAMILIES: tuple[type[Detector], ...] = (
    YOLOv9,
    YOLO26,
    YOLO26Segment,
    YOLO26Pose,
    YOLO26Rotated,
    YOLO26Classify,
)


def available() -> tuple[str, ...]:
    """Every model name that `build` knows."""
    return tuple(name for family in FAMILIES for name in family.published)


def tasks() -> tuple[str, ...]:
    """What models do, in words of the field."""
    return tuple(dict.fromkeys(family.task for family in FAMILIES))


def smallest(task: str) -> str:
    """The smallest model of the first family with a task of `tasks`."""
    return next(family for family in FAMILIES if family.task == task).published[0]


def family_of(name: str) -> type[Detector]:
    """The family of a name that `resolve` accepts."""
    known = resolve(name)
    return next(family for family in FAMILIES if known in family.published)


def resolve(name: str) -> str:
    """The published name for `yolov9-s`, `yolov9s`, `yolov9-s.yaml` or `models/detect/yolov9-s.yaml`.

    A family's bare name (`yolo26.yaml`) means its default size.

    Raises:
        SettingsError: no such model; names the nearest one.
    """
    stem = re.sub(r"\.ya?ml$", "", re.split(r"[/\\]", str(name).strip())[-1], flags=re.IGNORECASE).lower()
    spellings = {known: known for known in available()}
    spellings |= {family.family: family.default for family in FAMILIES if family.default}
    for spelling, known in spellings.items():
        if re.sub(r"[-_]", "", stem) == spelling.lower().replace("-", ""):
            return known
    near = did_you_mean(stem, available())
    raise SettingsError(f"There is no model '{name}'.{near}", hint=f"Known models: {', '.join(available())}.")


def finds_keypoints(name: str) -> bool:
    """Whether the model of a name that `resolve` accepts finds keypoints."""
    return family_of(name).default_keypoints is not None


def build(
    name: str,
    classes: int = 80,
    *,
    names: Mapping[int, str] | None = None,
    class_width: int | None = None,
    box_groups: int | None = None,
    keypoints: Sequence[int] | None = None,
) -> Detector:
    """A model with random weights, in its training form.

    Args:
        name: a name `resolve` accepts; of the YOLOv9 family, `gelan-*` has no auxiliary branch.
        classes: number of classes, at least 1.
        names: class names for 0..classes-1; the numbers themselves when None.
        class_width: hidden width of the class towers where a file differs from the family's rule.
        box_groups: groups of the last box convolutions where a file differs from the family's rule.
        keypoints: keypoints per object, and 3 numbers per keypoint or 2; None for the family's own, or none.

    Raises:
        SettingsError: unknown name, class count below 1, names that do not match the count, or keypoints that
            cannot be.
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
    family = family_of(known)
    more: dict[str, Any] = {"class_width": class_width, "box_groups": box_groups}
    if keypoints is not None:
        if family.default_keypoints is None:
            raise SettingsError(f"{known} finds no keypoints, but keypoints={list(keypoints)}.")
        if len(keypoints) != 2 or keypoints[0] < 1 or keypoints[1] not in (2, 3):
            raise SettingsError(
                f"{known} needs a number of keypoints and 2 or 3 numbers for each, not {list(keypoints)}."
            )
        more["keypoints"] = tuple(keypoints)
    return family.build(known, classes=classes, names=names, **more)


def recognise(tensors: Mapping[str, Tensor]) -> Layout:
    """What published tensors say about the model they belong to, told from names and shapes alone.

    Raises:
        WeightsError: no family knows these tensors.
    """
    for family in FAMILIES:
        layout = family.recognise(tensors)
        if layout is not None:
            return layout
    last = max(layer_numbers(tensors), default=None)
    families = ", ".join(family.family for family in FAMILIES)
    raise WeightsError(
        f"These tensors belong to no published model of {families} "
        f"({len(tensors)} tensors, last layer {'not numbered' if last is None else last}).",
        hint=f"Known models: {', '.join(available())}.",
    )


def from_header(header: Mapping[str, Any]) -> Detector:
    """Rebuilds the (randomly initialised) model that wrote `header`, folded if it was.

    Raises:
        WeightsError: the header lacks a needed entry.
    """
    try:
        classes = int(header["classes"])
        names = {int(k): str(v) for k, v in dict(header["names"]).items()} if header.get("names") else None
        widths = {key: header.get(key) for key in ("class_width", "box_groups", "keypoints")}
        model = build(header["name"], classes, names=names, **widths)
    except (KeyError, TypeError, ValueError) as fault:
        raise WeightsError(f"This model description cannot be read ({fault!r}): {dict(header)!r}.") from fault
    if not header.get("deployed"):
        return model
    branch = header.get("branch")
    return model.deploy(nms=None if branch is None else branch == "one_to_many")
