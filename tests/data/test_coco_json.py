"""COCO json gives the labels that YOLO text gives, and its faults are counted one by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.index import Index, build_index
from holdfast.data.problems import REMEDIES
from holdfast.data.rle import decode, trace
from holdfast.errors import DataError

NAMES = {0: "cat", 1: "big dog"}
CATEGORIES = [{"id": 17, "name": "cat"}, {"id": 18, "name": "Big-Dog"}, {"id": 3, "name": "cow"}]
GOOD = {"id": 1, "image_id": 1, "category_id": 17, "bbox": [10, 10, 20, 10]}
TRIANGLE = [100, 10, 140, 10, 140, 50]


def picture(path: Path, height: int = 100, width: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


def write(root: Path, annotations: list[Any], **more: Any) -> Path:
    """A json in `annotations`, its image in `images`."""
    picture(root / "images" / "1.png")
    content = {
        "info": {"year": 2024, "list": [1]},
        "annotations": annotations,  # before what they refer to
        "images": [{"id": 1, "file_name": "1.png", "height": 100, "width": 200}],
        "categories": CATEGORIES,
        **more,
    }
    path = root / "annotations" / "some.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def index_of(root: Path, annotations: list[Any], options: dict[str, Any] | None = None, **more: Any) -> Index:
    return build_index([write(root, annotations, **more)], **{"names": NAMES, **(options or {})})


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("coco_tiny", "instances"),
        ("coco_tiny_seg", "instances"),
        ("coco_pose_tiny", "person_keypoints"),
    ],
)
def test_json_and_text_of_the_same_images_agree(data_dir: Path, name: str, stem: str, split: str) -> None:
    data = read_dataset_file(data_dir / name / "data.yaml")
    text = build_index(data.split(split), names=data.names, keypoints=data.keypoints)
    source = data.root / "annotations" / f"{stem}_{split}.json"
    coco = build_index([source], names=data.names, keypoints=data.keypoints)
    assert sorted(coco.paths) == text.paths
    matched = 0
    for number, path in enumerate(coco.paths):
        ours, theirs = coco.objects(number), text.objects(text.paths.index(path))
        height, width = coco.sizes[number]
        for mine in range(len(theirs)):
            near = np.abs(ours.boxes - theirs.boxes[mine]).max(axis=1)
            near[ours.classes != theirs.classes[mine]] = np.inf
            best = int(near.argmin())
            # the text of outlines has its own box, the extent of the outline, which json rounds apart
            assert near[best] < (1.5 if name == "coco_tiny_seg" else 0.01)
            matched += 1
            if ours.keypoints is not None and theirs.keypoints is not None:
                gap = np.abs(ours.keypoints[best] - theirs.keypoints[mine]).max(axis=0)
                assert (gap <= [2e-6 * width, 2e-6 * height, 0]).all()
    assert matched == len(text.boxes)
    assert coco.problems.dropped_rows == coco.problems.counts.get("crowd region skipped", 0)


def test_outlines_are_kept_and_parts_joined(root: Path) -> None:
    square = [10, 60, 30, 60, 30, 80, 10, 80]
    index = index_of(root, [{**GOOD, "bbox": [10, 10, 130, 70], "segmentation": [TRIANGLE, square]}, GOOD])
    objects = index.objects(0)
    assert len(objects.outline(0)) == 3 + 4 + 2  # and a bridge there and back
    assert len(objects.outline(1)) == 0
    area = cv2.contourArea(objects.outline(0))
    assert area == pytest.approx(40 * 40 / 2 + 20 * 20, abs=0.1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


FAULTS: dict[str, tuple[Any, str, int]] = {
    "crowd": ({**GOOD, "iscrowd": 1}, "crowd region skipped", 1),
    "class of nobody": ({**GOOD, "category_id": 3}, "class not in data.yaml", 1),
    "category of nobody": ({**GOOD, "category_id": {"a": 1}}, "class not in data.yaml", 1),
    "no area": ({**GOOD, "bbox": [10, 10, 0, 5]}, "no area", 1),
    "outside": ({**GOOD, "bbox": [300, 10, 10, 10]}, "no area", 1),
    "leaves the image": ({**GOOD, "bbox": [190, 10, 30, 10]}, "box cut at the image border", 2),
    "three numbers": ({**GOOD, "bbox": [1, 2, 3]}, "damaged annotation", 1),
    "words": ({**GOOD, "bbox": ["a", 2, 3, 4]}, "damaged annotation", 1),
    "not finite": ({**GOOD, "bbox": [float("nan"), 2, 3, 4]}, "damaged annotation", 1),
    "huge": ({**GOOD, "bbox": [10**400, 2, 3, 4]}, "damaged annotation", 1),
    "no entry": (7, "damaged annotation", 1),
    "no box": ({**GOOD, "bbox": []}, "object without a box", 1),
    "no image": ({**GOOD, "image_id": 99}, "annotation of no image", 1),
    "list as image": ({**GOOD, "image_id": [1]}, "annotation of no image", 1),
    "twice": (GOOD, "duplicate row", 1),
    "damaged mask": ({**GOOD, "bbox": [5, 5, 9, 9], "segmentation": {"counts": "~", "size": [1, 1]}},
                     "mask not read", 2),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_counted_and_the_rest_is_used(root: Path, case: str) -> None:
    entry, reason, kept = FAULTS[case]
    index = index_of(root, [GOOD, entry])
    assert index.problems.counts == {reason: 1}
    assert len(index.boxes) == kept
    assert str(root) in index.problems.examples[reason][0]
    assert REMEDIES[reason] in index.problems.lines()[0]


@pytest.mark.parametrize("case", ["words", "not finite", "class of nobody"])
def test_an_image_of_unusable_objects_only_is_no_background(root: Path, case: str) -> None:
    picture(root / "images" / "2.png")
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)]
    index = index_of(root, [FAULTS[case][0], {**GOOD, "image_id": 2}], images=images)
    assert [Path(path).name for path in index.paths] == ["2.png"]
    assert index.problems.dropped_images == 1


@pytest.mark.parametrize("case", ["words", "class of nobody", "no image"])
def test_objects_of_which_none_can_be_used_are_an_error(root: Path, case: str) -> None:
    picture(root / "images" / "2.png")
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2)]
    with pytest.raises(DataError, match=rf"none of 2 objects can be used.*{FAULTS[case][1]} \(2 times\)"):
        index_of(root, [FAULTS[case][0]] * 2, images=images)


def test_an_image_of_crowds_only_is_a_background(root: Path) -> None:
    assert index_of(root, [{**GOOD, "iscrowd": 1}]).backgrounds == 1


def test_categories_go_by_name_whatever_their_ids_and_spelling(root: Path) -> None:
    index = index_of(root, [{**GOOD, "category_id": 18}, GOOD])
    assert index.classes.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("categories", "names", "ids", "classes"),
    [
        ([{"id": 90, "name": "x"}, {"id": 5, "name": "y"}], {0: "class0", 1: "class1"}, [5, 90], [0, 1]),
        (None, NAMES, [1, 2], [0, 1]),  # counted from 1
        (None, NAMES, [0, 1], [0, 1]),
    ],
)
def test_categories_without_names(
    root: Path, categories: Any, names: dict[int, str], ids: list[int], classes: list[int]
) -> None:
    entries = [{**GOOD, "category_id": number} for number in ids]
    index = index_of(root, entries, {"names": names}, categories=categories)
    assert index.classes.tolist() == classes


def test_single_class_takes_every_category(root: Path) -> None:
    index = index_of(root, [{**GOOD, "category_id": 3}], {"single_cls": True})
    assert index.classes.tolist() == [0]


def test_an_outline_without_a_box_gives_one(root: Path) -> None:
    entry = {key: value for key, value in GOOD.items() if key != "bbox"}
    index = index_of(root, [{**entry, "segmentation": [TRIANGLE]}])
    assert np.allclose(index.objects(0).boxes, [[100, 10, 140, 50]], atol=1e-4)


def test_oriented_boxes_are_the_smallest_around_the_outline(root: Path) -> None:
    diamond = [100, 20, 120, 40, 100, 60, 80, 40]
    index = index_of(
        root, [{**GOOD, "bbox": [80, 20, 40, 40], "segmentation": [diamond]}], {"oriented": True}
    )
    corners = index.objects(0).corners
    assert corners is not None
    gaps = np.abs(corners[0][:, None] - np.array(diamond).reshape(4, 2)[None]).sum(axis=2)
    assert gaps.min(axis=0).max() < 0.01


def test_keypoints_that_do_not_fit_leave_the_box(root: Path) -> None:
    points = [12, 12, 2, 0, 0, 0]
    entries = [{**GOOD, "keypoints": points}, {**GOOD, "bbox": [1, 1, 9, 9], "keypoints": points[:3]}]
    index = index_of(root, entries, {"keypoints": (2, 3)})
    keypoints = index.objects(0).keypoints
    assert keypoints is not None
    assert np.allclose(keypoints, [[(12, 12, 2), (0, 0, 0)], [(0, 0, 0)] * 2])
    assert index.problems.counts == {"keypoints do not fit kpt_shape": 1}


@pytest.mark.parametrize(
    ("size", "boxes", "counted"),
    [
        ((100, 200), [10, 10, 30, 20], 0),
        ((50, 100), [20, 20, 60, 40], 1),  # annotated at half the size
        ((200, 100), [10, 10, 30, 20], 1),  # another shape: pixels of the image
        ((0, 0), [10, 10, 30, 20], 0),
        ((None, "x"), [10, 10, 30, 20], 0),
    ],
)
def test_images_of_another_size_than_annotated(
    root: Path, size: Any, boxes: list[float], counted: int
) -> None:
    images = [{"id": 1, "file_name": "1.png", "height": size[0], "width": size[1]}]
    index = index_of(root, [GOOD], images=images)
    assert np.allclose(index.objects(0).boxes, [boxes], atol=1e-4)
    assert index.problems.counts.get("size differs from the image", 0) == counted


@pytest.mark.parametrize(
    ("place", "file_name", "yaml"),
    [
        ("annotations", "1.png", "images: pictures/all"),
        ("annotations", "all/1.png", "images: pictures"),
        ("annotations", "1.png", "images: {train: pictures/all, val: nowhere}"),
        ("annotations", "pictures\\all\\1.png", ""),
        ("annotations", "{root}/set/pictures/all/1.png", ""),
        ("pictures/all", "1.png", ""),
        ("pictures", "all/1.png", ""),
    ],
)
def test_where_images_are_looked_for(root: Path, place: str, file_name: str, yaml: str) -> None:
    folder = root / "set"
    images = [{"id": 1, "file_name": file_name.replace("{root}", str(root)), "height": 100, "width": 200}]
    source = write(folder, [GOOD], images=images)
    shutil.move(folder / "images", folder / "pictures")
    (folder / "pictures" / "all").mkdir()
    (folder / "pictures" / "1.png").rename(folder / "pictures" / "all" / "1.png")
    if place != "annotations":
        source.rename(folder / place / "some.json")
    text = f"train: {place}/some.json\nnames: [cat, big dog]\n{yaml}\n"
    (folder / "data.yaml").write_text(text)
    data = read_dataset_file(folder)
    index = build_index(
        data.split("train"), names=data.names, image_folders=data.image_folders.get("train", ())
    )
    assert index.paths == [str(folder / "pictures" / "all" / "1.png")]


def test_a_folder_of_images_that_does_not_exist_is_a_fault_of_the_split(root: Path) -> None:
    write(root, [GOOD])
    (root / "data.yaml").write_text("train: annotations/some.json\nnames: [cat]\nimages: imges\n")
    with pytest.raises(DataError, match=r"images: 'imges' does not exist.*Did you mean"):
        read_dataset_file(root).split("train")


def test_images_that_are_gone_or_damaged_in_the_json_are_left_out(root: Path) -> None:
    images = [
        {"id": 1, "file_name": "1.png", "height": 100, "width": 200},
        {"id": 2, "file_name": "gone.png", "height": 100, "width": 200},
        {"file_name": "2.png"},
        {"id": 4, "file_name": "no\0where\ud800.png"},
        {"id": 5},
    ]
    picture(root / "images" / "2.png")
    index = index_of(root, [GOOD], images=images)
    assert len(index) == 1
    assert index.problems.counts == {"unreadable image": 2, "damaged image entry": 2}


def test_several_files_and_patterns_are_one_split(root: Path) -> None:
    source = write(root, [GOOD])
    source.rename(source.with_name("first.json"))
    write(root, [{**GOOD, "category_id": 18}])
    index = build_index([str(source.parent / "*.json")], names=NAMES)
    assert index.classes.tolist() == [0, 1]
    assert len(index) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"images": [{"id": 1, "file_name": "1.png"},,], "annotations": []}', "line 1"),
        ('{"images": [{"id": 1, "file_name": "1.png"}]\n "annotations": []}', "line 2"),
        ('{"images": [{"id": 1, "file_name": "1.png"}]} {}', "Extra data"),
        ('[{"file_name": "1.png"}]', "Expecting '{'"),
        ('{"images": [{"file_name": "1.png"}', "Expecting ','"),
        ('{"images": ' + "[" * 100_000 + '"file_name": "1.png"', "recursion|too deep|Expecting"),
        ('{"images": [{"id": ' + "9" * 5000 + ', "file_name": "1.png"}]}', "digits"),
        ('{"images": [{"file_name": "1.png"}]}', "no usable image"),
        ("{}", "names no images"),
        ("", "names no images"),
    ],
)
def test_what_is_no_coco_json_is_refused_in_one_line(root: Path, text: str, reason: str) -> None:
    source = write(root, [])
    source.write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        build_index([source], names=NAMES)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_byte_order_marks_and_spaces_are_tolerated(root: Path) -> None:
    source = write(root, [GOOD])
    content = json.dumps(json.loads(source.read_text()), indent="\t")
    source.write_text("\ufeff\r\n " + content + "\n\n", encoding="utf-8")
    assert len(build_index([source], names=NAMES).boxes) == 1


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, starting with background."""
    counts, value, length = [], 0, 0
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            counts.append(length)
            value, length = pixel, 0
        length += 1
    return [*counts, length]


