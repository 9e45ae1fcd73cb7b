from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.index import build_index, find_images, label_path
from holdfast.data.objects import Objects
from holdfast.errors import DataError

NAMES = {0: "cat", 1: "dog"}


def image(path: Path, height: int = 40, width: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))
    assert done
    path.write_bytes(data.tobytes())
    return path


def label(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    image(tmp_path / "images" / "a.png")
    label(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n1 0.25 0.25 0.1 0.2\n")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/x/images/a.b.PNG", "/images/x/labels/a.b.txt"),  # the last `images` counts
        ("/d/my_images/a.jpg", "/d/my_images/a.txt"),
        ("/d/a.jpg", "/d/a.txt"),
    ],
)
def test_where_labels_are_expected(path: str, expected: str) -> None:
    assert label_path(path.encode()) == expected.encode()


def test_labels_come_in_original_pixels(root: Path) -> None:
    index = build_index([root / "images"], names=NAMES)
    classes, boxes = index.labels(0)
    assert index.sizes.tolist() == [[40, 60]]
    assert classes.tolist() == [0, 1]
    assert np.allclose(boxes, [[15, 10, 45, 30], [12, 6, 18, 14]], atol=1e-4)
    assert index.path(0) == str(root / "images" / "a.png")
    assert index.boxes.dtype == np.float32


def test_objects_come_with_all_that_labels_hold_in_original_pixels(root: Path) -> None:
    image(root / "images" / "b.png", 100, 200)
    rows = "1 0.1 0.1 0.3 0.1 0.3 0.2\n0 0.5 0.5 0.5 0.5\n0 .5 .5 .6 .5 .6 .6 .5 .6\n"
    label(root / "labels" / "b.txt", rows)
    image(root / "images" / "c.png")
    index = build_index([root / "images"], names=NAMES)
    objects = index.objects(1)
    assert np.allclose(objects.boxes[0], [20, 10, 60, 20])
    assert np.allclose(objects.outline(0), [(20, 10), (60, 10), (60, 20)])
    assert len(objects.outline(1)) == 0
    assert np.allclose(objects.outline(2), [(100, 50), (120, 50), (120, 60), (100, 60)])
    assert objects.keypoints is objects.corners is None
    assert [len(index.objects(i)) for i in (0, 2)] == [2, 0]
    assert index.objects(0).starts.tolist() == [0, 0, 0]
    assert index.starts.dtype == np.int32


def test_keypoints_and_corners_come_in_original_pixels(root: Path) -> None:
    label(root / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5 0.5 0.25 2 0 0 0\n")
    index = build_index([root / "images"], names=NAMES, keypoints=(2, 3))
    points = index.objects(0).keypoints
    assert points is not None
    assert np.allclose(points, [[(30, 10, 2), (0, 0, 0)]])
    assert np.allclose(index.objects(0).keypoints, points)  # the index itself was not scaled
    label(root / "labels" / "a.txt", "0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n")
    turned = build_index([root / "images"], names=NAMES, oriented=True).objects(0)
    assert turned.corners is not None
    assert np.allclose(turned.corners, [[(30, 10), (45, 20), (30, 30), (15, 20)]])
    plain = build_index([root / "images"], names=NAMES).objects(0)
    assert plain.corners is None
    assert np.allclose(plain.outline(0), turned.corners[0])


def test_an_index_without_outlines_spends_nothing_on_them(root: Path) -> None:
    index = build_index([root / "images"], names=NAMES)
    assert index.points.size == index.starts.size == index.keypoints.size == index.corners.size == 0
    assert index.objects(0).starts.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "options", "outlines", "keypoints", "corners"),
    [
        ("coco_tiny", {}, False, None, None),
        ("coco_tiny_seg", {}, True, None, None),
        ("coco_pose_tiny", {"keypoints": (17, 3)}, False, 17, None),
        ("dota_mini", {"oriented": True}, False, None, 4),
    ],
)
def test_shared_data_sets_keep_what_their_task_needs(
    data_dir: Path,
    name: str,
    options: dict[str, Any],
    outlines: bool,
    keypoints: int | None,
    corners: int | None,
) -> None:
    data = read_dataset_file(data_dir / name / "data.yaml")
    index = build_index(data.split("train"), names=data.names, **options)
    whole = Objects.join([index.objects(i) for i in range(len(index))])
    assert bool(len(whole.points)) == outlines
    assert (None if whole.keypoints is None else whole.keypoints.shape[1]) == keypoints
    assert (None if whole.corners is None else whole.corners.shape[1]) == corners
    assert index.problems.dropped_rows == 0
    if outlines:
        for number in np.flatnonzero(np.diff(whole.starts)):
            points = whole.outline(number)
            extent = [*points.min(axis=0), *points.max(axis=0)]
            assert np.allclose(extent, whole.boxes[number], atol=0.01)


