"""Validation from files to numbers, with a detector whose answers are known by construction."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from holdfast.data.shapes import write_demo
from holdfast.errors import DataError
from holdfast.settings import ValSettings
from holdfast.val.entry import validate_settings
from holdfast.val.run import ValResult

COLOURS = ((255, 0, 0), (0, 0, 255))  # RGB of class 0 and 1


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """data.yaml of four pictures of cells of 8 pixels; one cell is labelled too large, one not at all."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(4):
        image = np.full((96, 128, 3), 114, np.uint8)
        rows = []
        for cell in range(3):
            label = (number + cell) % 2
            x, y = 8 * (1 + 4 * cell), 8 * (2 + number)
            image[y : y + 8, x : x + 8] = COLOURS[label]
            width = 16 if (number, cell) == (1, 2) else 8
            if (number, cell) != (2, 0):
                rows.append(f"{label} {(x + width / 2) / 128} {(y + 4) / 96} {width / 128} {8 / 96}\n")
        assert cv2.imwrite(str(tmp_path / "images" / f"{number + 7:03d}.png"), image[:, :, ::-1])
        (tmp_path / "labels" / f"{number + 7:03d}.txt").write_text("".join(rows))
    path = tmp_path / "data.yaml"
    path.write_text("train: images\nval: images\nnames: [red, blue]\n")
    return path


def validate(
    cells: Path, tmp_path: Path, detector: Any, **keys: Any
) -> tuple[ValResult, Path, list[str]]:
    values = {"data": cells, "imgsz": 128, "workers": 0, "device": "cpu", "plots": False}
    values["project"] = tmp_path / "val"
    lines: list[str] = []
    settings = ValSettings(model="colour", **{**values, **keys})
    result = validate_settings(settings, model=detector, say=lines.append)
    return result, sorted((tmp_path / "val").iterdir())[-1], lines


@pytest.mark.parametrize("rect", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_number_equals_pycocotools_on_the_written_predictions(
    cells: Path, tmp_path: Path, detector: Any, rect: bool, batch: int
) -> None:
    result, folder, lines = validate(cells, tmp_path, detector, rect=rect, batch=batch, save_json=True)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 0}, {"id": 1}]}
    for path in sorted((tmp_path / "labels").iterdir()):
        truth["images"].append({"id": int(path.stem), "width": 128, "height": 96})
        for row in path.read_text().splitlines():
            label, cx, cy, w, h = map(float, row.split())
            w, h = w * 128, h * 96
            box = [cx * 128 - w / 2, cy * 96 - h / 2, w, h]
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": int(path.stem), "category_id": int(label),
                 "bbox": box, "area": w * h, "iscrowd": 0}
            )  # fmt: skip
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        scorer = COCOeval(coco, coco.loadRes(str(folder / "predictions.json")), "bbox")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    assert 0.5 < scorer.stats[0] < 1  # the two wrong labels cost something
    assert result.metrics.map == pytest.approx(scorer.stats[0], abs=1e-6)
    assert result.metrics.map50 == pytest.approx(scorer.stats[1], abs=1e-6)
    assert any(line.startswith("class") for line in lines)


def test_results_json_and_labels_say_what_was_found(cells: Path, tmp_path: Path, detector: Any) -> None:
    result, folder, _ = validate(cells, tmp_path, detector, save_txt=True, save_conf=True)
    content = json.loads((folder / "results.json").read_text())
    assert content["metrics"]["metrics/mAP50(B)"] == pytest.approx(result.metrics.map50)
    assert {row["class"] for row in content["classes"]} == {"red", "blue"}
    assert set(content["speed_ms_per_image"]) == {"preprocess", "inference", "postprocess"}
    first = (folder / "labels" / "007.txt").read_text().splitlines()[0]
    label, cx, cy, w, h, score = map(float, first.split())
    assert (w, h) == pytest.approx((8 / 128, 8 / 96), abs=1e-4)
    assert 0.9 < score <= 1
    assert label in (0, 1)
    assert 0 < cx < 1
    assert 0 < cy < 1


def test_single_cls_ignores_which_class_was_said(cells: Path, tmp_path: Path, detector: Any) -> None:
    for path in (tmp_path / "labels").iterdir():  # every label has the wrong class
        path.write_text("".join(f"{1 - int(row[0])}{row[1:]}\n" for row in path.read_text().splitlines()))
    assert validate(cells, tmp_path, detector)[0].metrics.map50 == 0
    assert validate(cells, tmp_path, detector, single_cls=True)[0].metrics.map50 > 0.8


def test_another_class_count_and_a_missing_split_are_refused(
    cells: Path, tmp_path: Path, detector: Any
) -> None:
    with pytest.raises(DataError, match="3 classes, but the model has 2"):
        validate(write_demo(tmp_path / "demo", images=5), tmp_path, detector)
    with pytest.raises(DataError, match="'test'"):
        validate(cells, tmp_path, detector, split="test")


def test_a_validation_that_runs_out_of_memory_goes_on_in_pieces_with_the_same_result(
    cells: Path, tmp_path: Path, detector: Any
) -> None:
    whole, _, _ = validate(cells, tmp_path, detector, batch=4)

    def meter(_: Any, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = detector.register_forward_pre_hook(meter)
    pieces, _, lines = validate(cells, tmp_path, detector, batch=4)
    hook.remove()
    assert pieces.metrics.results_dict == whole.metrics.results_dict
    assert sum("out of memory" in line for line in lines) == 2  # 4 and 2 images; then it is known
    for (a, rows), (b, others) in zip(whole.predictions, pieces.predictions, strict=True):
        assert a == b
        assert torch.equal(rows.rows, others.rows)
