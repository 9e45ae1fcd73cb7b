"""Average precision over packed arrays through faster-coco-eval, a few classes at a time.

Dimensions: N detections, M objects, K classes that have objects, T = 10 IoU thresholds, R = 101 recalls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from holdfast.evaluate.measure import BoxMeasure, Shapes

CHUNK = 100_000  # detections handed to the evaluator at a time: about 100 MB of dictionaries


def average_precision_table(
    detections: NDArray[np.float32],
    detection_image: NDArray[np.int64],
    truth: NDArray[np.float32],
    truth_classes: NDArray[np.int64],
    truth_image: NDArray[np.int64],
    sizes: Mapping[int, tuple[int, int]],
    present: NDArray[np.int64],
    *,
    measure: BoxMeasure,
    shapes: Shapes,
    truth_shapes: Shapes,
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
        measure: what makes a detection right.
        shapes: N of what it compares; empty for boxes.
        truth_shapes: M likewise.

    Returns:
        (T, R, K, 4) interpolated precision for the areas all, small, medium, large; -1 where there is no
            object.
    """
    classes = detections[:, 5].astype(np.int64)
    # Only the best of every (class, image) count, so the others need not be handed over.
    order = np.lexsort((-detections[:, 4], detection_image, classes))
    group = np.stack([classes[order], detection_image[order]])
    first = np.ones(len(order), dtype=bool)
    first[1:] = (group[:, 1:] != group[:, :-1]).any(axis=0)
    position = np.arange(len(order))
    rank = position - np.maximum.accumulate(np.where(first, position, 0))
    order = order[rank < measure.most]
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
                _annotations(
                    rows[mine, :4], classes[mine], row_image[mine], rows[mine, 4], sizes, measure,
                    _chosen(shapes, order[mine]),
                ),
                _annotations(
                    truth[theirs], truth_classes[theirs], truth_image[theirs], None, sizes, measure,
                    _chosen(truth_shapes, np.flatnonzero(theirs)),
                ),
                sizes,
                chosen,
                measure,
            )
        )  # fmt: skip
        begin = end
    return np.concatenate(parts, axis=2)


def _chosen(shapes: Shapes, index: NDArray[np.int64]) -> Shapes:
    return [shapes[i] for i in index] if len(shapes) else [None] * len(index)


def _annotations(
    boxes: NDArray[np.float32],
    classes: NDArray[np.int64],
    images: NDArray[np.int64],
    scores: NDArray[np.float32] | None,
    sizes: Mapping[int, tuple[int, int]],
    measure: BoxMeasure,
    shapes: Shapes,
) -> list[dict[str, Any]]:
    """COCO's dictionaries; ids start at 1 because the evaluator takes 0 for unmatched."""
    xywh = boxes.astype(np.float64)
    xywh[:, 2:] -= xywh[:, :2]
    area = xywh[:, 2] * xywh[:, 3]
    columns = zip(xywh.tolist(), classes.tolist(), images.tolist(), area.tolist(), shapes, strict=True)
    result = []
    for i, (box, c, image, size, shape) in enumerate(columns, start=1):
        if scores is None:
            further = measure.truth_annotation(shape, sizes[image], size)
        else:
            further = measure.annotation(shape, sizes[image])
        result.append(
            {"id": i, "image_id": image, "category_id": c, "bbox": box, "area": size, "iscrowd": 0} | further
        )
    if scores is not None:
        for row, score in zip(result, scores.tolist(), strict=True):
            row["score"] = score
    return result


def _evaluate(
    detections: list[dict[str, Any]],
    truth: list[dict[str, Any]],
    sizes: Mapping[int, tuple[int, int]],
    classes: NDArray[np.int64],
    measure: BoxMeasure,
) -> NDArray[np.float64]:
    """Returns (T, R, K, 4) precision of the given classes."""
    from faster_coco_eval import COCO, COCOeval_faster

    class Evaluation(COCOeval_faster):  # type: ignore[misc]
        """Takes the overlap of oriented boxes, which it does not know, from the measure."""

        def computeIoU(self, image: int, category: int) -> Any:
            if measure.known:
                return super().computeIoU(image, category)
            found, there = (
                data.get_instances([image], [category], True)[0][0]
                for data in (self.dt_dataset, self.gt_dataset)
            )
            if not found or not there:
                return []
            scores = [-row["score"] for row in found]
            found = [found[i] for i in np.argsort(scores, kind="mergesort")][: measure.most]
            return measure.overlap(*_hulls(found), *_hulls(there), sizes[image])

    # Images that hold nothing of these classes change nothing and cost a dictionary each.
    ids = sorted({row["image_id"] for row in detections} | {row["image_id"] for row in truth})
    images = [{"id": i, "height": sizes[i][0], "width": sizes[i][1]} for i in ids]
    categories = [{"id": int(c), "name": str(c)} for c in classes]
    evaluation = Evaluation(
        COCO({"images": images, "categories": categories, "annotations": truth}),
        COCO({"images": images, "categories": categories, "annotations": detections}),
        iouType=measure.kind,
        print_function=lambda *_: None,
    )
    evaluation.params.maxDets = [measure.most]
    if measure.sigmas is not None:
        evaluation.params.kpt_oks_sigmas = measure.sigmas
    evaluation.evaluate()
    evaluation.accumulate()
    table = np.asarray(evaluation.eval["precision"], dtype=np.float64)[..., 0]  # (T, R, K, areas)
    if table.shape[3] == 3:  # COCO knows no small people
        table = np.insert(table, 1, -1.0, axis=3)
    return table


def _hulls(rows: list[dict[str, Any]]) -> tuple[NDArray[np.float32], list[Any]]:
    """Upright boxes (n, 4) xyxy and the oriented ones of annotations."""
    boxes = np.array([row["bbox"] for row in rows], dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes.astype(np.float32), [row["rotated"] for row in rows]
