"""What validations say, whatever the task: one interface, and the metrics that are not those of boxes alone.

Every kind has `columns` (names of its headline numbers), `results_dict` (these and the fitness), `fitness`,
`confusion`, `parts` (each set of curves, with the front of its files' names), `rows` and `summary`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from holdfast.evaluate.coco import DetectionMetrics, columns_of
from holdfast.evaluate.confusion import ConfusionMatrix
from holdfast.evaluate.fitness import fitness


class Metrics(Protocol):
    """What training, reports and doors ask of the metrics of any task."""

    columns: ClassVar[tuple[str, ...]]

    @property
    def names(self) -> dict[int, str]:
        """Class index to name."""

    @property
    def images(self) -> int:
        """Images seen."""

    @property
    def results_dict(self) -> dict[str, float]:
        """The headline numbers by their `columns`, and `fitness`."""

    @property
    def fitness(self) -> float:
        """What the best checkpoint is chosen by."""

    @property
    def quality(self) -> NDArray[np.float64]:
        """(C,) from 0 to 1, how well each class is found; the mean for one without objects."""

    @property
    def confusion(self) -> ConfusionMatrix:
        """Counts of what was said and what was there."""

    @property
    def parts(self) -> Mapping[str, DetectionMetrics]:
        """Sets of curves by the front of their files' names: "" alone, or Box and Mask."""

    @property
    def details(self) -> dict[str, Any]:
        """What results.json says beside the headline numbers and the classes."""

    def summary(self, *, decimals: int = 5) -> list[dict[str, Any]]:
        """Returns one row per class that has objects."""


@dataclass(frozen=True, repr=False)
class _BoxAnd:
    """Metrics of boxes and of what they hold.

    Attributes:
        box: of the boxes.
        other: of what they hold.
    """

    columns: ClassVar[tuple[str, ...]]
    title: ClassVar[str]

    box: DetectionMetrics
    other: DetectionMetrics

    def __repr__(self) -> str:
        return f"{type(self).__name__}(box {self.box!r}, {self.title.lower()} {self.other!r})"

    @property
    def names(self) -> dict[int, str]:
        """Class index to name."""
        return self.box.names

    @property
    def images(self) -> int:
        """Images seen."""
        return self.box.images

    @property
    def results_dict(self) -> dict[str, float]:
        """The headline numbers of both under the names users know from other trainers, and the fitness."""
        return {**self._numbers, "fitness": self.fitness}

    @property
    def fitness(self) -> float:
        """The sum of both."""
        return fitness(self._numbers)

    @property
    def _numbers(self) -> dict[str, float]:
        return dict(zip(self.columns, (*self.box.headline, *self.other.headline), strict=True))

    @property
    def maps(self) -> NDArray[np.float64]:
        """(C,) the sum of both per class."""
        total: NDArray[np.float64] = self.box.maps + self.other.maps
        return total

    @property
    def quality(self) -> NDArray[np.float64]:
        """(C,) the AP of each class by what the boxes hold, 0 to 1."""
        return self.other.maps

    @property
    def confusion(self) -> ConfusionMatrix:
        """That of the boxes."""
        return self.box.confusion

    @property
    def parts(self) -> dict[str, DetectionMetrics]:
        """Both."""
        return {"Box": self.box, self.title: self.other}

    @property
    def details(self) -> dict[str, Any]:
        """Of both, by their titles."""
        return {title.lower(): part.details for title, part in self.parts.items()}

    def summary(self, *, decimals: int = 5) -> list[dict[str, Any]]:
        """Returns one row per class that has objects: those of boxes, then what else was measured."""
        others = {row["class"]: row for row in self.other.summary(decimals=decimals)}
        rows = []
        for row in self.box.summary(decimals=decimals):
            more = others.get(row["class"], {})
            measured = ("precision", "recall", "f1", "map50", "map50_95")
            rows.append(row | {f"{self.title.lower()}_{k}": more[k] for k in measured if k in more})
        return rows


class SegmentMetrics(_BoxAnd):
    """Metrics of boxes (`box`) and of masks (`seg`)."""

    columns = (*columns_of("B"), *columns_of("M"))
    title = "Mask"

    @property
    def seg(self) -> DetectionMetrics:
        """Of the masks."""
        return self.other