def test_two_images_of_one_stem_share_their_label_and_it_is_said(root: Path) -> None:
    image(root / "images" / "a.ka.png")
    image(root / "images" / "A.png")
    image(root / "images" / "a.bmp.png").rename(root / "images" / "a.jpg")
    index = build_index([root / "images"], names=NAMES)
    assert np.diff(index.offsets).tolist() == [0, 2, 0, 2]  # A.png, a.jpg, a.ka.png, a.png
    assert index.problems.counts == {"images that share a label file": 1}
    assert "a.jpg and a.png" in index.problems.examples["images that share a label file"][0]
    assert "Rename one" in index.problems.lines()[0]


@pytest.mark.parametrize("suffix", [".TXT", ".Txt"])
def test_label_files_with_a_suffix_in_capitals_are_found(root: Path, suffix: str) -> None:
    (root / "labels" / "a.txt").rename(root / "labels" / f"a{suffix}")
    assert len(build_index([root / "images"], names=NAMES).boxes) == 2


def test_sources_named_like_files_of_another_kind(root: Path) -> None:
    image(root / "folder.txt" / "images" / "b.png")
    image(root / "images" / "deep.jpg" / "c.png")
    found = find_images([root / "folder.txt", str(root / "images" / "*.jpg")])
    assert [os.path.basename(path) for path in found] == [b"b.png", b"c.png"]


def test_list_files_may_be_utf16_and_name_impossible_paths(root: Path) -> None:
    (root / "list.txt").write_bytes("images/a.png\r\nimages/no\0where.png\r\nimages\r\n".encode("utf-16"))
    index = build_index([root / "list.txt"], names=NAMES)
    assert len(index) == 1
    assert index.problems.counts == {"unreadable image": 2}


def test_a_label_that_is_a_link_to_nowhere(root: Path) -> None:
    image(root / "images" / "b.png")
    (root / "labels" / "b.txt").symlink_to(root / "gone.txt")
    index = build_index([root / "images"], names=NAMES)
    assert len(index) == 1
    assert "link to nowhere" in index.problems.examples["unreadable label file"][0]


