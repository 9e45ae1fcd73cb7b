"""The COCO number: average precision of a detector over a data set, through faster-coco-eval.

Traps this file avoids: AP is counted with at most 100 detections per image and class (20 with keypoints; all
oriented boxes) while precision and recall use all of them; a class without objects must not pull the mean
down; and 5,000 images with 300 detections each are 1.5 million Python dictionaries if handed to the evaluator
at once. Detections therefore stay packed in arrays, and the evaluator (whose result for one class does not
depend on another) gets a few classes at a time.

Dimensions: N detections, M objects, C classes, K classes that have objects, T = 10 IoU thresholds, R = 101
recalls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from holdfast.evaluate.average import average_precision_table
from holdfast.evaluate.confusion import ConfusionMatrix
from holdfast.evaluate.curves import ConfidenceCurves, confidence_curves, f1_score
from holdfast.evaluate.fitness import fitness
from holdfast.evaluate.match import as_array, matches_by
from holdfast.evaluate.measure import BoxMeasure, Shapes

NUMBERS = ("precision", "recall", "mAP50", "mAP50-95")


def columns_of(letter: str) -> tuple[str, ...]:
    """Names of the four headline numbers; the letter says of what: B boxes, M masks, P keypoints."""
    return tuple(f"metrics/{name}({letter})" for name in NUMBERS)


@dataclass(frozen=True, repr=False)
class DetectionMetrics:
    """What a validation says about a detector.

    Per-class arrays have one entry per class of the data set; classes without objects hold NaN and do not
    count in the means. All means are 0 when no class has objects.

    Attributes:
        columns: names of the headline numbers, as in `results_dict`.
        names: class index to name.
        map, map50, map75: AP averaged over IoU 0.50:0.95, at 0.50, at 0.75.
        map_small, map_medium, map_large: AP of objects below 32^2, up to 96^2 and above, in pixels of the
            original image; -1 when there is none, as pycocotools has it.
        mp, mr: precision and recall (IoU 0.5), mean over classes, at the confidence of the best smoothed mean
            F1.
        ap, ap50, p, r, f1: (C,) the same per class.
        nt: (C,) int64 objects per class.
        images: images seen.
        images_with: (C,) int64 images that hold the class.
        curves: precision and recall against confidence.
        pr_recall, pr_precision: (R,) and (K, R) the precision envelope at IoU 0.5; its row means are ap50.
        confusion: counts at confidence 0.25 and IoU 0.45.
    """

    columns: ClassVar[tuple[str, ...]] = columns_of("B")

    names: dict[int, str]
    map: float
    map50: float
    map75: float
    map_small: float
    map_medium: float
    map_large: float
    mp: float
    mr: float
    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]
    p: NDArray[np.float64]
    r: NDArray[np.float64]
    f1: NDArray[np.float64]
    nt: NDArray[np.int64]
    images: int
    images_with: NDArray[np.int64]
    curves: ConfidenceCurves
    pr_recall: NDArray[np.float64]
    pr_precision: NDArray[np.float64]
    confusion: ConfusionMatrix

    def __repr__(self) -> str:
        return (
            f"DetectionMetrics({self.images} images, {int(self.nt.sum())} objects: P {self.mp:.3f}, "
            f"R {self.mr:.3f}, mAP50 {self.map50:.3f}, mAP50-95 {self.map:.3f})"
        )

    @property
    def class_index(self) -> NDArray[np.int64]:
        """(K,) classes that have objects."""
        return self.curves.classes

    @property
    def box(self) -> DetectionMetrics:
        """The metrics of boxes, under the name users of other programs write: `metrics.box.map50`."""
        return self

    @property
    def maps(self) -> NDArray[np.float64]:
        """(C,) AP per class; a class without objects shows the mean, so that it can be compared and
        sorted."""
        return np.where(np.isnan(self.ap), self.map, self.ap)

    @property
    def quality(self) -> NDArray[np.float64]:
        """(C,) the AP of each class, 0 to 1."""
        return self.maps

    @property
    def results_dict(self) -> dict[str, float]:
        """The headline numbers under the names users know from other trainers, and the fitness."""
        return {**self._numbers, "fitness": self.fitness}

    @property
    def headline(self) -> tuple[float, float, float, float]:
        """Precision, recall, mAP50 and mAP50-95."""
        return self.mp, self.mr, self.map50, self.map

    @property
    def fitness(self) -> float:
        """What the best checkpoint is chosen by: 0.1 mAP50 + 0.9 mAP50-95."""
        return fitness(self._numbers)

    @property
    def _numbers(self) -> dict[str, float]:
        return dict(zip(self.columns, self.headline, strict=True))

    @property
    def parts(self) -> dict[str, DetectionMetrics]:
        """These alone, under no name."""
        return {"": self}

    @property
    def details(self) -> dict[str, Any]:
        """AP at another threshold and by size."""
        return {
            "mAP75": self.map75,
            "mAP_small": self.map_small,
            "mAP_medium": self.map_medium,
            "mAP_large": self.map_large,
        }

    def summary(self, *, decimals: int = 5) -> list[dict[str, Any]]:
        """Returns one row per class that has objects."""
        return [
            {
                "class": self.names[int(c)],
                "images": int(self.images_with[c]),
                "instances": int(self.nt[c]),
                "precision": round(float(self.p[c]), decimals),
                "recall": round(float(self.r[c]), decimals),
                "f1": round(float(self.f1[c]), decimals),
                "map50": round(float(self.ap50[c]), decimals),
                "map50_95": round(float(self.ap[c]), decimals),
            }
            for c in self.class_index
        ]


class DetectionEvaluator:
    """Collects detections and truth image by image, then computes the metrics.

    Args:
        names: class index to name; indices 0..C-1.
        measure: what makes a detection right; the overlap of boxes when None.

    Example:
        evaluator = DetectionEvaluator({0: "cat"})
        evaluator.update(1, detections=rows, truth_classes=classes, truth_boxes=boxes, size=(480, 640))
        print(evaluator.compute().map)
    """

    def __init__(self, names: Mapping[int, str], measure: BoxMeasure | None = None) -> None:
        self.names = dict(names)
        self.measure = measure or BoxMeasure()
        self.classes = max(self.names, default=-1) + 1
        self._ids: dict[int, tuple[int, int]] = {}  # image id -> (height, width)
        self._detections: list[NDArray[np.float32]] = []  # (n, 6) per image
        self._truth: list[NDArray[np.float32]] = []  # (m, 4) per image
        self._truth_classes: list[NDArray[np.int64]] = []
        self._shapes: list[Any] = []
        self._truth_shapes: list[Any] = []
        self._counts: list[NDArray[np.bool_]] = []  # (m,) per image: which can be found or missed
        self._hits: list[NDArray[np.bool_]] = []
        self._confusion = ConfusionMatrix(self.classes)

    def __len__(self) -> int:
        return len(self._ids)

    def update(
        self,
        image_id: int,
        *,
        detections: Tensor | ArrayLike,
        truth_classes: Tensor | ArrayLike,
        truth_boxes: Tensor | ArrayLike,
        size: tuple[int, int],
        shapes: Shapes = (),
        truth_shapes: Shapes = (),
    ) -> None:
        """Adds one image. Everything is in pixels of the original image.

        Args:
            image_id: any integer, once per image.
            detections: (n, 6) xyxy, score, class.
            truth_classes: (m,) class index.
            truth_boxes: (m, 4) xyxy.
            size: height and width of the image.
            shapes: n of what the measure compares; nothing for boxes.
            truth_shapes: m likewise.

        Raises:
            ValueError: the image was added before.
        """
        if image_id in self._ids:
            raise ValueError(f"image {image_id} was evaluated twice; every image needs an id of its own")
        rows = as_array(detections, np.float32).reshape(-1, 6)
        finite = np.isfinite(rows).all(axis=1)  # a detector gone bad scores 0; it must not break the sort
        rows, shapes = rows[finite], [shape for shape, good in zip(shapes, finite, strict=False) if good]
        boxes = as_array(truth_boxes, np.float32).reshape(-1, 4)
        classes = as_array(truth_classes, np.int64).reshape(-1)
        overlap = self.measure.overlap(rows[:, :4], shapes, boxes, truth_shapes, size)
        counts = self.measure.counts(truth_shapes, len(boxes))
        labels = rows[:, 5].astype(np.int64)
        hits = matches_by(np.where(counts, overlap, 0.0), rows[:, 4], labels, classes) >= 0
        self._ids[image_id] = size
        self._detections.append(rows)
        self._truth.append(boxes)
        self._truth_classes.append(classes)
        self._shapes.extend(shapes)
        self._truth_shapes.extend(truth_shapes)
        self._counts.append(counts)
        self._hits.append(hits)
        self._confusion.update(rows, classes, boxes, overlap)

    def compute(self) -> DetectionMetrics:
        """Returns the metrics of everything added so far; more images may follow."""
        images = np.fromiter(self._ids, dtype=np.int64, count=len(self._ids))
        detections = _stack(self._detections, (0, 6), np.float32)
        truth = _stack(self._truth, (0, 4), np.float32)
        truth_classes = _stack(self._truth_classes, (0,), np.int64)
        hits = _stack(self._hits, (0,), np.bool_)
        detection_image = np.repeat(images, [len(d) for d in self._detections])
        truth_image = np.repeat(images, [len(t) for t in self._truth])

        counts = _stack(self._counts, (0,), np.bool_)
        nt = np.bincount(truth_classes[counts], minlength=self.classes).astype(np.int64)
        pairs = np.stack([truth_image[counts], truth_classes[counts]])
        seen = np.unique(pairs, axis=1)[1]  # one entry per (image, class)
        curves = confidence_curves(hits, detections[:, 4], detections[:, 5].astype(np.int64), nt)
        present = curves.classes
        precision = average_precision_table(  # (T, R, K, areas)
            detections, detection_image, truth, truth_classes, truth_image, self._ids, present,
            measure=self.measure, shapes=self._shapes, truth_shapes=self._truth_shapes,
        )  # fmt: skip
        per_class = _mean(precision[:, :, :, 0], axis=(0, 1))  # (K,)
        per_class50 = _mean(precision[0, :, :, 0], axis=0)
        p, r = curves.precision[:, curves.best], curves.recall[:, curves.best]
        sizes = [_mean_valid(precision[..., area]) for area in (1, 2, 3)]
        return DetectionMetrics(
            names=self.names,
            map=float(per_class.mean()) if len(present) else 0.0,
            map50=float(per_class50.mean()) if len(present) else 0.0,
            map75=float(_mean(precision[5, :, :, 0], axis=0).mean()) if len(present) else 0.0,
            map_small=sizes[0],
            map_medium=sizes[1],
            map_large=sizes[2],
            mp=float(p.mean()) if len(present) else 0.0,
            mr=float(r.mean()) if len(present) else 0.0,
            ap=_spread(per_class, present, self.classes),
            ap50=_spread(per_class50, present, self.classes),
            p=_spread(p, present, self.classes),
            r=_spread(r, present, self.classes),
            f1=_spread(f1_score(p, r), present, self.classes),
            nt=nt,
            images=len(images),
            images_with=np.bincount(seen, minlength=self.classes).astype(np.int64),
            curves=curves,
            pr_recall=np.linspace(0.0, 1.0, precision.shape[1]),
            pr_precision=precision[0, :, :, 0].T.copy(),
            confusion=self._confusion,
        )


def _stack(parts: list[NDArray[Any]], empty: tuple[int, ...], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(empty, dtype=kind)


def _mean(table: NDArray[np.float64], axis: int | tuple[int, ...]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.asarray(table.mean(axis=axis), dtype=np.float64)
    return result


def _mean_valid(table: NDArray[np.float64]) -> float:
    """Mean over the entries that exist; -1 when none does."""
    valid = table[table > -1.0]
    return float(valid.mean()) if valid.size else -1.0


def _spread(values: NDArray[np.float64], index: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """Puts the values of some classes into an array of all classes, NaN elsewhere."""
    result = np.full(length, np.nan)
    result[index] = values
    return result
