"""A cleaned copy is free of what can be mended, and the original keeps every byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import sets
import yaml

from holdfast.data.check import inspect
from holdfast.data.clean import label_rows, write_clean
from holdfast.data.index import build_index
from holdfast.data.objects import Objects
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError
from holdfast.geometry.targets import Needs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Everything that can be mended, at once."""
    root = tmp_path / "data"
    sets.make(root, {"train": 30, "val": 20})
    train, val = root / "images" / "train", root / "images" / "val"
    sets.label(root, "train", "train00", sets.ROWS + "7 .5 .5 .1 .1\n0 nan .5 .1 .1\n0 320 240 50 50\n0 .5\n")
    sets.label(root, "train", "train01", "0 .3 .3 .2 .2 .9\n1 .99 .6 .3 .4\n1 .99 .6 .3 .4\n")
    sets.label(root, "train", "train02", "0 .300 .3 .2 .2\n0 .301 .3 .2 .2\n")
    (root / "labels" / "train" / "train03.txt").write_bytes(b"\xff\xfe" + "0 .3 .3 .2 .2".encode("utf-16-le"))
    sets.label(root, "train", "train04", "7 .5 .5 .1 .1\n")
    (train / "train05.png").write_bytes(b"")
    (train / "train06.png").write_bytes((train / "train06.png").read_bytes()[:500])
    shutil.copy(train / "train07.png", train / "again.png")
    shutil.copy(train / "train08.png", val / "leak.png")
    sets.write(val / "leak.jpg", sets.photo(9), cv2.IMWRITE_JPEG_QUALITY, 60)
    sets.write(train / os.fsdecode(b"caf\xe9 \xe7.png"), sets.photo(500))
    (root / "data.yaml").write_text(sets.YAML + "imgsz: 320\nflip_idx: [0]\n")
    return root


def test_copy_is_ok_and_the_original_untouched(root: Path, tmp_path: Path) -> None:
    before = sets.contents(root)
    result = inspect(root)
    assert result.exit_code == 1
    copy = write_clean(result, tmp_path / "clean")
    assert sets.contents(root) == before
    again = inspect(copy.path)
    assert [finding.title for finding in again.findings if finding.level != "note"] == []
    assert again.verdict == "Data OK: 26 train, 22 val"
    assert again.findings == []
    # left out: 04, 05, 06 by the reader; again.png or its twin; 08 and 09, which val has
    assert copy.images == {"train": 26, "val": 22}
    assert copy.left_out == {"train": 6, "val": 0}
    assert copy.boxes == 1


def test_copy_holds_canonical_rows_and_the_other_keys(root: Path, tmp_path: Path) -> None:
    copy = write_clean(inspect(root), tmp_path / "clean")
    labels = copy.path.parent / "labels" / "train"
    assert (labels / "train00.txt").read_text() == "0 0.3 0.3 0.2 0.2\n1 0.7 0.6 0.3 0.4\n"
    assert (labels / "train01.txt").read_text() == "0 0.3 0.3 0.2 0.2\n1 0.92 0.6 0.16 0.4\n"
    assert (labels / "train02.txt").read_text() == "0 0.3 0.3 0.2 0.2\n"
    content = yaml.safe_load(copy.path.read_text())
    assert content == {
        "path": ".", "train": "images/train", "val": "images/val", "names": {0: "red", 1: "green"},
        "flip_idx": [0], "imgsz": 320,
    }  # fmt: skip


def test_images_are_the_same_files(root: Path, tmp_path: Path) -> None:
    copy = write_clean(inspect(root), tmp_path / "clean")
    one = copy.path.parent / "images" / "val" / "val00.png"
    assert one.samefile(root / "images" / "val" / "val00.png")
    assert copy.copied == 0


def test_images_are_copied_where_they_cannot_be_linked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: object, target: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refused)
    copy = write_clean(inspect(root), tmp_path / "clean")
    one = copy.path.parent / "images" / "val" / "val00.png"
    assert one.read_bytes() == (root / "images" / "val" / "val00.png").read_bytes()
    assert copy.copied == 48


def test_nothing_is_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    for folder, message in (
        (tmp_path / "full", "there already"),
        (tmp_path / "full" / "x", "there already"),
        (root / "images" / "train" / "new", "belongs to the data set"),
    ):
        with pytest.raises(SettingsError, match=message):
            write_clean(inspect(root), folder)
    assert sets.contents(tmp_path / "full") == {"x": b"mine"}


def test_a_split_that_would_be_empty_is_refused(tmp_path: Path) -> None:
    path = sets.make(tmp_path / "data", yaml=sets.YAML.replace("images/val", "images/train"))
    with pytest.raises(SettingsError, match="nothing would be left of train"):
        write_clean(inspect(path), tmp_path / "clean")
    assert not (tmp_path / "clean").exists()


