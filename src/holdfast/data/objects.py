"""The objects of one image as a handful of arrays: boxes, and outlines, keypoints or corners where labels
have them.

Everything that changes an image changes its objects through this type, so an augmentation is right for every
task or for none.

Coordinates are edges in pixels: an image of width w spans [0, w].

Dimensions: M objects, P points of all outlines, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Objects:
    """What is on an image.

    Attributes:
        classes: (M,) int64.
        boxes: (M, 4) xyxy.
        points: (P, 2) outlines of all objects, one after the other; an object may have none.
        starts: (M + 1,) int64, where the outline of each object starts in `points`.
        keypoints: (M, K, 3) x, y and visibility (0 not labelled, 1 hidden, 2 visible), or None.
        corners: (M, 4, 2) corners of oriented boxes, in order around, or None.
    """

    classes: npt.NDArray[np.int64]
    boxes: Floats
    points: Floats
    starts: npt.NDArray[np.int64]
    keypoints: Floats | None = None
    corners: Floats | None = None

    def __len__(self) -> int:
        return len(self.classes)

    @staticmethod
    def of_boxes(classes: npt.NDArray[np.int64], boxes: Floats) -> Objects:
        """Objects with nothing but a box."""
        nothing = np.zeros((0, 2), np.float32)
        return Objects(classes, boxes, nothing, np.zeros(len(classes) + 1, np.int64))

    def outline(self, number: int) -> Floats:
        """Points (p, 2) of one object's outline; none where only its box is known."""
        return self.points[self.starts[number] : self.starts[number + 1]]

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Objects:
        """The objects at a mask (M,) or at indices, in that order."""
        index = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        if not len(self.points) and self.keypoints is None and self.corners is None:
            return Objects.of_boxes(self.classes[index], self.boxes[index])
        lengths = np.diff(self.starts)[index]
        starts = np.concatenate([[0], lengths.cumsum()]).astype(np.int64)
        # Position of every kept point in the old list: its object's old start, plus its place in the outline.
        source = np.arange(starts[-1]) + np.repeat(self.starts[index] - starts[:-1], lengths)
        return Objects(
            self.classes[index],
            self.boxes[index],
            self.points[source],
            starts,
            None if self.keypoints is None else self.keypoints[index],
            None if self.corners is None else self.corners[index],
        )

    def replace(self, **changes: Floats | None) -> Objects:
        """The same objects with some arrays exchanged."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @staticmethod
    def join(parts: Sequence[Objects]) -> Objects:
        """All objects of several lists, which must have keypoints and corners alike; at least one list."""
        shifts = np.cumsum([0, *(len(part.points) for part in parts)])
        starts = [part.starts[:-1] + shift for part, shift in zip(parts, shifts[:-1], strict=True)]
        keypoints = [part.keypoints for part in parts if part.keypoints is not None]
        corners = [part.corners for part in parts if part.corners is not None]
        return Objects(
            np.concatenate([part.classes for part in parts]),
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.points for part in parts]),
            np.concatenate([*starts, shifts[-1:]]).astype(np.int64),
            np.concatenate(keypoints) if keypoints else None,
            np.concatenate(corners) if corners else None,
        )
