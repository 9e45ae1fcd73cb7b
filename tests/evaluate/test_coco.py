"""The evaluator's AP is pycocotools' AP, and its precision and recall are what other trainers print."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from holdfast.evaluate import average
from holdfast.evaluate.coco import DetectionEvaluator, DetectionMetrics

# One image: detections (n, 6), truth classes (m,), truth boxes (m, 4).
Image = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]


def evaluate(images: list[Image], classes: int, ids: list[int] | None = None) -> DetectionMetrics:
    evaluator = DetectionEvaluator({c: f"class {c}" for c in range(classes)})
    for i, (detections, truth_classes, truth_boxes) in zip(ids or range(len(images)), images, strict=True):
        evaluator.update(
            i, detections=detections, truth_classes=truth_classes, truth_boxes=truth_boxes, size=(640, 640)
        )
    return evaluator.compute()


def pycocotools_stats(images: list[Image], classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """pycocotools' twelve numbers and its precision table."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    truth: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for i, (detections, truth_classes, truth_boxes) in enumerate(images):
        for c, (x1, y1, x2, y2) in zip(
            truth_classes.tolist(), truth_boxes.astype(float).tolist(), strict=True
        ):
            box = [x1, y1, x2 - x1, y2 - y1]
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": i,
                    "category_id": c,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
        for x1, y1, x2, y2, score, c in detections.astype(float).tolist():
            rows.append(
                {"image_id": i, "category_id": int(c), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": i, "height": 640, "width": 640} for i in range(len(images))],
            "categories": [{"id": c, "name": str(c)} for c in range(classes)],
            "annotations": truth,
            "info": {},
        }
        reference.createIndex()
        evaluation = cocoeval.COCOeval(reference, reference.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats, evaluation.eval["precision"]


def random_images(
    seed: int, *, images: int, classes: int, objects: int, extra: int, ties: bool = False
) -> list[Image]:
    """Objects of all sizes; detections are jittered objects (some doubled, some mislabelled) and noise."""
    rng = np.random.default_rng(seed)
    result: list[Image] = []
    for _ in range(images):
        m = int(rng.integers(0, objects + 1))
        centre = rng.uniform(0, 640, (m, 2))
        half = np.exp(rng.uniform(np.log(4), np.log(300), (m, 2))) / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        labels = rng.integers(0, classes, m)
        twice = np.concatenate([np.arange(m), rng.integers(0, m, m // 2)]) if m else np.zeros(0, dtype=int)
        scale = (half[twice] * 2).repeat(2, axis=0).reshape(-1, 4)
        found = boxes[twice] + rng.normal(0, 0.12, (len(twice), 4)) * scale
        found_labels = np.where(
            rng.random(len(twice)) < 0.15, rng.integers(0, classes, len(twice)), labels[twice]
        )
        noise_low = rng.uniform(0, 600, (extra, 2))
        noise = np.concatenate([noise_low, noise_low + rng.uniform(1, 100, (extra, 2))], axis=1)
        all_boxes = np.concatenate([found, noise])
        all_labels = np.concatenate([found_labels, rng.integers(0, classes, extra)])
        scores = rng.random(len(all_boxes))
        if ties:
            scores = np.round(scores, 1)
        detections = np.column_stack([all_boxes, scores, all_labels]).astype(np.float32)
        result.append((detections, labels.astype(np.int64), boxes.astype(np.float32)))
    return result


def fixture_images(path: Path) -> tuple[list[Image], dict[str, NDArray[Any]]]:
    with np.load(path) as file:
        data = {key: file[key] for key in file}
    images = [
        (data[f"det{i}"], data[f"gt{i}"][:, 0].astype(np.int64), data[f"gt{i}"][:, 1:])
        for i in range(int(data["n_images"]))
    ]
    return images, data


def assert_equals_pycocotools(images: list[Image], classes: int) -> None:
    metrics = evaluate(images, classes)
    stats, precision = pycocotools_stats(images, classes)
    ours = [
        metrics.map, metrics.map50, metrics.map75, metrics.map_small, metrics.map_medium, metrics.map_large,
    ]  # fmt: skip
    np.testing.assert_allclose(ours, stats[:6], atol=1e-12)
    present = metrics.class_index
    np.testing.assert_allclose(
        metrics.ap[present], precision[:, :, present, 0, 2].mean(axis=(0, 1)), atol=1e-12
    )
    np.testing.assert_allclose(metrics.ap50[present], precision[0, :, present, 0, 2].mean(axis=1), atol=1e-12)


@pytest.mark.parametrize(
    ("seed", "images", "classes", "objects", "extra", "ties"),
    [
        (0, 20, 3, 10, 5, False),
        (1, 20, 80, 12, 30, False),
        (2, 3, 1, 40, 150, False),  # more than 100 detections per image and class
        (3, 20, 4, 10, 10, True),  # equal scores: the order must be the same
        (4, 1, 2, 3, 0, False),
    ],
)
def test_ap_equals_pycocotools(
    seed: int, images: int, classes: int, objects: int, extra: int, ties: bool
) -> None:
    sample = random_images(seed, images=images, classes=classes, objects=objects, extra=extra, ties=ties)
    assert_equals_pycocotools(sample, classes)


@pytest.mark.parametrize("name", ["eval_a", "eval_b"])
def test_ap_equals_pycocotools_on_fixtures(fixtures_v9: Path, name: str) -> None:
    images, data = fixture_images(fixtures_v9 / f"{name}.npz")
    assert_equals_pycocotools(images, int(data["nc"]))


@pytest.mark.parametrize("name", ["eval_a", "eval_b"])
def test_precision_and_recall_equal_the_reference(fixtures_v9: Path, name: str) -> None:
    images, data = fixture_images(fixtures_v9 / f"{name}.npz")
    metrics = evaluate(images, int(data["nc"]))
    present = metrics.class_index
    np.testing.assert_array_equal(present, data["ap_class"])
    np.testing.assert_allclose(metrics.p[present], data["precision"], atol=1e-6)
    np.testing.assert_allclose(metrics.r[present], data["recall"], atol=1e-6)
    np.testing.assert_allclose(metrics.f1[present], data["f1"], atol=1e-6)


def test_chunks_of_classes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = random_images(5, images=10, classes=7, objects=10, extra=10)
    whole = evaluate(sample, 7)
    monkeypatch.setattr(average, "CHUNK", 1)
    parts = evaluate(sample, 7)
    assert whole.results_dict == parts.results_dict
    np.testing.assert_array_equal(whole.pr_precision, parts.pr_precision)


def test_order_of_images_and_their_ids_change_nothing() -> None:
    sample = random_images(6, images=10, classes=3, objects=8, extra=5)
    forward = evaluate(sample, 3)
    backward = evaluate(sample[::-1], 3, ids=[10_000_000 + 17 * i for i in range(10)])
    assert forward.map == pytest.approx(backward.map, abs=1e-12)
    assert forward.mp == pytest.approx(backward.mp, abs=1e-12)


BOX = np.array([[10, 10, 110, 110]], dtype=np.float32)
NONE: Image = (np.zeros((0, 6), np.float32), np.zeros(0, np.int64), np.zeros((0, 4), np.float32))


def test_perfect_detection_scores_one() -> None:
    detections = np.array([[10, 10, 110, 110, 0.9, 0]], dtype=np.float32)
    metrics = evaluate([(detections, np.array([0]), BOX)], 1)
    assert metrics.map == metrics.map50 == metrics.map75 == metrics.map_large == pytest.approx(1.0)
    assert metrics.map_small == metrics.map_medium == -1.0
    assert metrics.mp == pytest.approx(1.0)
    assert metrics.mr == pytest.approx(1.0)
    assert metrics.fitness == pytest.approx(1.0)
    assert metrics.confusion.matrix.tolist() == [[1, 0], [0, 0]]
    assert (
        repr(metrics)
        == "DetectionMetrics(1 images, 1 objects: P 1.000, R 1.000, mAP50 1.000, mAP50-95 1.000)"
    )
    assert metrics.summary()[0] == {
        "class": "class 0", "images": 1, "instances": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0,
        "map50": 1.0, "map50_95": 1.0,
    }  # fmt: skip


def test_results_carry_the_names_users_know() -> None:
    assert list(evaluate([NONE], 1).results_dict) == [
        "metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)", "fitness",
    ]  # fmt: skip


def test_no_image_no_detection_and_no_truth_score_zero() -> None:
    noise = np.array([[0, 0, 50, 50, 0.5, 0]], dtype=np.float32)
    for images in ([], [NONE], [(noise, *NONE[1:])], [(NONE[0], np.array([0]), BOX)]):
        metrics = evaluate(images, 2)
        assert metrics.map == metrics.map50 == metrics.mp == metrics.mr == metrics.fitness == 0.0
        assert np.isfinite(list(metrics.results_dict.values())).all()


def test_class_without_objects_does_not_pull_the_mean_down() -> None:
    detections = np.array([[10, 10, 110, 110, 0.9, 0], [300, 300, 400, 400, 0.8, 1]], dtype=np.float32)
    metrics = evaluate([(detections, np.array([0]), BOX)], 3)
    assert metrics.map == pytest.approx(1.0)
    assert np.isnan(metrics.ap[1:]).all()
    assert metrics.nt.tolist() == [1, 0, 0]
    assert metrics.maps.tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_class_with_objects_and_no_detection_counts_as_zero() -> None:
    detections = np.array([[10, 10, 110, 110, 0.9, 0]], dtype=np.float32)
    truth = np.concatenate([BOX, BOX + 200])
    metrics = evaluate([(detections, np.array([0, 1]), truth)], 2)
    assert metrics.map == pytest.approx(0.5)
    assert metrics.ap.tolist() == pytest.approx([1.0, 0.0])


def test_tensors_are_taken_and_broken_rows_dropped() -> None:
    evaluator = DetectionEvaluator({0: "a"})
    rows = torch.tensor([[10.0, 10, 110, 110, 0.9, 0], [float("nan"), 0, 1, 1, 0.99, 0]])
    evaluator.update(
        5,
        detections=rows,
        truth_classes=torch.tensor([0]),
        truth_boxes=torch.from_numpy(BOX),
        size=(200, 200),
    )
    assert evaluator.compute().map == pytest.approx(1.0)


def test_an_image_cannot_be_counted_twice() -> None:
    with pytest.raises(ValueError, match="image 3 was evaluated twice"):
        evaluate([NONE, NONE], 1, ids=[3, 3])
