"""The COCO number: average precision of a detector over a data set, through faster-coco-eval.

Traps this file avoids: AP is counted with at most 100 detections per image and class while precision and
recall use all of them; a class without objects must not pull the mean down; and 5,000 images with 300
detections each are 1.5 million Python dictionaries if handed to the evaluator at once. Detections therefore
stay packed in arrays, and the evaluator (whose result for one class does not depend on another) gets a few
classes at a time.

Dimensions: N detections, M objects, C classes, K classes that have objects, T = 10 IoU thresholds, R = 101
recalls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from holdfast.evaluate.confusion import ConfusionMatrix
from holdfast.evaluate.curves import ConfidenceCurves, confidence_curves, f1_score
from holdfast.evaluate.match import as_array, true_positives

MAX_DETECTIONS = 100  # per image and class, COCO's rule
CHUNK = 100_000  # detections handed to the evaluator at a time: about 100 MB of dictionaries


@dataclass(frozen=True, repr=False)
class DetectionMetrics:
    """What a validation says about a detector.

    Per-class arrays have one entry per class of the data set; classes without objects hold NaN and do not
    count in the means. All means are 0 when no class has objects.

    Attributes:
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
    def results_dict(self) -> dict[str, float]:
        """The headline numbers under the names users know from other trainers, and the fitness."""
        return {
            "metrics/precision(B)": self.mp,
            "metrics/recall(B)": self.mr,
            "metrics/mAP50(B)": self.map50,
            "metrics/mAP50-95(B)": self.map,
            "fitness": self.fitness,
        }

    @property
    def fitness(self) -> float:
        """What the best checkpoint is chosen by: 0.1 mAP50 + 0.9 mAP50-95."""
        return 0.1 * self.map50 + 0.9 * self.map

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

    Example:
        evaluator = DetectionEvaluator({0: "cat"})
        evaluator.update(1, detections=rows, truth_classes=classes, truth_boxes=boxes, size=(480, 640))
        print(evaluator.compute().map)
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = dict(names)
        self.classes = max(self.names, default=-1) + 1
        self._ids: dict[int, tuple[int, int]] = {}  # image id -> (height, width)
        self._detections: list[NDArray[np.float32]] = []  # (n, 6) per image
        self._truth: list[NDArray[np.float32]] = []  # (m, 4) per image
        self._truth_classes: list[NDArray[np.int64]] = []
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
    ) -> None:
        """Adds one image. Everything is in pixels of the original image.

        Args:
            image_id: any integer, once per image.
            detections: (n, 6) xyxy, score, class.
            truth_classes: (m,) class index.
            truth_boxes: (m, 4) xyxy.
            size: height and width of the image.

        Raises:
            ValueError: the image was added before.
        """
        if image_id in self._ids:
            raise ValueError(f"image {image_id} was evaluated twice; every image needs an id of its own")
        rows = as_array(detections, np.float32).reshape(-1, 6)
        rows = rows[np.isfinite(rows).all(axis=1)]  # a detector gone bad scores 0; it must not break the sort
        boxes = as_array(truth_boxes, np.float32).reshape(-1, 4)
        classes = as_array(truth_classes, np.int64).reshape(-1)
        hits = true_positives(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), boxes, classes)
        self._ids[image_id] = size
        self._detections.append(rows)
        self._truth.append(boxes)
        self._truth_classes.append(classes)
        self._hits.append(hits)
        self._confusion.update(rows, classes, boxes)

    def compute(self) -> DetectionMetrics:
        """Returns the metrics of everything added so far; more images may follow."""
        images = np.fromiter(self._ids, dtype=np.int64, count=len(self._ids))
        detections = _stack(self._detections, (0, 6), np.float32)
        truth = _stack(self._truth, (0, 4), np.float32)
        truth_classes = _stack(self._truth_classes, (0,), np.int64)
        hits = _stack(self._hits, (0,), np.bool_)
        detection_image = np.repeat(images, [len(d) for d in self._detections])
        truth_image = np.repeat(images, [len(t) for t in self._truth])

        nt = np.bincount(truth_classes, minlength=self.classes).astype(np.int64)
        seen = np.unique(np.stack([truth_image, truth_classes]), axis=1)[1]  # one entry per (image, class)
        curves = confidence_curves(hits, detections[:, 4], detections[:, 5].astype(np.int64), nt)
        present = curves.classes
        precision = average_precision_table(  # (T, R, K, areas)
            detections, detection_image, truth, truth_classes, truth_image, self._ids, present
        )
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


