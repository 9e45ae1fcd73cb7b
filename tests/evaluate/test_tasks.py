"""AP of masks and of keypoints is pycocotools' AP, that of oriented boxes COCO's rule on exact overlaps."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from holdfast.evaluate import rle
from holdfast.evaluate.coco import DetectionEvaluator, DetectionMetrics
from holdfast.evaluate.measure import BoxMeasure, KeypointMeasure, MaskMeasure, RotatedMeasure
from holdfast.evaluate.metrics import ClassifyEvaluator, PoseMetrics, SegmentMetrics
from holdfast.evaluate.summary import results_summary, table
from holdfast.geometry.keypoints import BOX_TO_OBJECT, COCO_SIGMAS

H, W = 120, 160
NAMES = {0: "one", 1: "two", 2: "none"}


def boxes_of(r: np.random.RandomState, count: int) -> NDArray[np.float32]:
    low = r.rand(count, 2) * [W * 0.6, H * 0.6]
    return np.concatenate([low, low + 8 + r.rand(count, 2) * [W * 0.35, H * 0.35]], 1).astype(np.float32)


def blob(box: NDArray[np.float32]) -> NDArray[np.float32]:
    """An ellipse in a box, as an outline of twelve points."""
    turn = np.linspace(0, 2 * math.pi, 12, endpoint=False)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return (centre + np.stack([np.cos(turn), np.sin(turn)], 1) * half).astype(np.float32)


def truth_and_rows(seed: int, images: int = 6) -> list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Per image truth boxes, their classes, and moved copies and inventions with scores as detections."""
    r = np.random.RandomState(seed)
    result = []
    for _ in range(images):
        there = boxes_of(r, r.randint(0, 6))
        classes = r.randint(0, 2, len(there))
        near, far = there + r.randn(*there.shape), there + r.randn(*there.shape) * 4
        moved = np.concatenate([far, near, boxes_of(r, 3)])
        low, high = np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:]) + 1
        corners = np.concatenate([low, high], 1).clip(0, [W, H, W, H])
        labels = np.concatenate([classes, classes, r.randint(0, 2, 3)])
        rows = np.concatenate([corners, r.rand(len(moved), 1), labels[:, None]], 1).astype(np.float32)
        result.append((there, classes, rows))
    return result


