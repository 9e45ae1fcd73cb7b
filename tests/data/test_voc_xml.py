"""Pascal VOC xml: boxes by both conventions, classes by name, nothing that can grow."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from holdfast.data.annotation import Labels, Rules
from holdfast.data.index import build_index
from holdfast.data.problems import REMEDIES
from holdfast.data.voc_xml import read_voc

RULES = Rules(2, names=("cat", "big dog"))
SIZE = "<size><width>200</width><height>100</height><depth>3</depth></size>"
BOX = "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>30</ymax></bndbox>"
CAT = f"<object><name>cat</name>{BOX}</object>"


def xml(*objects: str, head: str = SIZE) -> bytes:
    return f'<?xml version="1.0"?>\n<annotation>{head}\n{"".join(objects)}</annotation>'.encode()


def read(data: bytes, rules: Rules = RULES, size: tuple[int, int] = (100, 200)) -> Labels:
    return read_voc(data, size, rules)


def pixels(labels: Labels) -> list[list[float]]:
    """Boxes as xyxy of an image of 200 x 100."""
    cx, cy, w, h = labels.boxes.T
    return (np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1) * [200, 100, 200, 100]).tolist()


def test_boxes_of_tools_are_edges() -> None:
    labels = read(xml(CAT, CAT.replace("cat", "Big Dog")))
    assert labels.classes.tolist() == [0, 1]
    assert np.allclose(pixels(labels), [[20, 10, 60, 30]] * 2, atol=1e-4)
    assert labels.faults == []


def test_boxes_of_the_challenge_count_pixels_from_one() -> None:
    head = f"<source><database>The VOC2007 Database</database></source>{SIZE}"
    labels = read(xml(CAT, CAT.replace(">20<", ">1<").replace(">10<", ">1<"), head=head))
    assert np.allclose(pixels(labels), [[19, 9, 60, 30], [0, 0, 60, 30]], atol=1e-4)
    assert labels.faults == []


def test_difficult_objects_are_kept_and_counted() -> None:
    labels = read(xml(CAT.replace("<bndbox>", "<difficult>1</difficult><bndbox>")))
    assert len(labels.boxes) == 1
    assert [(fault.reason, fault.refused) for fault in labels.faults] == [("difficult object kept", False)]


def test_boxes_of_parts_are_not_those_of_objects() -> None:
    labels = read(xml(CAT.replace(BOX, f"<part><name>head</name>{BOX.replace('60', '40')}</part>{BOX}")))
    assert np.allclose(pixels(labels), [[20, 10, 60, 30]], atol=1e-4)


FAULTS = {
    "class not in data.yaml": CAT.replace("cat", "cow"),
    "object without a box": "<object><name>cat</name></object>",
    "not a number": CAT.replace(">60<", ">sixty<"),
    "no area": CAT.replace(">60<", ">20<"),
    "infinite": (CAT.replace(">60<", ">1e999<"), "not a number"),
    "no name": ("<object/>", "class not in data.yaml"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_refused_with_the_reason_and_the_line(case: str) -> None:
    entry = FAULTS[case]
    text, reason = entry if isinstance(entry, tuple) else (entry, case)
    labels = read(xml("\n", text, "\n", CAT))
    assert len(labels.boxes) == 1
    assert labels.rows == 2
    assert [(fault.reason, fault.line, fault.refused) for fault in labels.faults] == [(reason, 4, True)]
    assert REMEDIES[reason]


def test_tolerated_with_a_word() -> None:
    swapped = CAT.replace(">20<", ">x<").replace(">60<", ">20<").replace(">x<", ">60<")
    over = CAT.replace(">60<", ">260<")
    labels = read(xml(swapped, over, swapped))
    assert np.allclose(pixels(labels), [[20, 10, 60, 30], [20, 10, 200, 30]], atol=1e-4)
    assert [fault.reason for fault in labels.faults] == [
        "corners of a box swapped",
        "box cut at the image border",
        "corners of a box swapped",
        "duplicate row",
    ]
    assert all(REMEDIES[fault.reason] and not fault.refused for fault in labels.faults)


@pytest.mark.parametrize("head", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_without_a_size_the_image_tells(head: str) -> None:
    labels = read(xml(CAT, head=head))
    assert np.allclose(pixels(labels), [[20, 10, 60, 30]], atol=1e-4)
    assert labels.faults == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not readable xml"),
        (b"<annotation>", "not readable xml"),
        (xml(CAT)[:-20], "not readable xml"),
        (xml("&lol;"), "not readable xml"),
        (b"<?xml version='1.0' encoding='no-such'?><annotation/>", "not readable xml"),
        (b"<?xml version='1.0'?><!DOCTYPE annotation><annotation/>", "xml with a document type"),
        (
            b"<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><annotation>&b;</annotation>",
            "xml with a document type",
        ),
        (
            b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><annotation>&x;</annotation>",
            "xml with a document type",
        ),
    ],
)
def test_damaged_and_dangerous_files_are_refused_whole(data: bytes, reason: str) -> None:
    labels = read(data)
    assert (len(labels.boxes), labels.rows) == (0, 1)
    assert [(fault.reason, fault.refused) for fault in labels.faults] == [(reason, True)]
    assert REMEDIES[reason]


def test_xml_that_is_no_label_is_no_label() -> None:
    labels = read(b"<metadata><camera/></metadata>")
    assert (labels.rows, [fault.reason for fault in labels.faults]) == (0, ["xml of another kind ignored"])


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16"])
def test_encodings(codec: str) -> None:
    rules = Rules(1, names=("größe 猫",))
    text = xml(CAT.replace("cat", "größe 猫")).decode().removeprefix('<?xml version="1.0"?>\n')
    assert len(read(text.encode(codec), rules).boxes) == 1


def test_single_class_keypoints_and_corners() -> None:
    cow = CAT.replace("cat", "cow")
    labels = read(xml(cow), RULES._replace(single_class=True, keypoints=(2, 3), oriented=True))
    assert labels.classes.tolist() == [0]
    assert labels.keypoints is not None
    assert labels.corners is not None
    assert labels.keypoints.tolist() == [[[0, 0, 0]] * 2]
    assert np.allclose(labels.corners[0] * [200, 100], [(20, 10), (60, 10), (60, 30), (20, 30)], atol=1e-4)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("JPEGImages/a.png", "Annotations/a.xml"),
        ("set/JPEGImages/x/a.png", "set/Annotations/x/a.XML"),
        ("images/train/a.png", "annotations/train/a.xml"),
        ("images/train/a.png", "Annotations/train/a.xml"),
        ("images/train/a.png", "labels/train/a.xml"),
        ("train/a.png", "train/a.xml"),
    ],
)
def test_where_files_are_found(tmp_path: Path, image: str, label: str) -> None:
    for path in (tmp_path / image, tmp_path / label):
        path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(tmp_path / image), np.zeros((100, 200, 3), np.uint8))
    (tmp_path / label).write_bytes(xml(CAT))
    index = build_index([tmp_path / image.split("/")[0]], names={0: "cat"})
    assert np.allclose(index.objects(0).boxes, [[20, 10, 60, 30]], atol=1e-4)


def test_text_labels_come_before_xml(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((100, 200, 3), np.uint8))
    (tmp_path / "a.xml").write_bytes(xml(CAT, CAT.replace("20", "30")))
    (tmp_path / "a.txt").write_text("0 .5 .5 .1 .1")
    assert len(build_index([tmp_path], names={0: "cat"}).boxes) == 1


def test_faults_are_told_with_file_and_line(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((100, 200, 3), np.uint8))
    (tmp_path / "a.xml").write_bytes(xml(CAT, "\n", CAT.replace("cat", "cow")))
    index = build_index([tmp_path], names={0: "cat"})
    assert index.problems.dropped_rows == 1
    assert "a.xml line 4: class not in data.yaml: 'cow'" in index.problems.lines()[0]