class PoseMetrics(_BoxAnd):
    """Metrics of boxes (`box`) and of keypoints (`pose`)."""

    columns = (*columns_of("B"), *columns_of("P"))
    title = "Pose"

    @property
    def pose(self) -> DetectionMetrics:
        """Of the keypoints."""
        return self.other


@dataclass(frozen=True, repr=False)
class ClassifyMetrics:
    """What a validation says about a classifier.

    Attributes:
        names: class index to name.
        top1: share of images whose class was the most probable one.
        top5: share of images whose class was among the five most probable ones.
        images: images seen.
        nt: (C,) int64 images per class.
        hits1, hits5: (C,) int64 of these right in either sense.
        confusion: the most probable class against the true one.
    """

    columns: ClassVar[tuple[str, ...]] = ("metrics/accuracy_top1", "metrics/accuracy_top5")

    names: dict[int, str]
    top1: float
    top5: float
    images: int
    nt: NDArray[np.int64]
    hits1: NDArray[np.int64]
    hits5: NDArray[np.int64]
    confusion: ConfusionMatrix

    def __repr__(self) -> str:
        return f"ClassifyMetrics({self.images} images: top-1 {self.top1:.3f}, top-5 {self.top5:.3f})"

    @property
    def results_dict(self) -> dict[str, float]:
        """Both numbers under the names users know from other trainers, and the fitness."""
        return {**self._numbers, "fitness": self.fitness}

    @property
    def fitness(self) -> float:
        """The mean of both."""
        return fitness(self._numbers)

    @property
    def _numbers(self) -> dict[str, float]:
        return dict(zip(self.columns, (self.top1, self.top5), strict=True))

    @property
    def quality(self) -> NDArray[np.float64]:
        """(C,) the share of each class's images that is right at once."""
        return np.where(self.nt > 0, self.hits1 / np.maximum(self.nt, 1), self.top1)

    @property
    def parts(self) -> dict[str, DetectionMetrics]:
        """There are no curves."""
        return {}

    @property
    def details(self) -> dict[str, Any]:
        """Nothing further."""
        return {}

    def summary(self, *, decimals: int = 5) -> list[dict[str, Any]]:
        """Returns one row per class that has images."""
        return [
            {
                "class": self.names[c],
                "images": int(self.nt[c]),
                "top1": round(float(self.hits1[c] / self.nt[c]), decimals),
                "top5": round(float(self.hits5[c] / self.nt[c]), decimals),
            }
            for c in np.flatnonzero(self.nt).tolist()
        ]


class ClassifyEvaluator:
    """Collects probabilities and true classes image by image, then computes the metrics.

    Args:
        names: class index to name; indices 0..C-1.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = dict(names)
        count = max(self.names, default=-1) + 1
        self._hits = np.zeros((2, count), dtype=np.int64)
        self._images = np.zeros(count, dtype=np.int64)
        self._confusion = ConfusionMatrix(count, conf=0.0)

    def update(self, probabilities: Sequence[float] | NDArray[np.float32], truth: int) -> None:
        """Adds one image.

        Args:
            probabilities: (C,); of equal ones the lower class goes first, and NaN last.
            truth: its class.
        """
        falling = np.argsort(-np.asarray(probabilities, dtype=np.float64), kind="stable")
        self._images[truth] += 1
        self._hits[0, truth] += int(falling[0]) == truth
        self._hits[1, truth] += truth in falling[:5].tolist()
        self._confusion.matrix[int(falling[0]), truth] += 1

    def miss(self, truth: int) -> None:
        """Adds an image of class `truth` of which nothing was said."""
        self._images[truth] += 1
        self._confusion.matrix[-1, truth] += 1

    def compute(self) -> ClassifyMetrics:
        """Returns the metrics of everything added so far; more images may follow."""
        total = int(self._images.sum())
        top1, top5 = (self._hits.sum(axis=1) / max(total, 1)).tolist()
        first, second = self._hits.copy()
        return ClassifyMetrics(
            self.names, top1, top5, total, self._images.copy(), first, second, self._confusion
        )
