"""Validation of every task from files to numbers, with a model whose answers are known by construction."""

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
from torch import Tensor
from torch.nn import functional as F

import golden26
from colour import ColourDetector
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.splits import split_index
from holdfast.errors import DataError
from holdfast.evaluate.metrics import ClassifyMetrics, PoseMetrics, SegmentMetrics
from holdfast.geometry.keypoints import BOX_TO_OBJECT
from holdfast.geometry.targets import BOXES, Needs
from holdfast.models.outputs import Angles, ClassOutputs, DetectOutputs, Extra, Keypoints, Masks
from holdfast.settings import ValSettings
from holdfast.val.entry import validate_settings
from holdfast.val.run import ValResult

COLOURS = ((255, 0, 0), (0, 0, 255))  # RGB of class 0 and 1
NEEDS = {Masks: Needs(mask_stride=4), Keypoints: Needs(keypoints=True), Angles: Needs(rotated=True)}


class TaskColours(ColourDetector):
    """Cells that are also masks, have keypoints at two of their corners, or are boxes that are not turned."""

    def __init__(self, kind: type[Extra]) -> None:
        super().__init__()
        self.answers, self.needs = kind, NEEDS[kind]
        self.keypoints = (2, 3) if kind is Keypoints else None

    def forward(self, x: Tensor) -> DetectOutputs:
        main = super().forward(x).main
        cells = [level.shape[2:] for level in main.scores]

        def maps(*values: float) -> tuple[Tensor, ...]:
            one = x.new_tensor(values)[None, :, None, None]
            return tuple(one.repeat(len(x), 1, *size) for size in cells)

        extra: Extra
        if self.answers is Masks:
            shown = F.avg_pool2d((x - 114 / 255).abs().amax(1, keepdim=True), 4) - 0.2
            extra = Masks(maps(1.0), shown)
        elif self.answers is Keypoints:
            extra = Keypoints(maps(-0.5, -0.5, 9.0, 0.5, 0.5, 9.0))
        else:
            extra = Angles(maps(0.0))
        return DetectOutputs(main._replace(extra=extra))


def label(kind: type[Extra], c: int, x: float, y: float, w: float, h: float) -> str:
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    numbers = corners if kind is not Keypoints else [x + w / 2, y + h / 2, w, h, x, y, 2, x + w, y + h, 2]
    return " ".join(map(str, [c, *numbers])) + "\n"


