"""COCO json: what it says about each image, judged object by object.

Boxes are those of `bbox`; where there is none they are the extent of the outline. Crowd regions mark many
objects at once: they are skipped and counted. Outlines in several parts are joined; masks in run lengths
(RLE) are traced. Categories go by name; without names, by the order of their ids.
"""

from __future__ import annotations

import json
import math
import os
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from holdfast.data.annotation import (
    Annotation,
    Labels,
    Refused,
    Rules,
    corners_of,
    cut_box,
    cut_outline,
    frame_of,
    no_keypoints,
    pack,
    settle_keypoints,
)
from holdfast.data.json_lists import entries, read_bytes
from holdfast.data.outlines import Point, join_outlines
from holdfast.data.problems import Fault, Problems
from holdfast.data.rle import trace
from holdfast.errors import DataError

_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_LIMIT = 1e9  # no coordinate in pixels is larger


class CocoObject(NamedTuple):
    """One annotation, in pixels. Many numbers are arrays: tuples of floats take eight times the memory.

    Attributes:
        where: how messages call it.
        label: class index, or -1 when the data set has no such class.
        category: how messages call its category.
        crowd: it stands for many objects.
        box: x y w h.
        parts: x y x y ... of each part of its outline.
        rle: mask in run lengths.
        keypoints: x y visibility of each.
        damaged: there is an object, but nothing more can be said of it.
    """

    where: str
    label: int
    category: str
    crowd: bool
    box: tuple[float, ...] | None
    parts: tuple[array[float], ...]
    rle: dict[str, Any] | None
    keypoints: array[float] | None
    damaged: bool = False


class CocoImage(NamedTuple):
    """One image: its path, the size its annotations were made at (0, 0 when not told), its objects."""

    path: bytes
    height: int
    width: int
    objects: list[CocoObject]


def listed_images(path: Path, folders: Sequence[Path]) -> list[bytes]:
    """Lists the images that a file names, without reading the rest of it.

    Args:
        path: the json file.
        folders: where images are looked for first.

    Raises:
        DataError: unreadable, or without images.
    """
    names = [name for quoted in _FILE_NAME.findall(read_bytes(path)) if (name := _unquoted(quoted))]
    if not names:
        raise DataError(
            "names no images.",
            path=path,
            hint="Expected COCO json with 'images', 'annotations', 'categories'.",
        )
    places = _places(path, folders)
    return [_locate(name, places) for name in dict.fromkeys(names)]


def _unquoted(text: bytes) -> str:
    try:
        return str(json.loads(text))
    except ValueError:  # reading the whole file will tell
        return ""


def read_coco(
    path: Path, folders: Sequence[Path], names: Sequence[str], problems: Problems
) -> dict[bytes, CocoImage | None]:
    """Reads a file.

    Args:
        path: the json file.
        folders: where images are looked for first.
        names: class names by index.
        problems: takes what was noticed.

    Returns:
        What is known of each image, by its path; None where its entry is damaged.

    Raises:
        DataError: not COCO json.
    """
    images: dict[Any, CocoImage] = {}
    categories: dict[Any, str] = {}
    found: list[tuple[Any, Any, CocoObject]] = []
    by_path: dict[bytes, CocoImage | None] = {}
    places = _places(path, folders)
    for section, number, entry in entries(path):
        where = f"{path}: {section}[{number}]"
        if section == "images":
            image = _image(entry, places)
            if image is None:
                problems.note("damaged image entry", f"{where}: {_short(entry)}")
                if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
                    by_path[_locate(entry["file_name"], places)] = None
            else:
                images[_key(entry.get("id"))] = image
        elif section == "categories" and isinstance(entry, dict):
            categories[_key(entry.get("id"))] = str(entry.get("name", ""))[:200]
        elif section == "annotations":
            item = _object(entry, f"annotation {number}")
            if item is None:
                problems.note("damaged annotation", f"{where}: {_short(entry)}")
                problems.dropped_rows += 1
            else:
                found.append((_key(entry.get("image_id")), _key(entry.get("category_id")), item))
    if not images:
        raise DataError("names no usable image.", path=path, hint="Expected entries with id and file_name.")
    classes = _classes(categories, [category for _, category, _ in found], names)
    for image_id, category, item in found:
        if image_id not in images:
            problems.note("annotation of no image", f"{path}: {item.where}: image_id {_short(image_id)}")
            problems.dropped_rows += 1
            continue
        label = classes.get(category, -1)
        known = categories.get(category, f"category_id {_short(category)}")
        images[image_id].objects.append(item._replace(label=label, category=known))
    for image in images.values():
        first = by_path.get(image.path)
        if first is not None:
            first.objects.extend(image.objects)
        else:
            by_path[image.path] = image
    return by_path


