"""Pascal VOC xml: one file per image, boxes in pixels, classes by name.

Boxes of the challenge's own files count pixels from 1 and include the last one; those of other tools are
edges. Files that say they come from a VOC database are read the first way. Objects marked difficult are kept
and counted. Document types and entities are refused: no label needs them, and they can grow without bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from xml.parsers import expat

from holdfast.data.annotation import (
    Annotation,
    Labels,
    Refused,
    Rules,
    corners_of,
    cut_box,
    frame_of,
    no_keypoints,
    pack,
)
from holdfast.data.problems import Fault

_MOST_NODES = 1_000_000


@dataclass
class _Node:
    tag: str
    line: int
    text: str = ""
    children: list[_Node] = field(default_factory=list)

    def child(self, tag: str) -> _Node | None:
        return next((node for node in self.children if node.tag == tag), None)

    def value(self, *tags: str) -> str:
        """Text below a path of tags; empty when there is none."""
        node: _Node | None = self
        for tag in tags:
            node = node.child(tag) if node is not None else None
        return node.text.strip() if node is not None else ""


def read_voc(data: bytes, size: tuple[int, int], rules: Rules) -> Labels:
    """Reads the bytes of a file.

    Args:
        data: content of the file.
        size: upright height and width of the image.
        rules: what labels hold; its names give classes their numbers.
    """
    faults: list[Fault] = []
    seen: dict[Annotation, None] = {}
    try:
        root = _tree(data)
    except Refused as refused:
        reason, detail, line = refused.args
        return pack(seen, [Fault(reason, detail, line, True)], 1, rules)
    if root.tag != "annotation":
        found = Fault("xml of another kind ignored", f"its root is <{root.tag[:40]}>", root.line, False)
        return pack(seen, [found], 0, rules)
    stated = [_number(root.value("size", side)) for side in ("height", "width")]
    height, width = frame_of((int(stated[0] or 0), int(stated[1] or 0)), size, faults)
    first = 1.0 if "VOC" in root.value("source", "database") else 0.0
    classes = {name: index for index, name in reversed(list(enumerate(rules.names)))}
    loose = {name.strip().casefold(): index for name, index in classes.items()}
    objects = [node for node in root.children if node.tag == "object"]
    for node in objects:
        try:
            name = node.value("name")
            label = classes.get(name, loose.get(name.casefold(), -1))
            if label < 0 and not rules.single_class:
                raise Refused("class not in data.yaml", repr(name[:60]))
            box = _box(node, height, width, first, faults)
        except Refused as refused:
            reason, detail = refused.args
            faults.append(Fault(reason, detail, node.line, True))
            continue
        corners: tuple[float, ...] = ()
        if rules.oriented:
            faults.append(Fault("upright box among oriented ones", name[:60], node.line, False))
            corners = corners_of(box)
        if node.value("difficult") in ("1", "true", "True"):
            faults.append(Fault("difficult object kept", name[:60], node.line, False))
        found_here = Annotation(
            0 if rules.single_class else label, box, keypoints=no_keypoints(rules), corners=corners
        )
        if found_here in seen:
            faults.append(Fault("duplicate row", name[:60], node.line, False))
        seen[found_here] = None
    return pack(seen, faults, len(objects), rules)


def _box(
    node: _Node, height: int, width: int, first: float, faults: list[Fault]
) -> tuple[float, float, float, float]:
    bounds = node.child("bndbox")
    if bounds is None:
        raise Refused("object without a box", f"no <bndbox> in {node.value('name')[:60]!r}")
    values = []
    for tag in ("xmin", "ymin", "xmax", "ymax"):
        value = _number(bounds.value(tag))
        if value is None:
            raise Refused("not a number", f"<{tag}> {bounds.value(tag)[:40]!r}")
        values.append(value)
    x0, y0, x1, y1 = values
    if x0 > x1 or y0 > y1:
        faults.append(Fault("corners of a box swapped", f"{x0:g} {y0:g} {x1:g} {y1:g}", bounds.line, False))
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    box, far = cut_box((x0 - first) / width, (y0 - first) / height, x1 / width, y1 / height)
    if far:
        faults.append(
            Fault("box cut at the image border", f"{x0:g} {y0:g} {x1:g} {y1:g}", bounds.line, False)
        )
    return box


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e9 else None


def _tree(data: bytes) -> _Node:
    """Parses a file.

    Raises:
        Refused: reason, detail and line; not xml, or with a document type.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = _Node("", 0)
    open_nodes = [top]
    count = 0

    def start(tag: str, _: object) -> None:
        nonlocal count
        count += 1
        if count > _MOST_NODES:
            raise Refused("not readable xml", "too many elements", parser.CurrentLineNumber)
        node = _Node(tag, parser.CurrentLineNumber)
        open_nodes[-1].children.append(node)
        open_nodes.append(node)

    def end(_: str) -> None:
        open_nodes.pop()

    def text(content: str) -> None:
        open_nodes[-1].text += content

    def refuse(*_: object) -> None:
        raise Refused("xml with a document type", "<!DOCTYPE ...>", parser.CurrentLineNumber)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise Refused("not readable xml", expat.ErrorString(error.code), error.lineno) from None
    except (ValueError, LookupError) as error:  # an encoding that nobody knows
        raise Refused("not readable xml", str(error)[:80], 1) from None
    return top.children[0]