def test_masks_in_run_lengths_are_traced(root: Path) -> None:
    mask = np.zeros((100, 200), np.uint8)
    mask[20:60, 30:90] = 1
    mask[70:90, 150:180] = 1
    entry = {**GOOD, "bbox": [30, 20, 150, 70], "segmentation": {"counts": runs(mask), "size": [100, 200]}}
    index = index_of(root, [entry])
    outline = index.objects(0).outline(0)
    assert index.problems.counts == {}
    assert cv2.contourArea(outline) == pytest.approx(40 * 60 + 20 * 30, rel=0.1)


def test_compressed_run_lengths_are_those_of_the_reference() -> None:
    reference = pytest.importorskip("pycocotools.mask")
    mask = (np.random.default_rng(0).random((37, 53)) < 0.3).astype(np.uint8)
    coded = reference.encode(np.asfortranarray(mask))
    found = decode({"size": coded["size"], "counts": coded["counts"].decode()})
    assert found is not None
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_array_equal(decode({"size": [37, 53], "counts": runs(mask)}), mask)


@pytest.mark.parametrize(
    "mask",
    [
        {},
        {"size": [3, 3], "counts": [4, 4]},
        {"size": [3, 3], "counts": [-1, 10]},
        {"size": [100_000, 100_000], "counts": [10**10]},
        {"size": [3, 3], "counts": "\x00"},
        {"size": [3, 3], "counts": "o" * 100},
        {"size": [3, "3"], "counts": [9]},
        {"size": [3, 3], "counts": [9.0]},
        {"size": [3, 3], "counts": [0] * 10**6},
        {"size": [4, 3], "counts": [12]},
    ],
)
def test_damaged_masks_are_nothing(mask: dict[str, Any]) -> None:
    assert trace(mask, 3, 3) == []