def average_precision_table(
    detections: NDArray[np.float32],
    detection_image: NDArray[np.int64],
    truth: NDArray[np.float32],
    truth_classes: NDArray[np.int64],
    truth_image: NDArray[np.int64],
    sizes: Mapping[int, tuple[int, int]],
    present: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Runs faster-coco-eval over packed arrays, a few classes at a time.

    Args:
        detections: (N, 6) xyxy, score, class.
        detection_image: (N,) image id.
        truth: (M, 4) xyxy.
        truth_classes: (M,).
        truth_image: (M,) image id.
        sizes: image id to (height, width).
        present: (K,) classes to evaluate.

    Returns:
        (T, R, K, 4) interpolated precision for the areas all, small, medium, large; -1 where there is no
            object.
    """
    classes = detections[:, 5].astype(np.int64)
    # Only the best 100 of every (class, image) count, so the others need not be handed over.
    order = np.lexsort((-detections[:, 4], detection_image, classes))
    group = np.stack([classes[order], detection_image[order]])
    first = np.ones(len(order), dtype=bool)
    first[1:] = (group[:, 1:] != group[:, :-1]).any(axis=0)
    position = np.arange(len(order))
    rank = position - np.maximum.accumulate(np.where(first, position, 0))
    order = order[rank < MAX_DETECTIONS]
    rows, row_image, classes = detections[order], detection_image[order], classes[order]

    starts = np.searchsorted(classes, present, side="left")
    ends = np.searchsorted(classes, present, side="right")
    parts: list[NDArray[np.float64]] = [np.zeros((10, 101, 0, 4))]
    begin = 0
    while begin < len(present):
        end, held = begin + 1, ends[begin] - starts[begin]
        while end < len(present) and held + ends[end] - starts[end] <= CHUNK:
            held += ends[end] - starts[end]
            end += 1
        chosen = present[begin:end]
        mine = np.isin(classes, chosen)
        theirs = np.isin(truth_classes, chosen)
        parts.append(
            _evaluate(
                _annotations(rows[mine, :4], classes[mine], row_image[mine], rows[mine, 4]),
                _annotations(truth[theirs], truth_classes[theirs], truth_image[theirs], None),
                sizes,
                chosen,
            )
        )
        begin = end
    return np.concatenate(parts, axis=2)


def _annotations(
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    images: NDArray[np.int64],
    scores: NDArray[np.float32] | None,
) -> list[dict[str, Any]]:
    """COCO's dictionaries; ids start at 1 because the evaluator takes 0 for unmatched."""
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    area = xywh[:, 2] * xywh[:, 3]
    columns = zip(xywh.tolist(), classes.tolist(), images.tolist(), area.tolist(), strict=True)
    result = [
        {"id": i, "image_id": image, "category_id": c, "bbox": box, "area": size, "iscrowd": 0}
        for i, (box, c, image, size) in enumerate(columns, start=1)
    ]
    if scores is not None:
        for row, score in zip(result, scores.tolist(), strict=True):
            row["score"] = score
    return result


def _evaluate(
    detections: list[dict[str, Any]],
    truth: list[dict[str, Any]],
    sizes: Mapping[int, tuple[int, int]],
    classes: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Returns (T, R, K, 4) precision of the given classes."""
    from faster_coco_eval import COCO, COCOeval_faster

    # Images that hold nothing of these classes change nothing and cost a dictionary each.
    ids = sorted({row["image_id"] for row in detections} | {row["image_id"] for row in truth})
    images = [{"id": i, "height": sizes[i][0], "width": sizes[i][1]} for i in ids]
    categories = [{"id": int(c), "name": str(c)} for c in classes]
    evaluation = COCOeval_faster(
        COCO({"images": images, "categories": categories, "annotations": truth}),
        COCO({"images": images, "categories": categories, "annotations": detections}),
        iouType="bbox",
        print_function=lambda *_: None,
    )
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    table = np.asarray(evaluation.eval["precision"], dtype=np.float64)  # (T, R, K, areas, 1)
    return table[..., 0]


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