def test_folders_and_equal_names_stay_apart(tmp_path: Path) -> None:
    root = tmp_path / "data"
    sets.make(root)
    for number, folder in enumerate(("a", "b")):
        sets.write(root / folder / "images" / "one.png", sets.photo(800 + number))
        sets.label(root / folder, "", "one", f"{number} .5 .5 .5 .5\n")
    sets.write(root / "a" / "images" / "one.jpg", sets.photo(900))
    text = sets.YAML.replace("images/train", "[images/train, a/images, b/images]")
    (root / "data.yaml").write_text(text)
    copy = write_clean(inspect(root), tmp_path / "clean")
    assert copy.images["train"] == 27
    index = build_index([copy.path.parent / "images" / "train"], names={0: "red", 1: "green"})
    found = {index.path(i): index.labels(i)[0].tolist() for i in range(len(index)) if "one" in index.path(i)}
    assert len(found) == 3
    assert sorted(map(tuple, found.values())) == [(0,), (0,), (1,)]
    assert not any(f"images{os.sep}train{os.sep}a{os.sep}images" in path for path in found)


def test_rows_keep_all_that_is_known() -> None:
    classes = np.array([1, 0])
    boxes = np.array([[10, 20, 30, 60], [0, 0, 50, 100]], np.float32)
    plain = Objects.of_boxes(classes, boxes)
    assert label_rows(plain, 100, 50) == "1 0.4 0.4 0.4 0.4\n0 0.5 0.5 1 1\n"
    outlined = Objects(
        classes, boxes, np.array([[10, 20], [30, 20], [30, 60]], np.float32), np.array([0, 3, 3])
    )
    assert label_rows(outlined, 100, 50) == "1 0.2 0.2 0.6 0.2 0.6 0.6\n0 0.5 0.5 1 1\n"
    posed = plain.replace(keypoints=np.array([[[10, 20, 2]], [[0, 0, 0]]], np.float32))
    assert label_rows(posed, 100, 50) == "1 0.4 0.4 0.4 0.4 0.2 0.2 2\n0 0.5 0.5 1 1 0 0 0\n"
    diamond = np.array([[5, 0], [10, 5], [5, 10], [0, 5]], np.float32)
    turned = plain.replace(corners=np.stack([diamond, diamond]))
    assert label_rows(turned, 100, 50).splitlines()[0] == "1 0.1 0 0.2 0.05 0.1 0.1 0 0.05"


def test_oriented_boxes_that_leave_the_image_keep_their_corners(tmp_path: Path) -> None:
    out = "0 -0.05 0.2 0.2 0.05 0.3 0.3 0.05 0.45\n"
    data = sets.make(tmp_path / "data", {"train": 20, "val": 20})
    sets.label(data.parent, "train", "train00", out + "1 .5 .5 .7 .5 .7 .8 .5 .8\n0 .5 .5\n")
    copy = write_clean(inspect(data), tmp_path / "clean")
    label = (tmp_path / "clean" / "labels" / "train" / "train00.txt").read_text()
    assert label == out + "1 0.5 0.5 0.7 0.5 0.7 0.8 0.5 0.8\n"
    index = build_index([copy.path.parent / "images/train"], names={0: "a", 1: "b"}, oriented=True)
    assert len(index.objects(0).classes) == 2
    assert "wrong number of columns" not in index.problems.counts


def test_outlines_of_any_number_of_corners_are_cut(tmp_path: Path) -> None:
    data = sets.make(tmp_path / "data", {"train": 20, "val": 20})
    five = "1 .5 .5 .7 .5 .8 .6 .7 .8 .5 .8\n"
    sets.label(data.parent, "train", "train00", "0 -0.5 0.2 0.5 0.2 0.5 0.4 -0.5 0.4\n" + five)
    write_clean(inspect(data), tmp_path / "clean")
    first, second = (tmp_path / "clean" / "labels" / "train" / "train00.txt").read_text().splitlines()
    assert sorted(float(value) for value in first.split()[1::2]) == [0, 0, 0.5, 0.5]
    assert len(second.split()) == 11


def test_folders_of_classes_stay_folders_of_classes(tmp_path: Path) -> None:
    root = write_demo(tmp_path / "data", images=60, needs=Needs(whole=True))
    first = next((root / "train" / "disc").iterdir())
    shutil.copy(first, root / "val" / "disc" / "leak.jpg")
    copy = write_clean(inspect(root), tmp_path / "clean")
    assert copy.images == {"train": 47, "val": 13}
    again = inspect(copy.path)
    assert [finding.title for finding in again.findings if finding.level != "note"] == []
    assert again.dataset is not None
    assert again.dataset.class_folders
    assert not (tmp_path / "clean" / "labels").exists()
