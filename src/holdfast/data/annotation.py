"""Labels of one image, whatever format they came in.

Readers of all formats hand over annotations in parts of the image; what must hold for each of them (class in
range, some area, inside the image) is decided here once, so that nothing which passes can hurt a loss.

Dimensions: M objects, P points of all outlines, K keypoints.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.data.outlines import Point, clip_outline
from holdfast.data.problems import Fault

Box = tuple[float, float, float, float]
_CUT_TOLERANCE = 1e-3
_LEAST_SIDE = 1e-6
_SAME_SHAPE = 0.02  # resized images are rounded to whole pixels


class Rules(NamedTuple):
    """What the labels of a data set hold.

    Attributes:
        classes: number of classes; rows naming others are refused.
        single_class: every class from 0 up becomes class 0.
        keypoints: (count, numbers per point) of pose data sets.
        oriented: boxes are oriented, each given by its four corners.
        names: class names, for formats that name classes.
    """

    classes: int
    single_class: bool = False
    keypoints: tuple[int, int] | None = None
    oriented: bool = False
    names: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Says that a box and its class are all there is to an object."""
        return self.keypoints is None and not self.oriented


class Annotation(NamedTuple):
    """One object, in parts of the image.

    Attributes:
        label: class index.
        box: cx cy w h.
        outline: x y x y ... of its outline; empty when only the box is known.
        keypoints: x y visibility, for every keypoint; empty outside pose data sets.
        corners: x y of the four corners; empty unless boxes are oriented.
    """

    label: int
    box: Box
    outline: tuple[float, ...] = ()
    keypoints: tuple[float, ...] = ()
    corners: tuple[float, ...] = ()


class Labels(NamedTuple):
    """Labels of one image, coordinates in parts of it.

    Attributes:
        classes: (M,) int32.
        boxes: (M, 4) float32, cx cy w h.
        faults: what was noticed.
        rows: rows with any content.
        points: (P, 2) float32, the outlines one after the other.
        lengths: (M,) int32, points of each outline; 0 where only the box is known.
        keypoints: (M, K, 3) float32 x, y, visibility; None outside pose data sets.
        corners: (M, 4, 2) float32; None unless boxes are oriented.
    """

    classes: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    faults: list[Fault]
    rows: int
    points: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int32]
    keypoints: npt.NDArray[np.float32] | None = None
    corners: npt.NDArray[np.float32] | None = None


def pack(found: Iterable[Annotation], faults: list[Fault], rows: int, rules: Rules) -> Labels:
    """Packs annotations into arrays."""
    items = list(found)
    count = len(items)
    points = [value for item in items for value in item.outline]
    keypoints, corners = None, None
    if rules.keypoints is not None:
        flat = [value for item in items for value in item.keypoints]
        keypoints = np.array(flat, dtype=np.float32).reshape(count, rules.keypoints[0], 3)
    if rules.oriented:
        flat = [value for item in items for value in item.corners]
        corners = np.array(flat, dtype=np.float32).reshape(count, 4, 2)
    return Labels(
        np.array([item.label for item in items], dtype=np.int32),
        np.array([item.box for item in items], dtype=np.float32).reshape(count, 4),
        faults,
        rows,
        np.array(points, dtype=np.float32).reshape(-1, 2),
        np.array([len(item.outline) // 2 for item in items], dtype=np.int32),
        keypoints,
        corners,
    )


class Refused(Exception):
    """A row that is not used; `args` are reason and detail."""


def frame_of(stated: tuple[int, int], actual: tuple[int, int], faults: list[Fault]) -> tuple[int, int]:
    """Returns the height and width that annotations in pixels refer to.

    Args:
        stated: what the annotations say; 0 when they say nothing.
        actual: what the image says.
        faults: takes the difference, if there is one.
    """
    if stated == actual or min(stated) < 1:
        return actual
    (height, width), (tall, wide) = stated, actual
    detail = f"annotated at {width} x {height}, the image has {wide} x {tall} pixels"
    resized = abs(height * wide - width * tall) <= _SAME_SHAPE * height * wide
    if not resized:
        detail += ", another shape: boxes taken in pixels of the image"
    faults.append(Fault("size differs from the image", detail, 0, False))
    return stated if resized else actual


def cut_box(x0: float, y0: float, x1: float, y1: float) -> tuple[Box, bool]:
    """Returns the part of a box inside the image as cx cy w h, and whether it left it by more than rounding.

    Raises:
        Refused: no area there.
    """
    left, top, right, bottom = max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)
    if right - left < _LEAST_SIDE or bottom - top < _LEAST_SIDE:
        raise Refused("no area", "nothing of it is inside the image")
    far = max(left - x0, top - y0, x1 - right, y1 - bottom) > _CUT_TOLERANCE
    return ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top), far


def cut_outline(points: Sequence[Point]) -> tuple[tuple[float, ...], Box, bool]:
    """Returns the part of an outline inside the image, the box around it, and whether anything was cut.

    Raises:
        Refused: no area there.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    out = max(-min(xs), -min(ys), max(xs) - 1.0, max(ys) - 1.0)
    if out > 0:
        points = clip_outline(points)
        if not points:
            raise Refused("no area", "nothing of it is inside the image")
        xs, ys = [x for x, _ in points], [y for _, y in points]
    box, _ = cut_box(min(xs), min(ys), max(xs), max(ys))
    return tuple(value for point in points for value in point), box, out > _CUT_TOLERANCE


def settle_keypoints(values: Sequence[float], faults: list[Fault], line: int) -> tuple[float, ...]:
    """Returns keypoints x y visibility with those outside the image, and the unlabelled, as 0 0 0."""
    settled: list[float] = []
    outside, odd = 0, 0
    for x, y, seen in zip(values[::3], values[1::3], values[2::3], strict=True):
        if seen not in (0.0, 1.0, 2.0):
            odd += 1
            seen = 2.0 if seen > 0 else 0.0
        if seen and max(-x, -y, x - 1.0, y - 1.0) > _CUT_TOLERANCE:
            outside += 1
            seen = 0.0
        settled += (min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0), seen) if seen else (0.0, 0.0, 0.0)
    if odd:
        faults.append(Fault("visibility is not 0, 1 or 2", f"{odd} keypoints of the row", line, False))
    if outside:
        faults.append(Fault("keypoint outside the image", f"{outside} keypoints of the row", line, False))
    return tuple(settled)


def no_keypoints(rules: Rules) -> tuple[float, ...]:
    """Keypoints of an object that has none: not labelled, or nothing outside pose data sets."""
    return () if rules.keypoints is None else (0.0,) * (3 * rules.keypoints[0])


def corners_of(box: Box) -> tuple[float, ...]:
    """Corners of an upright box cx cy w h, clockwise from the top left."""
    cx, cy, width, height = box
    x0, y0, x1, y1 = cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2
    return x0, y0, x1, y0, x1, y1, x0, y1