def coco_labels(image: CocoImage, size: tuple[int, int], rules: Rules) -> Labels:
    """Judges the objects of an image.

    Args:
        image: what the file says.
        size: upright height and width of the image itself.
        rules: what labels hold.
    """
    faults: list[Fault] = []
    height, width = frame_of((image.height, image.width), size, faults)
    seen: dict[Annotation, None] = {}
    rows = 0
    for item in image.objects:
        if item.crowd:
            faults.append(Fault("crowd region skipped", item.where, 0, True))
            continue
        rows += 1
        if item.damaged:
            faults.append(Fault("damaged annotation", item.where, 0, True))
            continue
        try:
            annotation = _annotation(item, height, width, rules, faults)
        except Refused as refused:
            reason, detail = refused.args
            faults.append(Fault(reason, f"{item.where}: {detail}", 0, True))
            continue
        if annotation in seen:
            faults.append(Fault("duplicate row", item.where, 0, False))
        seen[annotation] = None
    return pack(seen, faults, rows, rules)


def _annotation(item: CocoObject, height: int, width: int, rules: Rules, faults: list[Fault]) -> Annotation:
    """Returns an object in parts of its image.

    Raises:
        Refused: it cannot be used.
    """
    if item.label < 0 and not rules.single_class:
        raise Refused("class not in data.yaml", item.category)
    parts: list[list[Point]] = [
        [(x / width, y / height) for x, y in zip(part[::2], part[1::2], strict=True)] for part in item.parts
    ]
    if item.rle is not None:
        traced = trace(item.rle, height, width)
        if not traced:
            faults.append(Fault("mask not read", item.where, 0, False))
        parts += traced
    outline: tuple[float, ...] = ()
    extent = None
    if parts:
        try:
            outline, extent, _ = cut_outline(join_outlines(parts))
        except Refused:
            if item.box is None:
                raise
    if item.box is not None:
        x, y, w, h = item.box
        if w <= 0 or h <= 0:
            raise Refused("no area", f"width {w:g}, height {h:g}")
        box, far = cut_box(x / width, y / height, (x + w) / width, (y + h) / height)
        if far:
            faults.append(Fault("box cut at the image border", item.where, 0, False))
    elif extent is not None:
        box = extent
    else:
        raise Refused("object without a box", "neither bbox nor outline")
    corners: tuple[float, ...] = ()
    if rules.oriented:
        corners, outline = _corners(item, outline, box, height, width, faults), ()
    return Annotation(
        max(item.label, 0) if not rules.single_class else 0,
        box,
        outline,
        _points(item, height, width, rules, faults),
        corners,
    )


def _points(
    item: CocoObject, height: int, width: int, rules: Rules, faults: list[Fault]
) -> tuple[float, ...]:
    if rules.keypoints is None:
        return ()
    given = item.keypoints or array("f")
    if len(given) != 3 * rules.keypoints[0]:
        reason = "keypoints do not fit kpt_shape" if given else "row without keypoints"
        faults.append(Fault(reason, f"{item.where}: {len(given)} numbers", 0, False))
        return no_keypoints(rules)
    scaled = [
        value
        for x, y, seen in zip(given[::3], given[1::3], given[2::3], strict=True)
        for value in (x / width, y / height, seen)
    ]
    return settle_keypoints(scaled, faults, 0)


def _corners(
    item: CocoObject,
    outline: tuple[float, ...],
    box: tuple[float, float, float, float],
    height: int,
    width: int,
    faults: list[Fault],
) -> tuple[float, ...]:
    """Corners of the smallest turned rectangle around an outline, which has to be found in pixels."""
    if not outline:
        faults.append(Fault("upright box among oriented ones", item.where, 0, False))
        return corners_of(box)
    size = np.array([width, height], dtype=np.float32)
    pixels = np.array(outline, dtype=np.float32).reshape(-1, 2) * size
    around = cv2.boxPoints(cv2.minAreaRect(pixels)) / size
    return tuple(around.reshape(-1).tolist())