def pycocotools_table(
    truth: list[dict[str, Any]], rows: list[dict[str, Any]], kind: str
) -> NDArray[np.float64]:
    """pycocotools' ten (boxes, masks: twelve) numbers."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": i, "height": H, "width": W} for i in range(6)],
            "categories": [{"id": c, "name": str(c)} for c in range(3)],
            "annotations": truth,
        }
        reference.createIndex()
        scorer = cocoeval.COCOeval(reference, reference.loadRes(rows), kind)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return np.asarray(scorer.stats)


def xywh(box: NDArray[np.float32]) -> list[float]:
    x1, y1, x2, y2 = box.astype(float).tolist()
    return [x1, y1, x2 - x1, y2 - y1]


def test_mask_ap_is_that_of_pycocotools() -> None:
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    evaluator = DetectionEvaluator(NAMES, MaskMeasure())
    for i, (there, classes, rows) in enumerate(truth_and_rows(1)):
        own = [rle.of_outline(blob(box), H, W) for box in there]
        shapes = [rle.of_outline(blob(row[:4]), H, W) for row in rows]
        for box, c in zip(there, classes.tolist(), strict=True):
            area = int(MaskMeasure().annotation(rle.of_outline(blob(box), H, W), (H, W))["area"])
            truth.append({"id": len(truth) + 1, "image_id": i, "category_id": c, "iscrowd": 0, "area": area,
                          "bbox": xywh(box), "segmentation": [blob(box).ravel().astype(float).tolist()]})
        for row, shape in zip(rows, shapes, strict=True):
            found.append({"image_id": i, "category_id": int(row[5]), "score": float(row[4]),
                          "segmentation": {"size": [H, W], "counts": shape}})
        evaluator.update(i, detections=rows, truth_classes=classes, truth_boxes=there, size=(H, W),
                         shapes=shapes, truth_shapes=own)
    ours = evaluator.compute()
    stats = pycocotools_table(truth, found, "segm")
    assert 0.1 < stats[0] < 0.9
    assert [ours.map, ours.map50, ours.map75] == pytest.approx(stats[:3].tolist(), abs=1e-9)
    sizes = [ours.map_small, ours.map_medium, ours.map_large]
    assert sizes == pytest.approx(stats[3:6].tolist(), abs=1e-9)


def people(box: NDArray[np.float32], r: np.random.RandomState) -> NDArray[np.float32]:
    share = r.rand(17, 2)
    return (box[:2] + share * (box[2:] - box[:2])).astype(np.float32)


def test_keypoint_ap_is_that_of_pycocotools() -> None:
    r = np.random.RandomState(5)
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    evaluator = DetectionEvaluator(NAMES, KeypointMeasure(COCO_SIGMAS))
    for i, (there, classes, rows) in enumerate(truth_and_rows(2)):
        points = [people(box, r) for box in there]
        own = [np.concatenate([p, r.randint(0, 3, (17, 1))], 1).astype(np.float32) for p in points]
        if own:
            own[0][:, 2] = 0  # someone without labels: neither found nor missed
        guesses = [p + r.randn(17, 2) * s for s in (3.0, 0.7) for p in points] + [
            people(row[:4], r) for row in rows[-3:]
        ]
        shapes = [g.astype(np.float32) for g in guesses]
        for box, c, shape in zip(there, classes.tolist(), own, strict=True):
            area = float(np.prod(xywh(box)[2:])) * BOX_TO_OBJECT
            truth.append({"id": len(truth) + 1, "image_id": i, "category_id": c, "iscrowd": 0, "area": area,
                          "bbox": xywh(box), "keypoints": shape.astype(float).ravel().tolist(),
                          "num_keypoints": int((shape[:, 2] > 0).sum())})
        for row, shape in zip(rows, shapes, strict=True):
            flat = np.concatenate([shape.astype(float), np.ones((17, 1))], 1).ravel().tolist()
            found.append({"image_id": i, "category_id": int(row[5]), "score": float(row[4]),
                          "keypoints": flat})
        evaluator.update(i, detections=rows, truth_classes=classes, truth_boxes=there, size=(H, W),
                         shapes=shapes, truth_shapes=own)
    ours = evaluator.compute()
    stats = pycocotools_table(truth, found, "keypoints")
    assert 0.1 < stats[0] < 0.9
    assert [ours.map, ours.map50, ours.map75] == pytest.approx(stats[:3].tolist(), abs=1e-9)
    assert [ours.map_medium, ours.map_large] == pytest.approx(stats[3:5].tolist(), abs=1e-9)
    assert ours.map_small == -1
    assert int(ours.nt.sum()) == sum(t["num_keypoints"] > 0 for t in truth)


def turned(boxes: NDArray[np.float32], angle: float) -> list[NDArray[np.float32]]:
    centre, size = (boxes[:, :2] + boxes[:, 2:4]) / 2, boxes[:, 2:4] - boxes[:, :2]
    return list(np.concatenate([centre, size, np.full((len(boxes), 1), angle)], 1).astype(np.float32))


@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_oriented_boxes_along_the_axes_score_as_upright_ones(angle: float) -> None:
    upright, oriented = DetectionEvaluator(NAMES), DetectionEvaluator(NAMES, RotatedMeasure())
    for i, (there, classes, rows) in enumerate(truth_and_rows(3)):
        upright.update(i, detections=rows, truth_classes=classes, truth_boxes=there, size=(H, W))

        def shaped(boxes: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            flat = turned(boxes, 0.0)
            return [box[[0, 1, 3, 2, 4]] + [0, 0, 0, 0, angle] for box in flat] if angle else flat

        oriented.update(i, detections=rows, truth_classes=classes, truth_boxes=there, size=(H, W),
                        shapes=shaped(rows), truth_shapes=shaped(there))
    a, b = upright.compute(), oriented.compute()
    assert 0.1 < a.map < 0.9
    assert list(a.results_dict.values()) == pytest.approx(list(b.results_dict.values()), abs=1e-6)
    np.testing.assert_array_equal(a.confusion.matrix, b.confusion.matrix)


def test_direction_decides_whether_an_oriented_box_is_right() -> None:
    evaluator = DetectionEvaluator({0: "ship"}, RotatedMeasure())
    hull = np.array([[20, 20, 80, 80]], np.float32)
    row = np.array([[20, 20, 80, 80, 0.9, 0]], np.float32)
    ship = np.array([50, 50, 70, 12, math.pi / 4], np.float32)
    for i, angle in enumerate((math.pi / 4, -math.pi / 4)):
        evaluator.update(i, detections=row, truth_classes=[0], truth_boxes=hull, size=(H, W),
                         shapes=[ship], truth_shapes=[np.array([50, 50, 70, 12, angle], np.float32)])
    assert evaluator.compute().mr == pytest.approx(0.5)


def test_all_oriented_boxes_of_a_crowded_image_count() -> None:
    evaluator = DetectionEvaluator({0: "ship"}, RotatedMeasure())
    x, y = np.meshgrid(np.arange(15) * 6, np.arange(10) * 6)  # 150: more than COCO counts of upright ones
    boxes = np.stack([x, y, x + 4, y + 4], -1).reshape(-1, 4).astype(np.float32)
    rows = np.column_stack([boxes, np.linspace(0.9, 0.5, len(boxes)), np.zeros(len(boxes))])
    evaluator.update(0, detections=rows, truth_classes=[0] * len(boxes), truth_boxes=boxes, size=(H, W),
                     shapes=turned(boxes, 0.0), truth_shapes=turned(boxes, 0.0))
    assert evaluator.compute().map == pytest.approx(1.0)


def boxes_alone(measure: BoxMeasure | None = None) -> DetectionMetrics:
    evaluator = DetectionEvaluator(NAMES, measure)
    for i, (there, classes, rows) in enumerate(truth_and_rows(4)):
        evaluator.update(i, detections=rows, truth_classes=classes, truth_boxes=there, size=(H, W))
    return evaluator.compute()


@pytest.mark.parametrize(("kind", "letter"), [(SegmentMetrics, "M"), (PoseMetrics, "P")])
def test_two_kinds_of_metrics_stand_side_by_side(
    kind: type[SegmentMetrics] | type[PoseMetrics], letter: str
) -> None:
    box = boxes_alone()
    both = kind(box, box)
    assert tuple(both.results_dict) == (*kind.columns, "fitness")
    assert both.results_dict[f"metrics/mAP50({letter})"] == box.map50 == both.box.map50
    assert both.fitness == 2 * box.fitness
    text = table(both, {"inference": 1.0})
    assert f"50-95({letter})" in text.splitlines()[0]
    assert len({len(line) for line in text.splitlines()[:-1]}) == 1
    assert results_summary(both, {})["classes"][0]["class"] == "one"


def test_accuracies_count_the_first_and_the_first_five() -> None:
    names = dict(enumerate("abcdefg"))
    evaluator = ClassifyEvaluator(names)
    falling = np.linspace(1, 0.1, 7, dtype=np.float32)  # class a first, g last
    for truth in (0, 1, 4, 5):
        evaluator.update(falling, truth)
    metrics = evaluator.compute()
    assert (metrics.top1, metrics.top5, metrics.images) == (0.25, 0.75, 4)
    assert metrics.fitness == 0.5
    assert metrics.results_dict == {
        "metrics/accuracy_top1": 0.25, "metrics/accuracy_top5": 0.75, "fitness": 0.5,
    }  # fmt: skip
    assert metrics.confusion.matrix[0].tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert [row["top5"] for row in metrics.summary()] == [1.0, 1.0, 1.0, 0.0]
    assert table(metrics, {}).splitlines()[1].split() == ["all", "4", "0.250", "0.750"]


@pytest.mark.parametrize("kind", ["blobs", "full", "empty", "column", "none"])
def test_run_lengths_of_a_window_are_those_of_the_whole_mask(kind: str) -> None:
    r = np.random.RandomState(3)
    window = {"blobs": r.rand(20, 30) > 0.5, "full": np.ones((20, 30), bool),
              "empty": np.zeros((20, 30), bool), "column": np.ones((20, 1), bool),
              "none": np.zeros((0, 30), bool)}[kind]
    for top, left, height, width in ((0, 0, 20, 30), (0, 4, 20, 40), (3, 0, 40, 30), (5, 7, 33, 44)):
        whole = np.zeros((height, width), bool)
        whole[top : top + window.shape[0], left : left + window.shape[1]] = window
        runs = rle.of_window(window, top, left, height, width)
        assert runs == rle.of_pixels(whole)
        assert (rle.pixels([runs], height, width)[0] == whole).all()
