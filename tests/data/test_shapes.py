from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.index import build_index
from holdfast.data.shapes import NAMES, draw_scene, write_demo


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.*")):
        total.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def test_the_demo_is_a_clean_data_set(tmp_path: Path) -> None:
    data = read_dataset_file(write_demo(tmp_path / "a place" / "demo", images=48))
    train, val = (build_index(data.split(split), names=data.names) for split in ("train", "val"))
    assert (len(train), len(val)) == (39, 9)
    assert train.problems.counts == val.problems.counts == {}
    assert train.backgrounds == 3
    assert set(train.classes.tolist()) == set(NAMES)
    assert len(set(map(tuple, train.sizes.tolist()))) > 3


def test_same_seed_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_demo(tmp_path / name, images=8, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_boxes_fit_the_drawn_shapes() -> None:
    for number in range(12):
        image, objects = draw_scene(0, 0, number)
        classes, boxes = objects.classes, objects.boxes
        assert len(classes) == len(boxes)
        assert (number % 12 == 11) == (len(boxes) == 0)
        if len(boxes):
            assert boxes.min() >= -1e-3
            assert (boxes[:, 2] <= image.shape[1] + 1e-3).all()
            assert (boxes[:, 3] <= image.shape[0] + 1e-3).all()
            assert (boxes[:, 2:] - boxes[:, :2]).min() > 18
            assert image.dtype == np.uint8
