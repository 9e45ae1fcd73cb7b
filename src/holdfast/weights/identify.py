"""Which published model a set of official tensors belongs to, told from names and shapes alone.

File names and the options stored in a file can be wrong; the tensors cannot. The number of the last layer
gives the family, the first convolution the size; s and m differ in the block at stride 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from holdfast.errors import WeightsError
from holdfast.weights.keymap import head_layer


@dataclass(frozen=True)
class Layout:
    """What the tensors say.

    Attributes:
        name: published model name; "gelan-s" also for a yolov9-s whose auxiliary branch was removed.
        classes: number of classes.
        class_width: hidden width of the main class branch.
        folded: whether batch norm was folded away.
    """

    name: str
    classes: int
    class_width: int
    folded: bool


def identify(state_dict: Mapping[str, Tensor]) -> Layout:
    """Finds the published layout of official names.

    Raises:
        WeightsError: no published YOLOv9 or GELAN model has these tensors.
    """
    layers = {int(m[1]) for key in state_dict if (m := re.match(r"model\.(\d+)\.", key))}
    head = max(layers, default=-1)
    first = state_dict.get("model.0.conv.weight", state_dict.get("model.1.conv.weight"))
    width = 0 if first is None or first.ndim != 4 else len(first)
    elan = "model.2.cv2.conv.weight" in state_dict
    size = {22: {16: "t", 32: "s" if elan else "m", 64: "c"}, 29: {16: "t", 32: "s"}, 38: {32: "m", 64: "c"}}
    dual = any(key.startswith(f"model.{head}.cv5.") for key in state_dict)
    found = "e" if head in (42, 49) else size.get(head, {}).get(width)
    name = f"{'yolov9' if dual else 'gelan'}-{found}"
    branch = f"model.{head}.{'cv5' if dual else 'cv3'}.0"
    hidden, last = state_dict.get(f"{branch}.0.conv.weight"), state_dict.get(f"{branch}.2.weight")
    if found is None or head_layer(name) != head or hidden is None or last is None:
        raise WeightsError(
            "These tensors belong to no published YOLOv9 or GELAN model "
            f"({len(state_dict)} tensors, last layer {head if head >= 0 else 'not numbered'}).",
            hint="Expected official names such as 'model.0.conv.weight' of yolov9 or gelan t, s, m, c, e.",
        )
    return Layout(name, len(last), len(hidden), f"{branch}.0.conv.bias" in state_dict)