def test_every_line_says_what_to_do(root: Path) -> None:
    label(root / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n")
    (line,) = build_index([root / "images"], names=NAMES).problems.lines()
    assert line.startswith("1 x class out of range, for example ")
    remedy = "Correct the class, which counts from 0, or add it to 'names' in data.yaml."
    assert line.endswith(f"(0 to 1). {remedy}")


def test_images_without_labels_are_backgrounds(root: Path) -> None:
    image(root / "images" / "b.png")  # no file
    image(root / "images" / "c.png")
    label(root / "labels" / "c.txt", "  \n")  # empty file
    index = build_index([root / "images"], names=NAMES)
    assert len(index) == 3
    assert index.backgrounds == 2
    assert index.labels(1)[1].shape == (0, 4)
    assert index.problems.counts == {}


def test_nested_folders_and_mixed_case_suffixes(root: Path) -> None:
    image(root / "images" / "deep" / "er" / "B.PNG")
    (root / "images" / "notes.md").write_text("no image")
    (root / "images" / "._a.png").write_bytes(b"left by a file system")
    assert [os.path.basename(path) for path in find_images([root / "images"])] == [b"a.png", b"B.PNG"]


def test_lists_may_be_made_on_windows(root: Path) -> None:
    (root / "list.txt").write_bytes(b"images\\a.png\r\n.\\images\\a.png\r\nimages\\gone.png\r\n")
    first, gone = find_images([root / "list.txt"])
    assert first.decode() == str(root / "images" / "a.png")
    assert b"gone.png" in gone


def test_sources_may_be_lists_globs_folders_and_files_without_repeats(root: Path) -> None:
    b, c = image(root / "images" / "b.png"), image(root / "more" / "c.png")
    (root / "list.txt").write_text(f"# comment\nimages/a.png\r\n\n./images/b.png\n{c}\n")
    listed = find_images([root / "list.txt"])
    assert [path.decode() for path in listed] == [str(root / "images" / "a.png"), str(b), str(c)]
    assert find_images([root / "list.txt", root / "images", str(root / "*" / "*.png"), b]) == listed


def test_a_link_in_a_circle_ends(root: Path) -> None:
    (root / "images" / "again").symlink_to(root / "images")
    assert len(find_images([root / "images"])) == 1


def test_file_names_of_any_bytes_survive(root: Path) -> None:
    for name in ("with space", "Größe 画像", os.fsdecode(b"latin1-\xe9")):
        image(root / "images" / f"{name}.png")
        label(root / "labels" / f"{name}.txt", "1 0.5 0.5 0.5 0.5")
    index = build_index([root / "images"], names=NAMES)
    assert len(index) == 4
    assert len(index.boxes) == 5
    assert all(os.path.exists(path) for path in index.paths)


def test_unusable_images_are_left_out_and_counted(root: Path) -> None:
    (root / "images" / "empty.jpg").write_bytes(b"")
    (root / "images" / "text.jpg").write_text("hello")
    data = image(root / "images" / "cut.png", 300, 300).read_bytes()
    (root / "images" / "cut.png").write_bytes(data[: len(data) // 2])
    image(root / "images" / "tiny.png", 9, 30)
    (root / "list.txt").write_text("images/a.png\nimages/gone.png\n")
    index = build_index([root / "images", root / "list.txt"], names=NAMES)
    assert len(index) == 1
    assert index.problems.counts == {"unreadable image": 4, "image under 10 pixels": 1}
    assert index.problems.dropped_images == 5
    assert any("gone.png" in example for example in index.problems.examples["unreadable image"])


def test_bad_rows_are_counted_with_file_and_line_and_the_rest_is_used(root: Path) -> None:
    label(root / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.5 0.5\n0 300 200 10 10\n")
    index = build_index([root / "images"], names=NAMES)
    assert len(index.boxes) == 1
    assert index.problems.counts == {"class out of range": 1, "not normalised": 1}
    assert index.problems.dropped_rows == 2
    assert "a.txt line 2: " in index.problems.examples["class out of range"][0]


def test_an_image_whose_rows_are_all_bad_is_not_taught_as_background(root: Path) -> None:
    image(root / "images" / "b.png")
    label(root / "labels" / "b.txt", "9 0.5 0.5 0.5 0.5\n")
    index = build_index([root / "images"], names=NAMES)
    assert len(index) == 1
    assert index.problems.counts["no usable row"] == 1


def test_a_folder_named_like_a_label_file(root: Path) -> None:
    image(root / "images" / "b.png")
    (root / "labels" / "b.txt").mkdir()
    index = build_index([root / "images"], names=NAMES)
    assert len(index) == 1
    assert "is a folder" in index.problems.examples["unreadable label file"][0]


def test_examples_are_few_however_many_the_faults(root: Path) -> None:
    label(root / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5\n" + "5 0.5 0.5 0.5 0.5\n" * 1000)
    problems = build_index([root / "images"], names=NAMES).problems
    assert problems.counts["class out of range"] == 1000
    assert len(problems.examples["class out of range"]) == 5


def test_single_class_and_min_items(root: Path) -> None:
    image(root / "images" / "b.png")
    index = build_index([root / "images"], names=NAMES, single_cls=True, min_items=1)
    assert len(index) == 1
    assert set(index.classes.tolist()) == {0}
    assert len(index.names) == 1
    assert index.problems.counts == {"fewer boxes than min_items": 1}


def test_labels_beside_images_are_found(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    label(tmp_path / "images" / "a.txt", "0 0.5 0.5 0.5 0.5")
    assert len(build_index([tmp_path / "images"], names=NAMES).boxes) == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: (root / "none").mkdir() or root / "none", "no images found"),
        (lambda root: root / "nowhere", "no such image folder"),
        (lambda root: image(root / "x" / "a.png").parent, "no label file found.*looked for"),
        (
            lambda root: (root / "bad.jpg").write_text("x") and root / "bad.jpg",
            "none of 1 images can be used",
        ),
        (lambda root: (root / "l.txt").write_text("\n#\n") and root / "l.txt", "list of images is empty"),
    ],
)
def test_empty_data_sets_are_refused_in_one_line(root: Path, make: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        build_index([make(root)], names=NAMES)  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_threads_do_not_change_the_index(data_dir: Path) -> None:
    data = read_dataset_file(data_dir / "bccd" / "data.yaml")
    one, many = (build_index(data.split("train"), names=data.names, workers=workers) for workers in (1, 8))
    assert one.fingerprint == many.fingerprint
    assert (len(one), len(one.boxes)) == (205, 2804)
    assert np.bincount(one.classes).tolist() == [2381, 214, 209]
    assert one.problems.counts == many.problems.counts == {}
