"""Every picture of a run is drawn from whatever a run leaves: full, sparse or empty."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.shapes import write_demo
from holdfast.data.splits import split_index
from holdfast.errors import DataError
from holdfast.evaluate.coco import DetectionEvaluator, DetectionMetrics
from holdfast.evaluate.confusion import ConfusionMatrix
from holdfast.geometry.targets import Targets, filled_out
from holdfast.post.original import Found
from holdfast.report import run as reporter
from holdfast.report.batches import draw_found, draw_targets
from holdfast.report.canvas import shorten
from holdfast.report.label_plots import plot_labels
from holdfast.report.metric_plots import plot_confusion, plot_curves
from holdfast.report.plots import plot_results
from holdfast.report.table import read_results

COLUMNS = (
    "epoch", "time", "train/box_loss", "train/cls_loss", "train/dfl_loss",
    "metrics/precision(B)", "metrics/recall(B)", "metrics/mAP50(B)", "metrics/mAP50-95(B)",
    "val/box_loss", "val/cls_loss", "val/dfl_loss", "lr/pg0", "lr/pg1", "lr/pg2",
)  # fmt: skip


@dataclass
class Result:
    metrics: DetectionMetrics
    confusion: ConfusionMatrix


def write_csv(path: Path, epochs: int, *, every: int = 1) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for epoch in range(1, epochs + 1):
            found = [0.5, 0.4, 0.3, 0.01 * epoch, 1, 2, 3] if epoch % every == 0 else [""] * 7
            writer.writerow([epoch, epoch * 2.5, 3, 2, 1, *found, 0.1, 0.01, 0.01])
    return path


def validated(classes: int, images: int) -> Result:
    names = {i: f"class {i} $ \u732b" for i in range(classes)}
    evaluator, confusion = DetectionEvaluator(names), ConfusionMatrix(classes)
    rng = np.random.default_rng(0)
    for i in range(images):
        low = rng.uniform(0, 300, (5, 2))
        boxes = np.concatenate([low, low + 50], axis=1)
        labels = rng.integers(0, classes, 5)
        rows = np.column_stack([boxes + rng.normal(0, 4, (5, 4)), rng.random(5), labels])
        evaluator.update(i, detections=rows, truth_classes=labels, truth_boxes=boxes, size=(400, 400))
        confusion.update(rows, labels, boxes)
    return Result(evaluator.compute(), confusion)


def read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None, path
    return np.asarray(image)


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (1, 2), (3, 3), (40, 5)])
def test_results_are_drawn_with_empty_cells_and_single_epochs(
    tmp_path: Path, epochs: int, every: int
) -> None:
    path = plot_results(write_csv(tmp_path / "results.csv", epochs, every=every))
    assert path == tmp_path / "results.png"
    assert read(path).shape == (990, 1950, 3)


def test_empty_cells_are_read_as_nan(tmp_path: Path) -> None:
    data = read_results(write_csv(tmp_path / "results.csv", 4, every=2))
    assert list(data) == list(COLUMNS)
    assert np.isnan(data["metrics/mAP50-95(B)"]).tolist() == [True, False, True, False]
    assert data["epoch"].tolist() == [1, 2, 3, 4]


def test_a_missing_or_foreign_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        plot_results(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no rows with an 'epoch' column"):
        plot_results(tmp_path / "other.csv")


@pytest.mark.parametrize(("classes", "images"), [(1, 1), (14, 20), (2, 0)])
def test_curves_and_confusion_are_drawn_for_any_number_of_classes(
    tmp_path: Path, classes: int, images: int
) -> None:
    result = validated(classes, images)
    paths = plot_curves(result.metrics, tmp_path)
    paths += plot_confusion(result.confusion, result.metrics.names, tmp_path)
    assert [p.name for p in paths] == [
        "PR_curve.png", "P_curve.png", "R_curve.png", "F1_curve.png",
        "confusion_matrix.png", "confusion_matrix_normalized.png",
    ]  # fmt: skip
    for path in paths:
        assert read(path).std() > 1


@pytest.mark.parametrize("count", [0, 1, 500])
def test_labels_are_drawn_for_any_number_of_boxes(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    boxes = rng.random((count, 4)).astype(np.float32)
    per_image = np.array([count, 0, 0]) if count < 500 else rng.integers(0, 200, 50)
    path = plot_labels(
        rng.integers(0, 40, count),
        boxes,
        per_image,
        {i: f"name {i}" for i in range(40)},
        tmp_path / "labels.jpg",
    )
    assert read(path).std() > 1


def test_batches_are_drawn_with_truth_and_with_detections(tmp_path: Path) -> None:
    images = torch.randint(0, 255, (20, 3, 64, 96), dtype=torch.uint8)
    targets = Targets(torch.tensor([0, 0, 19]), torch.tensor([0, 1, 0]), torch.tensor([[5.0, 5, 40, 40]] * 3))
    files = [f"folder/image {i}.jpg" for i in range(20)]
    names = {0: "a", 1: "b"}
    truth = read(draw_targets(tmp_path / "train_batch0.jpg", images, targets, names, files))
    rows = [Found(torch.tensor([[5.0, 5, 40, 40, 0.9, 0], [5, 5, 40, 40, 0.1, 1]]))] * 20
    found = read(draw_found(tmp_path / "val_batch0_pred.jpg", images, rows, names, files))
    assert truth.shape == found.shape


@pytest.mark.parametrize("part", ["masks", "keypoints", "rotated"])
def test_batches_show_what_a_task_learns_beside_upright_boxes(tmp_path: Path, part: str) -> None:
    images = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    boxes = Targets(torch.tensor([1]), torch.tensor([0]), torch.tensor([[8.0, 8, 56, 56]]))
    whole = filled_out(boxes, images=2, side=64)
    if part == "masks":  # of two layers, in each of which is a part of it
        whole.masks[1, 0, :, 8:] = 0  # type: ignore[index]
        masks = torch.cat((whole.masks, whole.masks.flip(3)), 1)  # type: ignore[arg-type, union-attr]
        whole = whole._replace(masks=masks)
    shown = boxes._replace(**{part: getattr(whole, part)})
    plain, drawn = (
        read(draw_targets(tmp_path / f"{name}.png", images, targets, {0: ""}, ["a.jpg", "b.jpg"]))
        for name, targets in (("plain", boxes), ("drawn", shown))
    )
    changed = (plain != drawn).any(axis=2)
    middle = changed.shape[1] // 2
    assert not changed[:, :middle].any()  # an image without objects
    if part == "masks":
        tinted = changed[:, middle:]
        assert 0.4 < tinted.mean() < 0.7
        assert tinted[:, : middle // 3].any() == tinted[:, -middle // 3 :].any()
    else:
        assert changed[:, middle:].any()


def test_what_is_found_looks_like_what_is_there(tmp_path: Path) -> None:
    images = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    truth = Targets(torch.tensor([1]), torch.tensor([0]), torch.tensor([[8.0, 8, 56, 56]]))
    whole = filled_out(truth, images=2, side=64)
    assert whole.masks is not None
    assert whole.rotated is not None
    assert whole.keypoints is not None
    sure, doubtful = torch.tensor([[0.9, 0]]), torch.tensor([[0.1, 0]])
    rows = torch.cat([torch.cat((truth.boxes, score), 1) for score in (sure, doubtful)])
    turned = torch.cat([torch.cat((whole.rotated, score), 1) for score in (sure, doubtful)])
    mask = (whole.masks[1] > 0).repeat_interleave(4, 1).repeat_interleave(4, 2)
    cases = {
        "masks": (Found(rows[:0]), Found(rows, masks=lambda: torch.cat((mask, ~mask)))),
        "keypoints": (Found(rows[:0]), Found(rows, keypoints=whole.keypoints.repeat(2, 1, 1))),
        "rotated": (Found(obb=turned[:0]), Found(obb=turned)),
    }
    for part, found in cases.items():
        shown = truth._replace(**{part: getattr(whole, part)})
        files = ["a.jpg", "b.jpg"]
        there = read(draw_targets(tmp_path / "there.png", images, shown, {0: "a"}, files)).astype(int)
        said = read(draw_found(tmp_path / "said.png", images, found, {0: "a"}, files)).astype(int)
        assert (abs(there - said).max(axis=2) > 8).mean() < 0.03, part  # the label says how sure


def test_long_names_keep_both_ends() -> None:
    assert shorten("short") == "short"
    assert shorten("abcdefghijklmnopqrstuvwxyz", 9) == "abcd\u2026wxyz"


def test_reporter_writes_the_files_of_a_run(tmp_path: Path) -> None:
    class OneBatch:
        images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
        targets = Targets.empty()
        paths = ("a.jpg", "b.jpg")

    result = validated(2, 5)
    names = result.metrics.names
    data = read_dataset_file(write_demo(tmp_path / "shapes", images=10))
    splits = {
        split: split_index(data, split, single_cls=False, workers=0) for split in ("train", "val")
    }
    reporter.data(tmp_path, splits, data.names, pytest.fail)
    shutil.rmtree(tmp_path / "shapes")
    reporter.train_batch(tmp_path, 0, OneBatch(), names)
    reporter.val_batch(tmp_path, 1, OneBatch(), [Found(torch.zeros(0, 6))] * 2, names)
    write_csv(tmp_path / "results.csv", 2)
    reporter.finish(tmp_path, pytest.fail, result.metrics)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "F1_curve.png", "PR_curve.png", "P_curve.png", "R_curve.png", "confusion_matrix.png",
        "confusion_matrix_normalized.png", "data.json", "grad_health.png", "labels.jpg", "lr_heatmap.png",
        "mem_usage.png", "report.html", "results.csv", "results.png", "throughput.png",
        "train_batch0.jpg", "val_batch1_labels.jpg", "val_batch1_pred.jpg",
    ]  # fmt: skip
    summary = json.loads((tmp_path / "data.json").read_text())
    train = summary["splits"]["train"]
    assert summary["names"] == ["disc", "square", "triangle"]
    assert (train["images"], summary["splits"]["val"]["images"]) == (8, 2)
    assert sum(train["classes"]) == sum(train["sides"]) == sum(train["areas"]) == train["boxes"]
