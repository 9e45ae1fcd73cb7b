"""Published names of YOLOv9 and GELAN: one line per layer, one table per layer list.

Traps: a dual head keeps the auxiliary branch in `cv2`/`cv3` and the main one in `cv4`/`cv5`; in e the first
backbone and its links are part of the main graph; layers without weights have numbers too.

Every published head also stores the constants 0..R-1 of its distribution (`dfl.conv.weight`). Our models do
not; the map gives them names ending in `.bins`.

The Ultralytics program writes the gelan-* lists, with box towers that are not grouped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from holdfast.errors import WeightsError
from holdfast.models.published import DETECTION_ONLY, KeyMap, Layout, layer_numbers

_BACKBONE = ("stem1", "stem2", "stage2", "down3", "stage3", "down4", "stage4", "down5", "stage5")
_NECK = {"spp": 0, "up4": 3, "up3": 6, "down4": 7, "out4": 9, "down5": 10, "out5": 12}
_TOP_DOWN = {"spp": 0, "up4": 3, "up3": 6}


def recognise(tensors: Mapping[str, Tensor]) -> Layout | None:
    """What published tensors say, told from names and shapes alone; None for those of another family.

    File names and the options stored in a file can be wrong; the tensors cannot. The number of the last layer
    gives the family, the first convolution the size; s and m differ in the block at stride 4.

    Raises:
        WeightsError: a model for segmentation.
    """
    head = max(layer_numbers(tensors), default=-1)
    first = tensors.get("model.0.conv.weight", tensors.get("model.1.conv.weight"))
    width = 0 if first is None or first.ndim != 4 else len(first)
    elan = "model.2.cv2.conv.weight" in tensors
    size = {22: {16: "t", 32: "s" if elan else "m", 64: "c"}, 29: {16: "t", 32: "s"}, 38: {32: "m", 64: "c"}}
    dual = any(key.startswith(f"model.{head}.cv5.") for key in tensors)
    found = "e" if head in (42, 49) else size.get(head, {}).get(width)
    name = f"{'yolov9' if dual else 'gelan'}-{found}"
    box, cls = (f"model.{head}.{part}.0" for part in (("cv4", "cv5") if dual else ("cv2", "cv3")))
    parts = [f"{box}.0.conv.weight", f"{box}.1.conv.weight", f"{cls}.0.conv.weight", f"{cls}.2.weight"]
    aggregation = any(f"model.{stage}.cv4.conv.weight" in tensors for stage in (2, 3))
    complete = aggregation and all(key in tensors for key in parts)
    if found is None or _head_layer(name) != head or not complete:
        return None
    if any(key.startswith(f"model.{head}.proto.") for key in tensors):
        raise WeightsError("These are the weights of a YOLOv9 segmentation model.", hint=DETECTION_ONLY)
    hidden, grouped, class_hidden, last = (tensors[key] for key in parts)
    return Layout(
        name=name,
        classes=len(last),
        class_width=len(class_hidden),
        box_groups=len(hidden) // grouped.shape[1],
        folded=f"{cls}.0.conv.bias" in tensors,
    )


def keymap(layout: str) -> KeyMap:
    """The map for a published layer list (`yolov9-s`, `gelan-c`)."""
    family, size = layout.split("-")
    dual = family == "yolov9"
    if size == "e":
        layers = _twin(dual=dual)
    elif size in ("m", "c") and dual:
        layers = _reversible()
    else:
        layers = _plain(dual=dual)
    head = f"model.{_head_layer(layout)}."
    constants = {"auxiliary.head.bins": "dfl", "head.bins": "dfl2"} if dual else {"head.bins": "dfl"}
    return KeyMap(
        (
            *((f"{ours}.", f"model.{theirs}.") for ours, theirs in layers),
            *((ours, f"{head}{theirs}.conv.weight") for ours, theirs in constants.items()),
        ),
        tuple(constants),
    )


def _plain(*, dual: bool) -> Iterator[tuple[str, str]]:
    """gelan-t/s/m/c, and yolov9-t/s with a second top-down neck."""
    yield from _stages("backbone", 0)
    yield from _numbered("neck", _NECK, 9)
    if dual:
        yield from _numbered("auxiliary.neck", _TOP_DOWN, 22)
    yield from _heads(29 if dual else 22, dual=dual)


def _reversible() -> Iterator[tuple[str, str]]:
    """yolov9-m/c: everything one later than gelan, then links and a second reading of the image."""
    yield from _stages("backbone", 1)
    yield from _numbered("neck", _NECK, 10)
    yield from _numbered("auxiliary.links", {"0": 0, "1": 1, "2": 2}, 23)
    numbers = (26, 27, 28, 29, 31, 32, 34, 35, 37)  # 30, 33, 36 gather the links and have no weights
    yield from ((f"auxiliary.backbone.{n}", str(i)) for n, i in zip(_BACKBONE, numbers, strict=True))
    yield from _heads(38, dual=True)


def _twin(*, dual: bool) -> Iterator[tuple[str, str]]:
    """gelan-e and yolov9-e: two backbones with links; the auxiliary neck comes before the main one."""
    yield from _stages("backbone.first", 1)
    yield from _numbered("backbone.links", {str(i): i for i in range(5)}, 10)
    numbers = (15, 17, 19, 20, 22, 23, 25, 26, 28)  # 16, 18, 21, 24, 27 gather the links
    yield from ((f"backbone.second.{n}", str(i)) for n, i in zip(_BACKBONE, numbers, strict=True))
    if dual:
        yield from _numbered("auxiliary.neck", _TOP_DOWN, 29)
    yield from _numbered("neck", _NECK, 36 if dual else 29)
    yield from _heads(49 if dual else 42, dual=dual)


def _stages(prefix: str, first: int) -> Iterator[tuple[str, str]]:
    return ((f"{prefix}.{name}", str(first + i)) for i, name in enumerate(_BACKBONE))


def _numbered(prefix: str, layers: dict[str, int], first: int) -> Iterator[tuple[str, str]]:
    return ((f"{prefix}.{name}", str(first + i)) for name, i in layers.items())


def _heads(layer: int, *, dual: bool) -> Iterator[tuple[str, str]]:
    main, auxiliary = (("cv4", "cv5"), ("cv2", "cv3")) if dual else (("cv2", "cv3"), None)
    if auxiliary:
        yield "auxiliary.head.box", f"{layer}.{auxiliary[0]}"
        yield "auxiliary.head.cls", f"{layer}.{auxiliary[1]}"
    yield "head.box", f"{layer}.{main[0]}"
    yield "head.cls", f"{layer}.{main[1]}"


def _head_layer(name: str) -> int:
    """Number of the head in the official layer list."""
    family, size = name.split("-")
    if family == "gelan":
        return 42 if size == "e" else 22
    return {"t": 29, "s": 29, "m": 38, "c": 38, "e": 49}[size]
