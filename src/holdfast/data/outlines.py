"""Outlines of objects: cut at the borders of the image, several joined into one.

Plain Python on lists of points: outlines that leave the image or come in parts are few and short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Point = tuple[float, float]


def clip_outline(points: Sequence[Point], width: float = 1.0, height: float = 1.0) -> list[Point]:
    """Returns the part of an outline inside [0, width] x [0, height]; empty when nothing is.

    One border after the other (Sutherland and Hodgman, 1974). What a concave outline falls apart into stays
    connected along the border, which changes no area.
    """
    kept = list(points)
    sides: tuple[tuple[int, float, Callable[[float], bool]], ...] = (
        (0, 0.0, lambda value: value >= 0.0),
        (0, width, lambda value: value <= width),
        (1, 0.0, lambda value: value >= 0.0),
        (1, height, lambda value: value <= height),
    )
    for axis, border, inside in sides:
        if all(inside(point[axis]) for point in kept):
            continue
        cut: list[Point] = []
        before = kept[-1]
        for point in kept:
            if inside(point[axis]) != inside(before[axis]):
                cut.append(_crossing(before, point, axis, border))
            if inside(point[axis]):
                cut.append(point)
            before = point
        kept = cut
    return kept


def _crossing(a: Point, b: Point, axis: int, border: float) -> Point:
    """Where the line from a to b crosses a border, exactly on it."""
    other = 1 - axis
    along = a[other] + (border - a[axis]) / (b[axis] - a[axis]) * (b[other] - a[other])
    return (border, along) if axis == 0 else (along, border)


def join_outlines(parts: Sequence[Sequence[Point]]) -> list[Point]:
    """Joins the outlines of an object's parts by bridges without width, each between the nearest corners.

    Filling the result, by the even-odd rule or by winding, fills all parts and nothing else.
    """
    whole = list(parts[0])
    for part in parts[1:]:
        here, there = np.array(whole), np.array(part)
        gaps = ((here[:, None] - there[None]) ** 2).sum(axis=2)
        at, entry = divmod(int(gaps.argmin()), len(there))
        loop = [*part[entry:], *part[: entry + 1]]  # around once, back at the entry
        whole = [*whole[: at + 1], *loop, *whole[at:]]
    return whole