def _image(entry: Any, places: Sequence[bytes]) -> CocoImage | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str) or "id" not in entry:
        return None
    sides = _numbers([entry.get("height", 0), entry.get("width", 0)])
    height, width = (int(side) for side in sides) if sides and min(sides) >= 1 else (0, 0)
    return CocoImage(_locate(entry["file_name"], places), height, width, [])


def _object(entry: Any, where: str) -> CocoObject | None:
    if not isinstance(entry, dict) or "image_id" not in entry:
        return None
    if "id" in entry:
        where = f"annotation {_short(entry['id'])}"
    box = entry.get("bbox")
    numbers = _numbers(box) if box else None
    if box and (numbers is None or len(numbers) != 4):
        crowd = bool(entry.get("iscrowd"))
        return CocoObject(f"{where}: {_short(entry)}", -1, "", crowd, None, (), None, None, damaged=True)
    drawn = entry.get("segmentation")
    parts: list[array[float]] = []
    if isinstance(drawn, list):
        if drawn and not isinstance(drawn[0], list):
            drawn = [drawn]  # some exports leave the inner brackets out
        for part in drawn:
            values = _numbers(part)
            if values is not None and len(values) >= 6 and len(values) % 2 == 0:
                parts.append(array("f", values))
    points = _numbers(entry.get("keypoints"))
    return CocoObject(
        where,
        -1,
        "",
        bool(entry.get("iscrowd")),
        numbers,
        tuple(parts),
        drawn if isinstance(drawn, dict) else None,
        array("f", points) if points else None,
    )


def _numbers(values: Any) -> tuple[float, ...] | None:
    """A list of finite numbers of a sane size, or None."""
    if not isinstance(values, list):
        return None
    if not all(isinstance(value, int | float) and -_LIMIT < value < _LIMIT for value in values):
        return None
    return tuple(float(value) for value in values)


def _classes(categories: dict[Any, str], used: Sequence[Any], names: Sequence[str]) -> dict[Any, int]:
    """Returns the class index of each category id."""
    if categories:
        exact = {name: index for index, name in reversed(list(enumerate(names)))}
        loose = {_plain(name): exact[name] for name in reversed(names)}
        found = {number: exact.get(name, loose.get(_plain(name), -1)) for number, name in categories.items()}
        if any(index >= 0 for index in found.values()):
            return found
        stand_ins = all(name == f"class{index}" for index, name in enumerate(names))
        if stand_ins and len(categories) == len(names):  # data.yaml tells the number of classes only
            return {number: index for index, number in enumerate(sorted(categories, key=_by_number))}
        return found
    whole = {number for number in used if isinstance(number, int) and not isinstance(number, bool)}
    first = 1 if whole and min(whole) >= 1 and max(whole) <= len(names) else 0
    return {number: number - first for number in whole if 0 <= number - first < len(names)}


def _by_number(key: Any) -> tuple[bool, Any]:
    return (False, key) if isinstance(key, int | float) and not math.isnan(key) else (True, str(key))


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _key(value: Any) -> Any:
    """An id as a key: lists and objects become text."""
    return value if isinstance(value, int | float | str) or value is None else _short(value)


def _short(value: Any) -> str:
    return str(value)[:80] if not isinstance(value, list | dict) else json.dumps(value)[:80]


def _places(path: Path, folders: Sequence[Path]) -> list[bytes]:
    """Folders in which the images of a file may be, most expected first.

    A file `instances_train2017.json` has its images in `train2017`, beside it or in `images`.
    """
    here = path.absolute().parent
    stem = path.stem.removesuffix(".coco")
    inner = list(dict.fromkeys(("", stem.rsplit("_", 1)[-1], stem)))
    bases = [*folders, here, here.parent, here.parent / "images", here / "images"]
    return list(dict.fromkeys(os.fsencode(base / name) for base in bases for name in inner))


def _locate(name: str, places: Sequence[bytes]) -> bytes:
    try:
        entry = os.fsencode(name)
    except UnicodeEncodeError:  # half a character, which json can name and no file can
        entry = name.encode("utf-8", "replace")
    written = (entry, entry.replace(b"\\", b"/")) if b"\\" in entry else (entry,)
    candidates = [os.path.normpath(os.path.join(place, part)) for part in written for place in places]
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])
