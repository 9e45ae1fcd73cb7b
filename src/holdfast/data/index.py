"""All images and labels of a split as a handful of flat arrays.

No Python object per image: forked workers share the memory without copying it (touching a list of strings
copies its pages through reference counts), and a million images take some 200 MB. Nothing is written beside
the data: the folder may be read-only.

Images that cannot be used are left out and counted by reason; the run goes on with the rest.

Dimensions: N images, M boxes over all images, P bytes over all paths, Q points of all outlines, K keypoints.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.data.annotation import Rules
from holdfast.data.find import find_images as find_images
from holdfast.data.find import label_path as label_path
from holdfast.data.find import share_a_label, suffix_list
from holdfast.data.objects import Objects
from holdfast.data.problems import Problems as Problems
from holdfast.data.random import Draw, draws
from holdfast.data.scan import Packed, Scan, joined, scan, show
from holdfast.errors import DataError

_CHUNK = 128


@dataclass(frozen=True)
class Index:
    """A split: which images, how large, what is in them.

    Coordinates are in parts of the image; `objects` and `labels` give pixels.

    Attributes:
        names: class names by index.
        path_bytes: (P,) uint8, all paths one after the other in the file system's encoding.
        path_offsets: (N + 1,) int64, where each path starts.
        sizes: (N, 2) int32, upright height and width in pixels.
        offsets: (N + 1,) int64, where the boxes of each image start.
        classes: (M,) int32.
        boxes: (M, 4) float32, cx cy w h.
        problems: what was noticed while scanning.
        points: (Q, 2) float32, outlines of all objects, one after the other.
        starts: (M + 1,) int32 (int64 beyond 2**31 points), where the outline of each object starts; (0,) when
            no object has one.
        keypoints: (M, K, 3) float32, x, y and visibility; K is 0 outside pose data sets.
        corners: (M, 4, 2) float32; (M, 0, 2) unless boxes are oriented.
    """

    names: dict[int, str]
    path_bytes: npt.NDArray[np.uint8]
    path_offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    problems: Problems
    points: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    starts: npt.NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, np.int32))
    keypoints: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 3), np.float32))
    corners: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 2), np.float32))

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over paths, sizes and labels: equal only when a run would see the same data set."""
        digest = hashlib.sha256()
        arrays = (
            self.path_bytes,
            self.path_offsets,
            self.sizes,
            self.offsets,
            self.classes,
            self.boxes,
            self.points,
            self.starts,
            self.keypoints,
            self.corners,
        )
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def backgrounds(self) -> int:
        """How many images have no box."""
        return int((np.diff(self.offsets) == 0).sum())

    def path(self, i: int) -> str:
        """Returns the path of an image; names that are not UTF-8 survive (surrogate escapes)."""
        return os.fsdecode(self.path_bytes[self.path_offsets[i] : self.path_offsets[i + 1]].tobytes())

    @property
    def paths(self) -> list[str]:
        """All paths, built anew at each call."""
        return [self.path(i) for i in range(len(self))]

    def labels(self, i: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Returns the classes (m,) int64 and boxes (m, 4) float32 xyxy in original pixels of an image."""
        part = slice(self.offsets[i], self.offsets[i + 1])
        height, width = self.sizes[i]
        boxes = self.boxes[part] * np.array([width, height, width, height], dtype=np.float32)
        half = boxes[:, 2:] / 2
        return self.classes[part].astype(np.int64), np.concatenate(
            [boxes[:, :2] - half, boxes[:, :2] + half], axis=1
        )

    def objects(self, i: int) -> Objects:
        """Returns all that is known of the objects on an image, in original pixels."""
        classes, boxes = self.labels(i)
        objects = Objects.of_boxes(classes, boxes)
        first, last = self.offsets[i : i + 2].tolist()
        extent = self.sizes[i, ::-1].astype(np.float32)  # width, height
        if len(self.starts):
            starts = self.starts[first : last + 1].astype(np.int64)
            outlines = self.points[starts[0] : starts[-1]] * extent
            objects = replace(objects, points=outlines, starts=starts - starts[0])
        if self.keypoints.shape[1]:
            keypoints = self.keypoints[first:last].copy()
            keypoints[..., :2] *= extent
            objects = replace(objects, keypoints=keypoints)
        if self.corners.shape[1]:
            objects = replace(objects, corners=self.corners[first:last] * extent)
        return objects


def build_index(
    sources: Sequence[Path | str],
    *,
    names: Mapping[int, str],
    single_cls: bool = False,
    fraction: float = 1.0,
    min_items: int = 0,
    keypoints: tuple[int, int] | None = None,
    oriented: bool = False,
    workers: int = 8,
) -> Index:
    """Scans images and labels.

    Args:
        sources: folders (searched to any depth), images, list files (.txt, one image per line) and glob
            patterns.
        names: class names by index.
        single_cls: take every class for class 0.
        fraction: share of the images to take; the choice depends on their number only, and a larger share
            holds the smaller ones.
        min_items: leave out images with fewer boxes.
        keypoints: (count, numbers per point) when label rows carry keypoints.
        oriented: labels are corners of oriented boxes.
        workers: threads.

    Raises:
        DataError: no image found, none usable, or not one label file.
    """
    images = find_images(sources)
    where = ", ".join(str(source) for source in sources)
    if not images:
        raise DataError("no images found.", path=where, hint=f"Expected files ending in {suffix_list()}.")
    if fraction < 1:
        order = np.argsort(draws(0, 0, 0, Draw.FRACTION).random(len(images)), kind="stable")
        images = [images[i] for i in sorted(order[: max(round(fraction * len(images)), 1)].tolist())]
    rules = Rules(len(names), single_cls, keypoints, oriented)
    scans = _scan_all(images, rules, min_items, workers)
    problems = Problems()
    for part in scans:
        problems.add(part.problems)
    for one, other in share_a_label(images):
        problems.note("images that share a label file", f"{show(one)} and {os.path.basename(show(other))}")
    packed = joined([part.packed for part in scans])
    if not len(packed.sizes):
        raise DataError(
            f"none of {len(images)} images can be used. {problems.worst()}",
            path=where,
            hint="Mend the data set.",
        )
    if not any(part.label_files for part in scans):
        first = packed.path_bytes[: packed.path_lengths[0]].tobytes()
        raise DataError(
            f"no label file found for any of {len(images)} images "
            f"(looked for {os.fsdecode(label_path(first))}).",
            path=where,
            hint="Put labels in a folder 'labels' that mirrors 'images' (empty file: no objects).",
        )
    return _index(packed, {0: "object"} if single_cls else dict(names), problems)


def _scan_all(images: list[bytes], rules: Rules, min_items: int, workers: int) -> list[Scan]:
    chunks = [images[at : at + _CHUNK] for at in range(0, len(images), _CHUNK)]

    def run(chunk: list[bytes]) -> Scan:
        return scan(chunk, rules, min_items)

    if workers > 1 and len(chunks) > 1:
        with ThreadPoolExecutor(workers, thread_name_prefix="holdfast-scan") as pool:
            return list(pool.map(run, chunks))
    return [run(chunk) for chunk in chunks]


def _index(packed: Packed, names: dict[int, str], problems: Problems) -> Index:
    return Index(
        names=names,
        path_bytes=packed.path_bytes,
        path_offsets=_offsets(packed.path_lengths),
        sizes=packed.sizes,
        offsets=_offsets(packed.counts),
        classes=packed.classes,
        boxes=packed.boxes,
        problems=problems,
        points=packed.points,
        starts=_starts(packed.lengths, len(packed.points)),
        keypoints=packed.keypoints,
        corners=packed.corners,
    )


def _offsets(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], lengths.cumsum(dtype=np.int64)]).astype(np.int64)


def _starts(lengths: npt.NDArray[np.int32], points: int) -> npt.NDArray[np.integer]:
    if not points:
        return np.zeros(0, np.int32)
    return _offsets(lengths).astype(np.int32 if points < 2**31 else np.int64)
