"""Names of the official YOLOv9 program and ours: one line per layer, one table per family.

The official program numbers the layers of a flat list (`model.4.cv1.conv.weight`); ours name stages
(`backbone.stage3.cv1.conv.weight`). Behind the layer the names are the same, so a table of prefixes is the
whole map. Traps: a dual head keeps the auxiliary branch in `cv2`/`cv3` and the main one in `cv4`/`cv5`; in e
the first backbone and its links are part of the main graph; layers without weights have numbers too.

Every official head also stores the constants 0..R-1 of its distribution (`dfl.conv.weight`). Our models do
not; the map gives them names ending in `.bins`, they are written on the way out and checked on the way in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_BACKBONE = ("stem1", "stem2", "stage2", "down3", "stage3", "down4", "stage4", "down5", "stage5")
_NECK = {"spp": 0, "up4": 3, "up3": 6, "down4": 7, "out4": 9, "down5": 10, "out5": 12}
_TOP_DOWN = {"spp": 0, "up4": 3, "up3": 6}


@dataclass(frozen=True)
class KeyMap:
    """Prefix pairs of one published layout.

    Attributes:
        pairs: (our prefix, official prefix); none is a prefix of another.
        constants: our names of the distribution constants.
    """

    pairs: tuple[tuple[str, str], ...]
    constants: tuple[str, ...]

    def to_official(self, key: str) -> str:
        """The official name of our tensor `key`. Raises KeyError for a name outside the map."""
        return _swap(key, ((ours, theirs) for ours, theirs in self.pairs))

    def to_ours(self, key: str) -> str:
        """Our name of the official tensor `key`. Raises KeyError for a name outside the map."""
        return _swap(key, ((theirs, ours) for ours, theirs in self.pairs))


def keymap(name: str) -> KeyMap:
    """The map for a published model name (`yolov9-s`, `gelan-c`)."""
    family, size = name.split("-")
    dual = family == "yolov9"
    if size == "e":
        layers = _twin(dual=dual)
    elif size in ("m", "c") and dual:
        layers = _reversible()
    else:
        layers = _plain(dual=dual)
    head = f"model.{head_layer(name)}."
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
    yield "head.box", f"{layer}.{main[0]}"
    yield "head.cls", f"{layer}.{main[1]}"
    if auxiliary:
        yield "auxiliary.head.box", f"{layer}.{auxiliary[0]}"
        yield "auxiliary.head.cls", f"{layer}.{auxiliary[1]}"


def head_layer(name: str) -> int:
    """Number of the head in the official layer list."""
    family, size = name.split("-")
    if family == "gelan":
        return 42 if size == "e" else 22
    return {"t": 29, "s": 29, "m": 38, "c": 38, "e": 49}[size]


def _swap(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        if key.startswith(old):
            return new + key[len(old) :]
    raise KeyError(key)
