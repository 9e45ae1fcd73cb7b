"""The parts of a result as rows of texts: label files and summaries.

A label row is the class and numbers as fractions of the image: of a box its centre and size, of an oriented
box its corners, of a mask its outline instead, with keypoints behind; then the confidence and the track id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.post.boxes import Rows
from holdfast.post.keypoints import Keypoints
from holdfast.post.masks import Masks
from holdfast.post.probs import Probs

Name = Callable[[int], str]


def label_lines(
    rows: Rows, masks: Masks | None = None, keypoints: Keypoints | None = None, *, save_conf: bool
) -> list[str]:
    """Label rows of the objects of one image; an object whose mask is empty is told by its box."""
    own = rows.numpy()
    places = own.label_numbers.tolist()
    if masks is not None:
        outlines = [points.ravel().tolist() for points in masks.xyn]
        places = [outline or place for outline, place in zip(outlines, places, strict=True)]
    if keypoints is not None:
        more = keypoints.label_numbers.tolist()
        places = [place + points for place, points in zip(places, more, strict=True)]
    lines = []
    for i, place in enumerate(places):
        numbers = [*place, *([float(own.conf[i])] if save_conf else [])]
        track = [str(int(own.id[i]))] if own.is_track else []
        lines.append(" ".join([str(int(own.cls[i])), *(f"{v:.6g}" for v in numbers), *track]))
    return lines


def class_lines(probs: Probs, name: Name) -> list[str]:
    """The most probable classes, one a row: probability and name."""
    data = probs.array
    return [f"{data[c]:.2f} {name(c)}" for c in probs.top5]


def object_rows(
    rows: Rows, others: list[Masks | Keypoints], name: Name, *, normalize: bool, decimals: int
) -> list[dict[str, Any]]:
    """One dictionary per object: name, class, confidence, box, track_id when tracked, segments, keypoints."""
    own = rows.numpy()
    boxes = own.details(normalize, decimals)
    more = [part.details(normalize, decimals) for part in others]
    result: list[dict[str, Any]] = []
    for i, (conf, label) in enumerate(zip(own.conf.tolist(), own.cls.tolist(), strict=True)):
        row = {"name": name(int(label)), "class": int(label), "confidence": round(conf, decimals), **boxes[i]}
        if own.is_track:
            row["track_id"] = int(own.id[i])
        for part in more:
            row |= part[i]
        result.append(row)
    return result


def flat_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table: corners under their own names, the numbers of outlines and keypoints as lists."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "box":
            flat |= value
        elif isinstance(value, dict):
            flat |= {f"{key}_{axis}": numbers for axis, numbers in value.items()}
        else:
            flat[key] = value
    return flat
