"""YOLO text labels as the real world writes them: every row becomes a box or a counted reason.

A row is "class cx cy w h" or "class x1 y1 x2 y2 x3 y3 ..." (polygon or the four corners of an oriented box,
reduced to its extent), in parts of the image. Each row is judged by itself: a polygon in a file does not turn
its box rows into polygons. Nothing that passes here can hurt a loss: classes are in range, sides are
positive, corners lie in the image.

Tolerated: byte-order marks, UTF-16, NUL bytes, any line ends, tabs, commas, semicolons, decimal commas,
whole-number classes written as 2.0, a sixth column (confidence), keypoint columns, boxes that leave the image
(cut).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PIXEL_LIMIT = 2.0  # beyond this a coordinate cannot be a part of the image, however far the box hangs out
Record = tuple[int, float, float, float, float]  # class, cx, cy, w, h

_CUT_TOLERANCE = 1e-3
_DECIMAL_COMMA = re.compile(r"(?<![\d,.])-?\d+,\d+(?![\d,.])")


class Fault(NamedTuple):
    """Something noticed in a label file.

    Attributes:
        reason: short and countable.
        detail: what stood there.
        line: line number from 1; 0 for the whole file.
        refused: True when the row (or file) was not used, False when it was mended.
    """

    reason: str
    detail: str
    line: int
    refused: bool


class Labels(NamedTuple):
    """Boxes of one image.

    Attributes:
        classes: (M,) int32.
        boxes: (M, 4) float32, cx cy w h in parts of the image.
        faults: what was noticed.
        rows: rows with any content.
    """

    classes: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    faults: list[Fault]
    rows: int


def parse_labels(
    data: bytes, *, classes: int, single_class: bool = False, keypoints: tuple[int, int] | None = None
) -> Labels:
    """Reads the bytes of a label file.

    Args:
        data: content of the file.
        classes: number of classes; rows naming others are refused.
        single_class: every class from 0 up becomes class 0.
        keypoints: (count, numbers per point) when rows carry keypoints after the box.
    """
    faults: list[Fault] = []
    text = _decode(data, faults)
    seen: dict[Record, None] = {}
    rows = 0
    if text.lstrip()[:1] in ("{", "[", "<"):
        faults.append(Fault("not YOLO text", f"starts with {text.lstrip()[:20]!r}", 0, True))
        return _pack(seen, faults, 1)
    for line, row in enumerate(text.splitlines(), start=1):
        if not row or row.isspace():
            continue
        rows += 1
        record = _parse_row(row, line, classes, single_class, keypoints, faults)
        if isinstance(record, Fault):
            faults.append(record)
            continue
        if record in seen:
            faults.append(Fault("duplicate row", row.strip()[:60], line, False))
        seen[record] = None
    return _pack(seen, faults, rows)


def _pack(records: dict[Record, None], faults: list[Fault], rows: int) -> Labels:
    table = np.array(list(records), dtype=np.float64).reshape(-1, 5)
    return Labels(table[:, 0].astype(np.int32), table[:, 1:].astype(np.float32), faults, rows)


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


def _split(row: str) -> list[str]:
    if ";" in row:
        row = row.replace(";", " ")
    if "," in row:
        parts = row.split()
        decimal = len(parts) >= 5 and all("," not in part or _DECIMAL_COMMA.fullmatch(part) for part in parts)
        row = row.replace(",", "." if decimal else " ")
    return row.split()


def _parse_row(
    row: str,
    line: int,
    classes: int,
    single_class: bool,
    keypoints: tuple[int, int] | None,
    faults: list[Fault],
) -> Record | Fault:
    """Returns (class, cx, cy, w, h), or why not."""

    def refuse(reason: str, detail: str) -> Fault:
        return Fault(reason, detail, line, True)

    parts = _split(row)
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return refuse("not a number", row.strip()[:60])
    if not all(map(math.isfinite, numbers)):
        return refuse("NaN or infinite", row.strip()[:60])
    count = len(numbers)
    with_points = keypoints is not None and count == 5 + keypoints[0] * keypoints[1]
    if count < 5 or (count > 6 and count % 2 == 0 and not with_points):
        return refuse(
            "wrong number of columns", f"{count} columns, expected 5 (class cx cy w h) or a polygon"
        )
    label = int(numbers[0])
    if label != numbers[0]:
        return refuse("class is not a whole number", parts[0])
    if label < 0 or (label >= classes and not single_class):
        return refuse(
            "class out of range", f"class {label}, but data.yaml names {classes} classes (0 to {classes - 1})"
        )
    if count == 6:
        faults.append(Fault("sixth column ignored", row.strip()[:60], line, False))
    if count <= 6 or with_points:
        cx, cy, width, height = numbers[1:5]
        if max(map(abs, numbers[1:5])) > PIXEL_LIMIT:
            return refuse(
                "not normalised", f"{row.strip()[:60]} looks like pixels; expected parts of the image, 0 to 1"
            )
        if width <= 0 or height <= 0:
            return refuse("no area", f"width {width:g}, height {height:g}")
        x0, y0, x1, y1 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    else:
        xs, ys = numbers[1::2], numbers[2::2]
        x0, y0, x1, y1 = min(xs), min(ys), max(xs), max(ys)
        if max(abs(x0), abs(y0), abs(x1), abs(y1)) > PIXEL_LIMIT:
            return refuse("not normalised", "polygon looks like pixels; expected parts of the image, 0 to 1")
    left, top, right, bottom = max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)
    if right - left < 1e-6 or bottom - top < 1e-6:
        return refuse("no area", f"{row.strip()[:60]} has no area inside the image")
    if (left, top, right, bottom) != (x0, y0, x1, y1):
        if max(left - x0, top - y0, x1 - right, y1 - bottom) > _CUT_TOLERANCE:
            faults.append(Fault("box cut at the image border", row.strip()[:60], line, False))
    elif count <= 6 or with_points:
        return 0 if single_class else label, cx, cy, width, height
    return 0 if single_class else label, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
