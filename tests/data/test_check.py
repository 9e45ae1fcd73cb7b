"""What is wrong with a data set is found, counted, shown by example, and weighed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import sets

from holdfast.data.check import Inspection, inspect
from holdfast.data.clean import write_clean
from holdfast.data.findings import Finding
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError
from holdfast.geometry.targets import Needs
from holdfast.report.check_text import check_lines


@pytest.fixture
def root(tmp_path: Path) -> Path:
    sets.make(tmp_path)
    return tmp_path


def found(result: Inspection, kind: str) -> Finding:
    chosen = [finding for finding in result.findings if kind in finding.kind]
    assert len(chosen) == 1, [finding.kind for finding in result.findings]
    return chosen[0]


def test_sound_data_is_ok(root: Path) -> None:
    result = inspect(root / "data.yaml")
    assert result.findings == []
    assert result.verdict == "Data OK: 24 train, 20 val"
    assert result.exit_code == 0


def test_two_images_are_enough(tmp_path: Path) -> None:
    result = inspect(sets.make(tmp_path, {"train": 1, "val": 1}))
    assert result.verdict == "Data OK: 1 train, 1 val"
    assert found(result, "split of under").level == "note"


def test_class_folders_are_checked_as_they_are_trained_on(tmp_path: Path) -> None:
    root = write_demo(tmp_path / "set", images=30, needs=Needs(whole=True))
    result = inspect(root)
    assert result.verdict == "Data OK: 24 train, 6 val"
    assert {finding.kind for finding in result.findings} == {"split of under 20 images"}
    (root / "train" / "disc" / "torn.jpg").write_bytes(b"no picture")
    shutil.copy(next((root / "val" / "disc").iterdir()), root / "train" / "square" / "again.jpg")
    result = inspect(root)
    assert result.verdict.startswith("Data usable")
    assert found(result, "unreadable image").examples[0].startswith("train/disc/torn.jpg")
    assert found(result, "picture of val that is in train too").counts
    assert not any("--fix" in line for line in check_lines(result))
    with pytest.raises(SettingsError, match="folders of classes have none"):
        write_clean(result, tmp_path / "copy")


def test_counts_and_sizes(root: Path) -> None:
    sets.add(root, "train", "empty", sets.photo(77), "")
    train = inspect(root).as_dict()["splits"]["train"]
    assert (train["images"], train["boxes"], train["backgrounds"]) == (25, 48, 1)
    # 0.2 x 0.2 of 96 x 128 is 19 x 26 pixels, 0.3 x 0.4 is 38 x 38
    assert train["area"] == {"small": 24, "medium": 24, "large": 0}
    assert train["side"]["under 32%"] == 24
    assert train["side"]["under 64%"] == 24


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: !!python/object/apply:os.system [ls]\n", "could run code"),
        ("train: images/train\nval: images/val\n", "no class names"),
        ("train: images/train\nnames: [a]\n", "no 'val' entry"),
        ("train: images/trian\nval: images/val\nnames: [a, b]\n", "'images/trian' does not exist"),
        ("train: images/none\nval: images/val\nnames: [a, b]\n", "no images found"),
    ],
)
def test_data_that_cannot_be_trained_on(root: Path, yaml: str, message: str) -> None:
    (root / "images" / "none").mkdir()
    (root / "data.yaml").write_text(yaml)
    result = inspect(root / "data.yaml")
    assert result.exit_code == 2
    assert result.verdict.startswith("Data cannot be trained on")
    assert result.findings[0].level == "error"
    assert message in result.findings[0].kind
    assert result.findings[0].remedy


def test_missing_file_and_missing_labels(root: Path) -> None:
    assert inspect(root / "none.yaml").exit_code == 2
    shutil.rmtree(root / "labels")
    result = inspect(root)
    assert result.exit_code == 2
    assert "no label file found" in result.findings[0].kind


def test_test_split_is_not_needed(root: Path) -> None:
    (root / "data.yaml").write_text(sets.YAML + "test: images/test\n")
    result = inspect(root)
    assert result.exit_code == 1
    assert "'images/test' does not exist" in found(result, "test split").examples[0]


def test_faults_of_labels_come_by_reason_with_place_and_remedy(root: Path) -> None:
    sets.label(root, "train", "train00", sets.ROWS + "7 .5 .5 .1 .1\n0 nan .5 .1 .1\n8 .5 .5 .1 .1\n")
    sets.label(root, "val", "val03", sets.ROWS + "9 .5 .5 .1 .1\n")
    result = inspect(root)
    finding = found(result, "class out of range")
    assert finding.counts == {"train": 2, "val": 1}
    assert finding.title == "3 x class out of range (train 2, val 1)"
    where = os.path.join("labels", "train", "train00.txt")
    assert finding.examples[0].startswith(f"{where} line 3: ")
    assert "names" in finding.remedy
    assert found(result, "NaN or infinite").count == 1
    assert result.exit_code == 1


def test_classes_that_count_from_one_are_suspected(root: Path) -> None:
    for split, count in (("train", 24), ("val", 20)):
        for i in range(count):
            sets.label(root, split, f"{split}{i:02d}", "1 .3 .3 .2 .2\n2 .7 .6 .3 .4\n")
    assert "count from 1" in found(inspect(root), "class out of range").remedy


def test_what_was_mended_without_loss_is_a_note(root: Path) -> None:
    sets.label(root, "train", "train00", "0 .3 .3 .2 .2 .9\n1 .99 .6 .3 .4\n1 .99 .6 .3 .4\n")
    result = inspect(root)
    kinds = {finding.kind for finding in result.findings}
    assert kinds == {"sixth column ignored", "box cut at the image border", "duplicate row"}
    assert result.exit_code == 0


def test_suspicious_boxes(root: Path) -> None:
    rows = [
        "0 .300 .3 .2 .2", "0 .301 .3 .2 .2",  # drawn twice
        "0 .7 .7 .2 .2", "1 .7 .701 .2 .2",  # two classes
        "1 .5 .5 1 .97",  # the whole image
        "1 .5 .2 .9 .02",  # a sliver: 115 x 1.9 pixels
        "0 .9 .9 .002 .002",  # a speck
    ]  # fmt: skip
    sets.label(root, "train", "train05", "\n".join(rows))
    result = inspect(root, imgsz=320)
    assert found(result, "drawn twice").count == 1
    assert found(result, "two classes").count == 1
    assert found(result, "covers over").count == 1
    assert found(result, "as long as wide").count == 1
    finding = found(result, "under 3 pixels at imgsz 320")
    assert (finding.count, finding.level) == (1, "note")
    (case,) = finding.cases
    assert (case.views[0].split, case.views[0].image) == ("train", 5)
    assert found(inspect(root, imgsz=32), "under 3 pixels at imgsz 32").count == 2


def test_a_thousand_boxes_on_one_image_are_compared(root: Path) -> None:
    rows = [f"0 {0.1 + 0.0007 * i:.5f} {0.1 + 0.8 * (i % 37) / 37:.5f} .01 .01" for i in range(1100)]
    sets.label(root, "train", "train00", "\n".join([*rows, rows[1050][:-1] + "099"]))
    result = inspect(root)
    assert found(result, "more than 300 boxes").examples == [
        f"{os.path.join('images', 'train', 'train00.png')}: 1,101 boxes"
    ]
    assert found(result, "drawn twice").count == 1


def test_class_balance(root: Path) -> None:
    (root / "data.yaml").write_text(sets.YAML.replace("[red, green]", "[red, green, blue, white, black]"))
    sets.label(root, "val", "val00", "2 .5 .5 .2 .2\n")
    sets.label(root, "train", "train00", "3 .5 .5 .2 .2\n")
    crowd = [f"0 {0.1 + 0.05 * (i % 16):.3f} {0.1 + 0.1 * (i // 16):.3f} .04 .04" for i in range(128)]
    sets.label(root, "train", "train01", "\n".join(crowd))
    result = inspect(root)
    assert found(result, "measured but never trained").examples == ["class 2 (blue): train 0, val 1"]
    assert found(result, "measured but never trained").level == "warning"
    assert found(result, "trained but never measured").examples == ["class 3 (white): train 1, val 0"]
    assert found(result, "without a box in any").examples == ["class 4 (black): train 0, val 0"]
    assert found(result, "under 1/100").examples == ["class 3 (white): train 1, val 0"]


def test_mostly_empty_splits(root: Path) -> None:
    for i in range(13):
        sets.label(root, "train", f"train{i:02d}", "")
    finding = found(inspect(root), "without a box, more than half")
    assert finding.counts == {"train": 13}


def test_duplicates_and_leaks(root: Path) -> None:
    train, val = root / "images" / "train", root / "images" / "val"
    shutil.copy(train / "train03.png", train / "again.png")
    shutil.copy(train / "train04.png", val / "leak.png")
    small = cv2.resize(sets.photo(5), (100, 75), interpolation=cv2.INTER_AREA)
    sets.write(val / "leak small.jpg", small, cv2.IMWRITE_JPEG_QUALITY, 60)
    sets.write(train / "train06 copy.jpg", sets.photo(6), cv2.IMWRITE_JPEG_QUALITY, 70)
    result = inspect(root)
    leak = found(result, "picture of val that is in train too")
    assert (leak.level, leak.count) == ("warning", 2)
    assert leak.examples[0].endswith("(same bytes)")
    assert "train04.png" in leak.examples[0]
    assert "leak small.jpg" in leak.examples[1]
    assert found(result, "there twice").counts == {"train": 1}
    near = found(result, "nearly agree")
    assert (near.level, near.count) == ("note", 1)
    listed = result.as_dict()["leaks"]
    assert [entry["same_file"] for entry in listed] == [True, False]
    assert listed[0]["train"].endswith("train04.png")
    assert result.pictures is not None
    assert result.pictures.leaked == {"train": [5, 6], "val": []}  # again.png comes first


def test_a_leak_is_found_through_any_copy(root: Path) -> None:
    """Three copies in train and two in val are two leaked pictures, all three to be given up."""
    train, val = root / "images" / "train", root / "images" / "val"
    for name in ("x", "y"):
        shutil.copy(train / "train00.png", train / f"{name}.png")
        sets.write(val / f"{name}.jpg", sets.photo(0), cv2.IMWRITE_JPEG_QUALITY, 80)
    result = inspect(root)
    assert found(result, "in train too").count == 2
    assert result.pictures is not None
    paths = [result.splits[0].index.path(i) for i in result.pictures.leaked["train"]]
    assert sorted(map(os.path.basename, paths)) == ["train00.png", "x.png", "y.png"]


def test_the_same_folder_for_both_splits(root: Path) -> None:
    (root / "data.yaml").write_text(sets.YAML.replace("images/val", "images/train"))
    finding = found(inspect(root), "in train too")
    assert finding.count == 24
    assert "images of its own" in finding.remedy


def test_flat_images_are_not_duplicates(root: Path) -> None:
    for i, level in enumerate((0, 10, 255)):
        sets.add(root, "train", f"flat{i}", np.full((64, 64, 3), level, np.uint8))
        sets.add(root, "val", f"flat{i}", np.full((64, 80, 3), level, np.uint8))
    assert inspect(root).exit_code == 0


def test_images_whose_pixels_are_damaged(root: Path) -> None:
    path = root / "images" / "train" / "train00.png"
    data = bytearray(path.read_bytes())
    data[200:-100] = bytes(len(data) - 300)
    path.write_bytes(bytes(data))
    assert found(inspect(root), "damaged image").counts == {"train": 1}
    assert inspect(root).verdict.endswith(": 23 train, 20 val")
    assert inspect(root, pictures=False).exit_code == 0


def test_names_of_any_bytes(root: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    shutil.copy(root / "images" / "train" / "train01.png", root / "images" / "train" / f"{name}.png")
    text = json.dumps(inspect(root).as_dict(), ensure_ascii=False)
    assert "caf\\\\xe9.png" in text
    text.encode("utf-8")


@pytest.mark.parametrize("name", ["bccd", "coco_tiny", "coco_pose_tiny", "coco_tiny_seg", "dota_mini"])
def test_real_data_can_be_trained_on(data_dir: Path, name: str) -> None:
    result = inspect(data_dir / name / "data.yaml")
    assert result.exit_code < 2
    assert not any("damaged" in finding.kind for finding in result.findings)
