"""A split as a handful of flat arrays: which images, how large, what is in them.

No Python object per image: forked workers share the memory without copying it (touching a list of strings
copies its pages through reference counts), and a million images take some 200 MB.

Dimensions: N images, M boxes over all images, P bytes over all paths, Q points of all outlines, K keypoints.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from holdfast.data.objects import Objects
from holdfast.data.problems import Problems

ARRAYS = (
    "path_bytes",
    "path_offsets",
    "sizes",
    "offsets",
    "classes",
    "boxes",
    "points",
    "starts",
    "keypoints",
    "corners",
)


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
        sigmas: (K,) spread of the labels of each keypoint; empty outside pose data sets.
        notes: what the user should hear about how the index came about.
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
    sigmas: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over paths, sizes and labels: equal only when a run would see the same data set."""
        digest = hashlib.sha256()
        for name in ARRAYS:
            digest.update(np.ascontiguousarray(getattr(self, name)).data)
        return digest.hexdigest()

    @property
    def only_boxes(self) -> bool:
        """Whether nothing but boxes is known of any object."""
        return not (len(self.starts) or self.keypoints.shape[1] or self.corners.shape[1])

    @property
    def backgrounds(self) -> int:
        """How many images have no box."""
        return int((np.diff(self.offsets) == 0).sum())

    @property
    def fullest(self) -> int:
        """How many boxes the image with the most of them has."""
        return int(np.diff(self.offsets).max(initial=0))

    def with_note(self, note: str) -> Index:
        """The same index with one more note."""
        return replace(self, notes=(*self.notes, note))

    def path(self, i: int) -> str:
        """Returns the path of an image; names that are not UTF-8 survive (surrogate escapes)."""
        return os.fsdecode(self.path_bytes[self.path_offsets[i] : self.path_offsets[i + 1]].tobytes())

    def size(self, i: int) -> tuple[int, int]:
        """Returns the height and width of an image in pixels."""
        height, width = self.sizes[i].tolist()
        return height, width

    @property
    def paths(self) -> list[str]:
        """All paths, built anew at each call."""
        return [self.path(i) for i in range(len(self))]

    def labels(self, i: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Returns the classes (m,) int64 and boxes (m, 4) float32 xyxy in original pixels of an image."""
        classes, boxes, _ = self.labels_of([i])
        return classes, boxes

    def labels_of(
        self, images: Sequence[int]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Returns `labels` of one or more images, one after the other, and how many each has, (n,) int64."""
        starts = self.offsets[[*images, *(i + 1 for i in images)]].reshape(2, -1)
        parts = [slice(first, last) for first, last in starts.T.tolist()]
        counts = starts[1] - starts[0]
        parts_of_image = np.concatenate([self.boxes[part] for part in parts])
        extents = self.sizes[images][:, (1, 0, 1, 0)].astype(np.float32)  # width, height, width, height
        boxes = parts_of_image * extents.repeat(counts, axis=0)
        half = boxes[:, 2:] / 2
        return (
            np.concatenate([self.classes[part] for part in parts], dtype=np.int64),
            np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1),
            counts,
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