def cells(folder: Path, kind: type[Extra]) -> Path:
    """data.yaml of four pictures of cells of 8 pixels; one cell is labelled too large, one not at all."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(4):
        image = np.full((96, 128, 3), 114, np.uint8)
        rows = []
        for cell in range(3):
            c = (number + cell) % 2
            x, y = 8 * (1 + 4 * cell), 8 * (2 + number)
            image[y : y + 8, x : x + 8] = COLOURS[c]
            width = 16 if (number, cell) == (1, 2) else 8
            if (number, cell) != (2, 0):
                rows.append(label(kind, c, x / 128, y / 96, width / 128, 8 / 96))
        assert cv2.imwrite(str(folder / "images" / f"{number + 7:03d}.png"), image[:, :, ::-1])
        (folder / "labels" / f"{number + 7:03d}.txt").write_text("".join(rows))
    path = folder / "data.yaml"
    path.write_text("train: images\nval: images\nnames: [red, blue]\nkpt_shape: [2, 3]\n" if kind is Keypoints
                    else "train: images\nval: images\nnames: [red, blue]\n")
    return path


def validate(data: Path, tmp_path: Path, model: Any, **keys: Any) -> tuple[ValResult, Path, list[str]]:
    values = {"data": data, "imgsz": 128, "workers": 0, "device": "cpu", "plots": False, "batch": 3}
    lines: list[str] = []
    settings = ValSettings(model="colour", **{**values, "project": tmp_path / "val", **keys})
    result = validate_settings(settings, model=model, say=lines.append)
    return result, sorted((tmp_path / "val").iterdir())[-1], lines


def annotations(data: Path, kind: type[Extra]) -> dict[str, Any]:
    """The truth as COCO's json has it."""
    needs = NEEDS[kind]
    index = split_index(read_dataset_file(data), "val", needs=needs, single_cls=False, workers=0)
    rows = []
    for number in range(len(index)):
        objects = index.objects(number)
        for i, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
            row = {"id": len(rows) + 1, "image_id": number + 7, "category_id": int(objects.classes[i]),
                   "iscrowd": 0, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            if needs.mask_stride:
                row["segmentation"] = [objects.outline(i).ravel().tolist()]
            if objects.keypoints is not None:
                row |= {"keypoints": objects.keypoints[i].ravel().tolist(), "num_keypoints": 2,
                        "area": row["area"] * BOX_TO_OBJECT}
            rows.append(row)
    images = [{"id": number + 7, "height": 96, "width": 128} for number in range(len(index))]
    return {"images": images, "annotations": rows, "categories": [{"id": 0}, {"id": 1}]}


@pytest.mark.parametrize(("kind", "metrics", "word"), [
    (Masks, SegmentMetrics, "segm"), (Keypoints, PoseMetrics, "keypoints"),
])  # fmt: skip
def test_the_number_equals_pycocotools_on_the_written_predictions(
    tmp_path: Path, kind: type[Extra], metrics: type, word: str
) -> None:
    data = cells(tmp_path, kind)
    result, folder, lines = validate(data, tmp_path, TaskColours(kind), save_json=True, save_txt=True)
    (tmp_path / "truth.json").write_text(json.dumps(annotations(data, kind)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        scorer = COCOeval(coco, coco.loadRes(str(folder / "predictions.json")), word)
        if word == "keypoints":
            scorer.params.kpt_oks_sigmas = np.array([0.5, 0.5])
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    assert isinstance(result.metrics, metrics)
    other = result.metrics.other  # type: ignore[attr-defined]
    assert 0.5 < scorer.stats[0] < 1  # the two wrong labels cost something
    assert other.map == pytest.approx(scorer.stats[0], abs=1e-6)
    assert other.map50 == pytest.approx(scorer.stats[1], abs=1e-6)
    assert "50-95(" in lines[-2]
    content = json.loads((folder / "results.json").read_text())
    assert content["metrics"] == pytest.approx(result.metrics.results_dict)
    row = (folder / "labels" / "007.txt").read_text().splitlines()[0].split()
    assert len(row) > 5


def test_the_spreads_of_keypoints_are_those_of_the_data_set(tmp_path: Path) -> None:
    data, model = cells(tmp_path, Keypoints), TaskColours(Keypoints)
    plain, scores = data.read_text(), []
    for given, said in (([], "1/2 each"), ([0.5, 0.02], "0.5, 0.02")):
        data.write_text(f"{plain}kpt_oks_sigmas: {given}\n")
        index = split_index(read_dataset_file(data), "val", needs=model.needs, single_cls=False, workers=0)
        assert index.sigmas == tuple(given or [0.5, 0.5])
        result, _, lines = validate(data, tmp_path, model)
        assert any(line.startswith("keypoints: 2 an object;") and line.endswith(said) for line in lines)
        assert isinstance(result.metrics, PoseMetrics)
        scores.append(result.metrics.other.map)
    # The second point of the cell that is labelled too wide is 8 pixels off: nearly right, or far from it.
    assert scores[1] < scores[0] - 0.02


def test_labels_of_another_number_of_keypoints_are_refused(tmp_path: Path) -> None:
    data, model = cells(tmp_path, Keypoints), TaskColours(Keypoints)
    data.write_text(data.read_text().replace("[2, 3]", "[3, 3]"))
    with pytest.raises(DataError, match=r"objects have 3 keypoints, but the model finds 2\."):
        validate(data, tmp_path, model)
    assert not model.shapes  # before any image is looked at


def test_boxes_that_are_not_turned_score_as_upright_ones(tmp_path: Path) -> None:
    data = cells(tmp_path, Angles)
    oriented, folder, _ = validate(data, tmp_path, TaskColours(Angles), save_json=True, save_txt=True)
    upright, _, _ = validate(data, tmp_path, ColourDetector())
    assert oriented.metrics.results_dict == pytest.approx(upright.metrics.results_dict, abs=1e-4)
    first = json.loads((folder / "predictions.json").read_text())[0]
    assert (len(first["rbox"]), len(first["poly"])) == (5, 8)
    assert len((folder / "labels" / "007.txt").read_text().splitlines()[0].split()) == 9


class Reddish(ColourDetector):
    """Says class 0 the surer the redder the picture."""

    answers, outputs, needs = ClassOutputs, ClassOutputs, Needs(whole=True)

    def forward(self, x: Tensor) -> ClassOutputs:  # type: ignore[override]
        red, _, blue = x.mean((2, 3)).split(1, 1)
        return ClassOutputs(torch.cat((10 * (red - blue), 10 * (blue - red)), 1))


def test_classes_of_whole_images_are_counted(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, (name, colour) in enumerate((("a", 0), ("a", 1), ("b", 1), ("b", 1))):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True, exist_ok=True)
            image = np.full((40, 60, 3), COLOURS[colour], np.uint8)[:, :, ::-1]
            assert cv2.imwrite(str(folder / f"{number}.png"), image)
    result, folder, lines = validate(
        tmp_path / "set", tmp_path, Reddish(), imgsz=32, save_json=True, save_txt=True
    )
    assert isinstance(result.metrics, ClassifyMetrics)
    assert (result.metrics.top1, result.metrics.top5) == (0.75, 1.0)
    assert result.metrics.confusion.matrix.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert any("top-1" in line for line in lines)
    assert len(json.loads((folder / "predictions.json").read_text())) == 8
    assert (folder / "labels" / "0.txt").read_text().endswith(" b\n")


@pytest.mark.parametrize(("task", "data"), [
    ("seg", "coco_tiny_seg"), ("pose", "coco_pose_tiny"), ("obb", "dota_mini"),
])  # fmt: skip
def test_models_are_validated_on_real_labels(
    fixtures_26: Path, data_dir: Path, tmp_path: Path, task: str, data: str
) -> None:
    model = golden26.model(fixtures_26, f"yolo26n-{task}")
    result, folder, _ = validate(
        data_dir / data / "data.yaml", tmp_path, model, imgsz=64, conf=0.05, max_det=20, plots=False
    )
    assert tuple(json.loads((folder / "results.json").read_text())["metrics"]) == (
        *result.metrics.columns, "fitness",
    )  # fmt: skip
    assert sum(len(found.rows) for _, found in result.predictions) > 0
    assert model.needs != BOXES


@pytest.mark.parametrize(("asked", "kept"), [(300, 536), (299, 299)])
def test_as_many_detections_count_as_an_image_has_objects(
    fixtures_26: Path, data_dir: Path, tmp_path: Path, asked: int, kept: int
) -> None:
    model = golden26.model(fixtures_26, "yolo26n-obb")
    dota = data_dir / "dota_mini" / "data.yaml"  # one image with 536 ships and harbours
    result, _, lines = validate(
        dota, tmp_path, model, imgsz=256, split="train", conf=0.0, max_det=asked, plots=False
    )
    assert len(result.predictions[0][1].rows) == kept
    assert any("536 detections" in line for line in lines) == (kept > asked)
