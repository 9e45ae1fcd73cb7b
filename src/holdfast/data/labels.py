"""YOLO text labels as the real world writes them: every row becomes an object or a counted reason.

A row is one of these, coordinates in parts of the image:
    class cx cy w h
    class x1 y1 x2 y2 x3 y3 ...       outline; the box is its extent
    class x1 y1 x2 y2 x3 y3 x4 y4     corners, in data sets of oriented boxes
    class cx cy w h x1 y1 [v1] ...    keypoints with or without visibility, in pose data sets

Each row is judged by itself: an outline in a file does not turn its box rows into outlines. Nothing that
passes here can hurt a loss: classes are in range, sides are positive, boxes and outlines lie in the image.

Tolerated: byte-order marks, UTF-16, NUL bytes, any line ends, tabs, commas, semicolons, decimal commas,
whole-number classes written as 2.0, a sixth column (confidence; among oriented boxes it could be an angle),
boxes that leave the image (cut).
"""

from __future__ import annotations

import math
import re

from holdfast.data.annotation import (
    Annotation,
    Labels,
    Refused,
    Rules,
    corners_of,
    cut_box,
    cut_outline,
    no_keypoints,
    pack,
    settle_keypoints,
)
from holdfast.data.problems import Fault

PIXEL_LIMIT = 2.0  # beyond this a coordinate cannot be a part of the image, however far the box hangs out
_SHOWN = 60
_DECIMAL_COMMA = re.compile(r"(?<![\d,.])-?\d+,\d+(?![\d,.])")


def parse_labels(
    data: bytes,
    *,
    classes: int,
    single_class: bool = False,
    keypoints: tuple[int, int] | None = None,
    oriented: bool = False,
) -> Labels:
    """Reads the bytes of a label file.

    Args:
        data: content of the file.
        classes: number of classes; rows naming others are refused.
        single_class: every class from 0 up becomes class 0.
        keypoints: (count, numbers per point) when rows carry keypoints after the box.
        oriented: eight coordinates are the corners of an oriented box, not an outline.
    """
    return read_rows(data, Rules(classes, single_class, keypoints, oriented))


def read_rows(data: bytes, rules: Rules) -> Labels:
    """Reads the bytes of a label file by the rules of its data set."""
    faults: list[Fault] = []
    text = _decode(data, faults)
    seen: dict[Annotation, None] = {}
    rows = 0
    if text.lstrip()[:1] in ("{", "[", "<"):
        faults.append(Fault("not YOLO text", f"starts with {text.lstrip()[:20]!r}", 0, True))
        return pack(seen, faults, 1, rules)
    for line, row in enumerate(text.splitlines(), start=1):
        if not row or row.isspace():
            continue
        rows += 1
        try:
            found = _parse_row(row, line, rules, faults)
        except Refused as refused:
            reason, detail = refused.args
            faults.append(Fault(reason, detail, line, True))
            continue
        if found in seen:
            faults.append(Fault("duplicate row", _show(row), line, False))
        seen[found] = None
    return pack(seen, faults, rows, rules)


def _decode(data: bytes, faults: list[Fault]) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if b"\0" in data:
        for codec, zeros in (("utf-16-le", data[1::2]), ("utf-16-be", data[0::2])):
            if zeros and zeros.count(0) == len(zeros):
                return data.decode(codec, "replace")
        faults.append(Fault("NUL bytes", f"{data.count(0)} NUL bytes, skipped", 0, False))
        data = data.replace(b"\0", b"")
    return data.decode("utf-8-sig", "replace")


def _show(row: str) -> str:
    return row.strip()[:_SHOWN]


def _split(row: str) -> list[str]:
    if ";" in row:
        row = row.replace(";", " ")
    if "," in row:
        parts = row.split()
        decimal = len(parts) >= 5 and all("," not in part or _DECIMAL_COMMA.fullmatch(part) for part in parts)
        row = row.replace(",", "." if decimal else " ")
    return row.split()