def test_the_programs_take_json_and_the_cache_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.data import index as index_module
    from holdfast.data.splits import split_index

    write(root, [GOOD])
    (root / "pictures").mkdir()
    (root / "images" / "1.png").rename(root / "pictures" / "1.png")
    (root / "data.yaml").write_text(
        "val: annotations/some.json\nimages: pictures\nnames: [cat, big dog]\nkpt_shape: [2, 3]\n"
    )
    monkeypatch.setattr(index_module, "CACHE_FROM", 1)
    calls: list[int] = []
    for _ in range(2):
        index = split_index(
            read_dataset_file(root),
            "val",
            single_cls=False,
            workers=1,
            cache=root / "cache",
            scanned=lambda done, _: calls.append(done),
        )
        assert index.paths == [str(root / "pictures" / "1.png")]
        keypoints = index.objects(0).keypoints
        assert keypoints is not None
        assert keypoints.shape == (1, 2, 3)
    assert calls == [1]
    content = json.loads((root / "annotations" / "some.json").read_text())
    content["annotations"] = [{**GOOD, "category_id": 18}]
    (root / "annotations" / "some.json").write_text(json.dumps(content))
    again = split_index(read_dataset_file(root), "val", single_cls=False, workers=1, cache=root / "cache")
    assert again.classes.tolist() == [1]
