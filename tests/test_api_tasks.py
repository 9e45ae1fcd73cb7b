"""The Python door for segmentation, pose, oriented boxes and classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import golden26
from holdfast import YOLO
from holdfast.conversion import write_model
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError
from holdfast.geometry.targets import Needs

KEYS: dict[str, Any] = {"imgsz": 64, "verbose": False, "workers": 0, "plots": False}


@pytest.fixture(scope="module")
def picture() -> np.ndarray[Any, Any]:
    noise = np.random.RandomState(0).randint(0, 255, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(noise, (120, 90), interpolation=cv2.INTER_CUBIC)


def load(fixtures: Path, folder: Path, task: str) -> YOLO:
    """A model with the weights of the golden numbers, from a file of ours."""
    return YOLO(write_model(folder / f"{task}.pt", golden26.model(fixtures, f"yolo26n-{task}"), imgsz=64))


@pytest.mark.parametrize("nms", [None, True])
def test_masks_are_those_of_the_input_or_of_the_picture(
    fixtures_26: Path, tmp_path: Path, picture: np.ndarray[Any, Any], nms: bool | None
) -> None:
    model = load(fixtures_26, tmp_path, "seg")
    keys = {"imgsz": 64, "conf": 0.05, "max_det": 20, "nms": nms, "verbose": False}
    (coarse,) = model.predict(picture, **keys)
    (fine,) = model.predict(picture, retina_masks=True, **keys)
    assert coarse.masks is not None
    assert fine.masks is not None
    assert len(coarse) > 0
    assert len(coarse.masks) == len(coarse.boxes)
    assert coarse.masks.data.shape[1:] == (64, 64)
    assert fine.masks.data.shape[1:] == picture.shape[:2]
    assert all(len(points) for points in coarse.masks.xy)  # what has no pixel is left out
    where = {tuple(row): at for at, row in enumerate(fine.boxes.data.tolist())}
    pairs = [
        (mask, fine.masks.data[where[tuple(row)]].numpy())
        for mask, row in zip(coarse.masks.in_image(), coarse.boxes.data.tolist(), strict=True)
        if tuple(row) in where
    ]
    alike = [(a & b).sum() / (a | b).sum() for a, b in pairs if b.sum() > 200]
    assert np.median(alike) > 0.8
    fine.masks.data[:] = False  # users may change what they get
    assert (coarse.plot() != picture).any()


def test_an_official_pose_file_answers_with_keypoints(
    fixtures_26: Path, data_dir: Path, tmp_path: Path, picture: np.ndarray[Any, Any]
) -> None:
    model = YOLO(fixtures_26 / "checkpoints" / "yolo26n-pose.pt")
    assert (model.task, model.names) == ("pose", {0: "person"})
    (found,) = model.predict(picture, imgsz=64, conf=0.01, max_det=5, verbose=False)
    assert found.keypoints is not None
    assert found.keypoints.xy.shape == (5, 17, 2)
    assert found.keypoints.conf.shape == (5, 17)
    metrics = model.val(data=data_dir / "coco_pose_tiny" / "data.yaml", project=tmp_path, max_det=20, **KEYS)
    assert 0 <= metrics.pose.map <= metrics.pose.map50 <= 1
    assert metrics.box.map50 == metrics.results_dict["metrics/mAP50(B)"]
    with pytest.raises(SettingsError, match=r"for the task 'pose', not 'obb'"):
        YOLO(fixtures_26 / "checkpoints" / "yolo26n-pose.pt", task="obb")


def test_oriented_boxes_have_no_upright_ones_beside_them(
    fixtures_26: Path, tmp_path: Path, picture: np.ndarray[Any, Any]
) -> None:
    model = load(fixtures_26, tmp_path, "obb")
    (found,) = model(picture, imgsz=64, conf=0.05, max_det=7, verbose=False)
    assert found.boxes is None
    assert found.obb is not None
    assert (found.obb.xywhr.shape, found.obb.xyxyxyxy.shape) == ((7, 5), (7, 4, 2))
    assert (found.obb.xywhr[:, 2] >= found.obb.xywhr[:, 3]).all()
    best = int(found.obb.cls[0])
    few = model(picture, imgsz=64, conf=0.05, classes=[best], verbose=False)[0].obb
    assert few is not None
    assert set(few.cls.tolist()) == {best}


def test_a_classifier_sees_the_middle_of_a_picture(tmp_path: Path) -> None:
    model = YOLO("yolo26n-cls", task="classify")
    torch.manual_seed(0)
    wide = np.random.RandomState(1).randint(0, 255, (224, 400, 3), dtype=np.uint8)
    (whole,) = model.predict(wide, verbose=False)  # 224 is a classifier's own size
    (middle,) = model.predict(wide[:, 88:312], verbose=False)
    assert whole.probs is not None
    assert middle.probs is not None
    assert torch.equal(whole.probs.data, middle.probs.data)
    assert float(whole.probs.data.sum()) == pytest.approx(1)
    assert len(whole) == 1
    assert whole.boxes is None
    with pytest.raises(SettingsError, match="nothing to cut out"):
        model.predict(wide, save_crop=True, project=tmp_path, verbose=False)
    data = write_demo(tmp_path / "set", images=10, needs=Needs(whole=True))
    small = YOLO(write_model(tmp_path / "cls.pt", YOLO("yolo26n-cls").model, imgsz=64))
    with pytest.raises(Exception, match="classes"):
        small.val(data=data, project=tmp_path, **KEYS)


@pytest.mark.parametrize("name", ["yolo26n-seg", "yolo26s-pose", "yolo26n-obb.yaml", "yolo26n-cls"])
def test_names_of_every_task_build_models(name: str) -> None:
    assert YOLO(name).task in ("segment", "pose", "obb", "classify")
