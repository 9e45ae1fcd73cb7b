"""Every task trains by the same command, and results.csv has the columns of its loss and its score."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from holdfast.data.shapes import KEYPOINTS, write_demo
from holdfast.load import load_model
from holdfast.models.registry import family_of
from holdfast.running import run_train
from holdfast.settings import TrainSettings

BOX = {f"metrics/{name}(B)" for name in ("precision", "recall", "mAP50", "mAP50-95")}
CASES = {
    "yolo26n-seg": ("seg", {name.replace("(B)", "(M)") for name in BOX} | BOX),
    "yolo26n-pose": ("rle", {name.replace("(B)", "(P)") for name in BOX} | BOX),
    "yolo26n-obb": ("angle", BOX),
    "yolo26n-cls": ("cls", {"metrics/accuracy_top1", "metrics/accuracy_top5"}),
}


@pytest.mark.parametrize("model", CASES)
def test_a_task_trains_and_its_weights_can_be_used(tmp_path: Path, model: str) -> None:
    term, metrics = CASES[model]
    data = write_demo(tmp_path / "data", images=8, needs=family_of(model).needs)
    settings = TrainSettings(
        model=model, data=str(data), imgsz=64, batch=4, epochs=1, workers=0, device="cpu", plots=False,
        micro_batch=2, ckpt="off", project=str(tmp_path), verbose=False,
    )  # fmt: skip
    result = run_train(settings)
    with (result.folder / "results.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert {name for name in row if name.startswith("metrics/")} == metrics
    assert float(row[f"train/{term}_loss"]) > 0
    assert all(value for value in row.values())
    best = load_model(result.best).model
    assert best.task == family_of(model).task
    assert best.classes == 3
    assert tuple(best.header.get("keypoints") or (KEYPOINTS, 3)) == (KEYPOINTS, 3)
    weights = best.state_dict().values()
    assert all(value.isfinite().all() for value in weights if torch.is_floating_point(value))