def _parse_row(row: str, line: int, rules: Rules, faults: list[Fault]) -> Annotation:
    """Returns the object of a row.

    Raises:
        Refused: it cannot be used.
    """
    parts = _split(row)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise Refused("not a number", _show(row)) from None
    if len(numbers) == 5 and rules.plain:  # a good box, as nearly all rows are; the rest is checked at length
        number, cx, cy, width, height = numbers
        label = int(number) if 0 <= number < rules.classes else None
        x, y = width / 2, height / 2
        inside = x <= cx <= 1 - x and y <= cy <= 1 - y and width > 1e-5 < height
        if inside and label is not None and label == number:
            return Annotation(0 if rules.single_class else label, (cx, cy, width, height))
    if not all(map(math.isfinite, numbers)):
        raise Refused("NaN or infinite", _show(row))
    count = len(numbers)
    per_point = _numbers_per_point(count, rules)
    label = int(numbers[0])
    if label != numbers[0]:
        raise Refused("class is not a whole number", parts[0])
    if label < 0 or (label >= rules.classes and not rules.single_class):
        raise Refused(
            "class out of range",
            f"class {label}, but data.yaml names {rules.classes} classes (0 to {rules.classes - 1})",
        )
    if rules.single_class:
        label = 0
    if max(map(abs, numbers[1:5] if count == 6 else numbers[1:])) > PIXEL_LIMIT and (
        per_point != 3 or _beyond(numbers)
    ):
        raise Refused(
            "not normalised", f"{_show(row)} looks like pixels; expected parts of the image, 0 to 1"
        )
    if count > 6 and not per_point:
        return _outlined(label, numbers[1:], row, line, rules, faults)
    return _boxed(label, numbers, per_point, row, line, rules, faults)


def _numbers_per_point(count: int, rules: Rules) -> int:
    """Checks the number of columns; returns how many numbers each keypoint of the row has, 0 for none.

    Raises:
        Refused: no row of this data set has so many columns.
    """
    if count == 5 or (count == 6 and not rules.oriented):
        return 0
    if rules.keypoints is not None:
        points = rules.keypoints[0]
        for numbers in (2, 3):
            if count == 5 + numbers * points:
                return numbers
        expected = f"5 + {points} keypoints of 2 or 3 numbers, as kpt_shape in data.yaml says"
    elif rules.oriented:
        if count == 9:
            return 0
        expected = "9 (class and four corners)" + ("; no angle is read" if count == 6 else "")
    elif count > 6 and count % 2:
        return 0
    else:
        expected = "5 (class cx cy w h) or a polygon"
    raise Refused("wrong number of columns", f"{count} columns, expected {expected}")


def _beyond(numbers: list[float]) -> bool:
    """Says whether box or keypoints with visibility look like pixels."""
    places = [*numbers[1:5], *numbers[5::3], *numbers[6::3]]
    return max(map(abs, places)) > PIXEL_LIMIT


def _boxed(
    label: int,
    numbers: list[float],
    per_point: int,
    row: str,
    line: int,
    rules: Rules,
    faults: list[Fault],
) -> Annotation:
    cx, cy, width, height = numbers[1:5]
    if width <= 0 or height <= 0:
        raise Refused("no area", f"width {width:g}, height {height:g}")
    x0, y0, x1, y1 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    box, far = cut_box(x0, y0, x1, y1)
    if x0 >= 0 and y0 >= 0 and x1 <= 1 and y1 <= 1:
        box = cx, cy, width, height  # as written, without rounding
    if far:
        faults.append(Fault("box cut at the image border", _show(row), line, False))
    if len(numbers) == 6:
        faults.append(Fault("sixth column ignored", _show(row), line, False))
    keypoints = no_keypoints(rules)
    if per_point:
        values = numbers[5:]
        if per_point == 2:
            places = zip(values[::2], values[1::2], strict=True)
            values = [value for x, y in places for value in (x, y, 2.0 if x or y else 0.0)]
            if rules.keypoints is not None and rules.keypoints[1] == 3:
                faults.append(Fault("keypoints without visibility", _show(row), line, False))
        keypoints = settle_keypoints(values, faults, line)
    elif keypoints:
        faults.append(Fault("row without keypoints", _show(row), line, False))
    corners: tuple[float, ...] = ()
    if rules.oriented:
        faults.append(Fault("upright box among oriented ones", _show(row), line, False))
        corners = corners_of(box)
    return Annotation(label, box, (), keypoints, corners)


def _outlined(
    label: int, values: list[float], row: str, line: int, rules: Rules, faults: list[Fault]
) -> Annotation:
    points = list(zip(values[::2], values[1::2], strict=True))
    outline, box, far = cut_outline(points)
    if far:
        faults.append(Fault("box cut at the image border", _show(row), line, False))
    if rules.oriented:
        return Annotation(label, box, corners=tuple(values))  # not cut: a cut box would be no rectangle
    return Annotation(label, box, outline)
