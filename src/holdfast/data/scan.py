"""Reads sizes and labels of images, some hundred at a time, into flat arrays.

Dimensions: N images, M boxes over all images, P points of all outlines, K keypoints.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.data.annotation import Labels, Rules
from holdfast.data.coco_json import CocoImage, coco_labels
from holdfast.data.find import LabelPlaces
from holdfast.data.image import read_size
from holdfast.data.labels import read_rows
from holdfast.data.problems import Problems
from holdfast.data.voc_xml import read_voc
from holdfast.errors import DataError

MIN_SIDE = 10  # pixels; smaller images show nothing


class Packed(NamedTuple):
    """Images and labels as arrays.

    Attributes:
        path_bytes: (P,) uint8, all paths one after the other in the file system's encoding.
        path_lengths: (N,) int64.
        sizes: (N, 2) int32, upright height and width in pixels.
        counts: (N,) int64, boxes of each image.
        classes: (M,) int32.
        boxes: (M, 4) float32, cx cy w h in parts of the image.
        points: (P, 2) float32 in parts of the image, the outlines one after the other.
        lengths: (M,) int32, points of each outline.
        keypoints: (M, K, 3) float32, x and y in parts of the image, and visibility; K is 0 outside pose data
            sets.
        corners: (M, 4, 2) float32 in parts of the image; (M, 0, 2) unless boxes are oriented.
    """

    path_bytes: npt.NDArray[np.uint8]
    path_lengths: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int32]
    keypoints: npt.NDArray[np.float32]
    corners: npt.NDArray[np.float32]


class Scan(NamedTuple):
    """Result of a scan: what can be used, how many label files there were, what was noticed."""

    packed: Packed
    label_files: int
    problems: Problems


def scan(images: Sequence[bytes | CocoImage], rules: Rules, min_items: int) -> Scan:
    """Reads images and labels.

    Args:
        images: paths, or what a COCO json says of an image.
        rules: what labels hold.
        min_items: leave out images with fewer boxes.
    """
    problems, label_files = Problems(), 0
    paths: list[bytes] = []
    sizes: list[tuple[int, int]] = []
    kept: list[Labels] = []
    places = LabelPlaces()
    for entry in images:
        image = entry if isinstance(entry, bytes) else entry.path
        size = usable_size(image, problems)
        if size is None:
            continue
        if isinstance(entry, bytes):
            labels, file = _labels(places.of(image), size, rules, problems)
        else:
            labels, file = coco_labels(entry, size, rules), image
        if labels is None:
            problems.dropped_images += 1
            continue
        label_files += file is not None
        for fault in labels.faults:
            problems.note_fault(show(file or image), fault)
        if labels.rows and not len(labels.boxes):
            # Objects are there but not known: as a background the image would teach the opposite.
            problems.note(
                "no usable row", f"{show(file or image)}: {labels.rows} rows, none usable; image left out"
            )
            problems.dropped_images += 1
            continue
        if len(labels.boxes) < min_items:
            problems.note("fewer boxes than min_items", f"{show(image)}: {len(labels.boxes)} boxes")
            problems.dropped_images += 1
            continue
        paths.append(image)
        sizes.append(size)
        kept.append(labels)
    return Scan(_pack(paths, sizes, kept, rules), label_files, problems)


def joined(parts: Sequence[Packed]) -> Packed:
    """Returns all images of several parts; at least one part."""
    return Packed(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def show(path: bytes) -> str:
    """A path that can always be printed, whatever bytes its name holds."""
    return path.decode("utf-8", "backslashreplace")


def usable_size(image: bytes, problems: Problems) -> tuple[int, int] | None:
    """Upright height and width of an image; None, and a note, where it cannot be used."""
    try:
        size = read_size(os.fsdecode(image))
    except DataError as error:
        problems.note("unreadable image", error.message.rstrip("."))
    except ValueError:  # a NUL in a list of images
        problems.note("unreadable image", f"{show(image)}: not a possible path")
    else:
        if min(size) >= MIN_SIDE:
            return size
        problems.note("image under 10 pixels", f"{show(image)}: {size[1]} x {size[0]} pixels")
    problems.dropped_images += 1
    return None


def _labels(
    places: Iterable[bytes], size: tuple[int, int], rules: Rules, problems: Problems
) -> tuple[Labels | None, bytes | None]:
    """Returns labels and their file; None for labels when the file is there but unreadable."""
    for path in places:
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read()
        except FileNotFoundError:
            if not os.path.islink(path):
                continue
            problems.note("unreadable label file", f"{show(path)}: a link to nowhere; image left out")
            return None, path
        except OSError as error:
            reason = "is a folder" if os.path.isdir(path) else error.strerror
            problems.note("unreadable label file", f"{show(path)}: {reason}; image left out")
            return None, path
        if path.endswith((b".xml", b".XML")):
            return read_voc(data, size, rules), path
        return read_rows(data, rules), path
    return read_rows(b"", rules), None


def _pack(paths: list[bytes], sizes: list[tuple[int, int]], labels: list[Labels], rules: Rules) -> Packed:
    count = rules.keypoints[0] if rules.keypoints is not None else 0
    none = [read_rows(b"", rules)]  # gives empty arrays their shapes
    everything = none + labels
    boxes = np.concatenate([part.boxes for part in everything])
    keypoints = [part.keypoints for part in everything if part.keypoints is not None]
    corners = [part.corners for part in everything if part.corners is not None]
    return Packed(
        np.frombuffer(b"".join(paths), dtype=np.uint8),
        np.array([len(path) for path in paths], dtype=np.int64),
        np.array(sizes, dtype=np.int32).reshape(-1, 2),
        np.array([len(part.classes) for part in labels], dtype=np.int64),
        np.concatenate([part.classes for part in everything]),
        boxes,
        np.concatenate([part.points for part in everything]),
        np.concatenate([part.lengths for part in everything]),
        np.concatenate(keypoints) if keypoints else np.zeros((len(boxes), count, 3), np.float32),
        np.concatenate(corners) if corners else np.zeros((len(boxes), 0, 2), np.float32),
    )
