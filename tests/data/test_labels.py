from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data.labels import parse_labels
from holdfast.data.problems import REMEDIES

ROW = (1, 0.5, 0.5, 0.2, 0.4)
GOOD = b"1 0.5 0.5 0.2 0.4\n"

TOLERATED = {
    "plain": GOOD,
    "no newline at the end": GOOD.strip(),
    "CRLF": b"1 0.5 0.5 0.2 0.4\r\n",
    "CR only": b"1 0.5 0.5 0.2 0.4\r",
    "blank lines": b"\n\n  \n" + GOOD + b"\n",
    "UTF-8 mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "UTF-16 without a mark": GOOD.decode().encode("utf-16-le"),
    "UTF-16 big-endian without a mark": GOOD.decode().encode("utf-16-be"),
    "tabs": GOOD.replace(b" ", b"\t"),
    "commas": b"1,0.5,0.5,0.2,0.4",
    "commas and spaces": b"1, 0.5, 0.5, 0.2, 0.4",
    "semicolons": b"1;0.5;0.5;0.2;0.4",
    "decimal commas": b"1 0,5 0,5 0,2 0,4",
    "decimal commas between semicolons": b"1;0,5;0,5;0,2;0,4",
    "class as 1.0": b"1.0 0.5 0.5 0.2 0.4",
    "exponents": b"1 5e-1 5E-1 2.0e-1 .4",
    "decimal comma in one place": b"1 0,5 0.5 0.2 0.4",
    "sixth column": b"1 0.5 0.5 0.2 0.4 0.93",
    "polygon": b"1 0.4 0.3 0.6 0.3 0.6 0.7 0.4 0.7",
    "triangle": b"1 0.4 0.7 0.5 0.3 0.6 0.7",
    "NUL bytes": b"\0\0" + GOOD + b"\0",
    "duplicate": GOOD + GOOD,
}


@pytest.mark.parametrize("case", TOLERATED)
def test_tolerated(case: str) -> None:
    labels = parse_labels(TOLERATED[case], classes=3)
    assert labels.classes.tolist() == [1]
    assert np.allclose(labels.boxes, [ROW[1:]], atol=1e-6)
    assert not any(fault.refused for fault in labels.faults)


REFUSED = {
    "class out of range": b"3 0.5 0.5 0.2 0.4",
    "class below zero": (b"-1 0.5 0.5 0.2 0.4", "class out of range"),
    "class is not a whole number": b"1.5 0.5 0.5 0.2 0.4",
    "wrong number of columns": b"1 0.5 0.5 0.2",
    "seven columns is a polygon, eight is nothing": (b"1 .1 .1 .2 .2 .3 .3 .4", "wrong number of columns"),
    "NaN or infinite": b"1 nan 0.5 0.2 0.4",
    "infinite": (b"1 0.5 inf 0.2 0.4", "NaN or infinite"),
    "not normalised": b"1 320 240 64 96",
    "pixel polygon": (b"1 10 10 200 10 200 100", "not normalised"),
    "no area": b"1 0.5 0.5 0 0.4",
    "negative side": (b"1 0.5 0.5 -0.2 0.4", "no area"),
    "outside the image": (b"1 1.5 0.5 0.2 0.4", "no area"),
    "polygon without area": (b"1 0.5 0.1 0.5 0.2 0.5 0.3", "no area"),
    "not a number": b"cat 0.5 0.5 0.2 0.4",
    "empty between separators": (b";;;", "wrong number of columns"),
    "pixels in one place": (b"1 0.5 240 0.2 0.4", "not normalised"),
    "huge number": (b"1e400 0.5 0.5 0.2 0.4", "NaN or infinite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason_and_the_line(case: str) -> None:
    entry = REFUSED[case]
    data, reason = entry if isinstance(entry, tuple) else (entry, case)
    labels = parse_labels(GOOD + data + b"\n0 0.1 0.1 0.1 0.1\n", classes=3)
    assert labels.classes.tolist() == [1, 0]  # the rows around it are kept
    assert [(fault.reason, fault.line, fault.refused) for fault in labels.faults] == [(reason, 2, True)]


def test_boxes_that_leave_the_image_are_cut() -> None:
    labels = parse_labels(b"0 0.0 0.5 0.4 1.2", classes=1)  # x -0.2..0.2, y -0.1..1.1
    assert np.allclose(labels.boxes, [[0.1, 0.5, 0.2, 1.0]])
    assert [fault.reason for fault in labels.faults] == ["box cut at the image border"]


def test_rounding_over_the_border_is_not_worth_a_word() -> None:
    labels = parse_labels(b"0 0.5 0.5 1.000001 1.0", classes=1)
    assert labels.faults == []
    assert labels.boxes.max() <= 1.0


def test_box_rows_stay_boxes_beside_polygons() -> None:
    labels = parse_labels(GOOD + b"0 0.1 0.1 0.3 0.1 0.3 0.2", classes=3)
    assert np.allclose(labels.boxes, [ROW[1:], (0.2, 0.15, 0.2, 0.1)], atol=1e-6)


def test_polygons_are_kept_as_outlines() -> None:
    labels = parse_labels(GOOD + b"0 0.1 0.1 0.3 0.1 0.3 0.2\n2 .4 .4 .6 .4 .6 .6 .4 .6", classes=3)
    assert labels.lengths.tolist() == [0, 3, 4]
    assert np.allclose(labels.points[:3], [(0.1, 0.1), (0.3, 0.1), (0.3, 0.2)])
    assert labels.keypoints is None
    assert labels.corners is None


def test_outlines_with_the_same_box_are_not_duplicates() -> None:
    rows = b"0 .1 .1 .3 .1 .3 .3\n0 .1 .1 .3 .3 .1 .3\n0 .1 .1 .3 .1 .3 .3"
    labels = parse_labels(rows, classes=1)
    assert labels.lengths.tolist() == [3, 3]
    assert [(fault.reason, fault.line) for fault in labels.faults] == [("duplicate row", 3)]


def test_outlines_that_leave_the_image_are_cut_and_so_is_their_box() -> None:
    labels = parse_labels(b"0 0.5 0.5 1.5 0.5 0.5 1.0", classes=1)  # a triangle, its right corner outside
    assert np.allclose(labels.boxes, [[0.75, 0.75, 0.5, 0.5]])
    assert labels.points.max() <= 1
    assert sorted(labels.points.tolist()) == [[0.5, 0.5], [0.5, 1.0], [1.0, 0.5], [1.0, 0.75]]
    assert [fault.reason for fault in labels.faults] == ["box cut at the image border"]


def test_oriented_rows_keep_their_corners_in_order() -> None:
    row = b"1 0.5 0.3 0.7 0.5 0.5 0.7 0.3 0.5"
    labels = parse_labels(row, classes=3, oriented=True)
    assert labels.corners is not None
    assert np.allclose(labels.corners, [[(0.5, 0.3), (0.7, 0.5), (0.5, 0.7), (0.3, 0.5)]])
    assert np.allclose(labels.boxes, [[0.5, 0.5, 0.4, 0.4]])
    assert labels.lengths.tolist() == [0]


def test_upright_rows_among_oriented_ones_get_corners() -> None:
    labels = parse_labels(GOOD, classes=3, oriented=True)
    assert labels.corners is not None
    assert np.allclose(labels.corners, [[(0.4, 0.3), (0.6, 0.3), (0.6, 0.7), (0.4, 0.7)]])
    assert [fault.reason for fault in labels.faults] == ["upright box among oriented ones"]


def test_a_box_with_its_angle_is_not_taken_for_an_upright_one() -> None:
    labels = parse_labels(GOOD.strip() + b" 0.7", classes=3, oriented=True)
    assert not len(labels.classes)
    assert [fault.detail for fault in labels.faults] == [
        "6 columns, expected 9 (class and four corners); no angle is read"
    ]


def test_polygons_are_no_oriented_boxes() -> None:
    labels = parse_labels(b"1 .1 .1 .3 .1 .3 .3", classes=3, oriented=True)
    assert [fault.detail for fault in labels.faults] == ["7 columns, expected 9 (class and four corners)"]


BOX = b"0 0.5 0.5 0.2 0.4 "


@pytest.mark.parametrize(
    ("row", "points", "reasons"),
    [
        (BOX + b".5 .5 2 .6 .6 1 0 0 0", [(0.5, 0.5, 2), (0.6, 0.6, 1), (0, 0, 0)], []),
        (BOX + b".5 .5 2 .6 .6 1 .7 .7 0", [(0.5, 0.5, 2), (0.6, 0.6, 1), (0, 0, 0)], []),
        (
            BOX + b".5 .5 .6 .6 0 0",  # without visibility
            [(0.5, 0.5, 2), (0.6, 0.6, 2), (0, 0, 0)],
            ["keypoints without visibility"],
        ),
        (
            BOX + b".5 .5 0.93 .6 .6 -1 0 0 5",
            [(0.5, 0.5, 2), (0, 0, 0), (0, 0, 2)],
            ["visibility is not 0, 1 or 2"],
        ),
        (
            BOX + b".5 .5 2 1.4 .6 2 1.0005 1 2",
            [(0.5, 0.5, 2), (0, 0, 0), (1, 1, 2)],
            ["keypoint outside the image"],
        ),
        (BOX, [(0, 0, 0)] * 3, ["row without keypoints"]),
    ],
)
def test_keypoints(row: bytes, points: list[tuple[float, float, float]], reasons: list[str]) -> None:
    labels = parse_labels(row, classes=1, keypoints=(3, 3))
    assert labels.keypoints is not None
    assert np.allclose(labels.keypoints, [points])
    assert np.allclose(labels.boxes, [[0.5, 0.5, 0.2, 0.4]])
    assert [fault.reason for fault in labels.faults] == reasons


def test_keypoints_without_visibility_are_as_expected_where_two_numbers_make_one() -> None:
    labels = parse_labels(BOX + b".5 .5 .6 .6 0 0", classes=1, keypoints=(3, 2))
    assert labels.keypoints is not None
    assert labels.keypoints[0, :, 2].tolist() == [2, 2, 0]
    assert labels.faults == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (BOX + b".5 .5 2 .6 .6", "wrong number of columns"),
        (b"0 .1 .1 .3 .1 .3 .3", "wrong number of columns"),  # a polygon
        (BOX + b"50 50 2 60 60 1 0 0 0", "not normalised"),
        (BOX + b"50 50 60 60 0 0", "not normalised"),
    ],
)
def test_keypoint_rows_that_are_refused(row: bytes, reason: str) -> None:
    labels = parse_labels(row, classes=1, keypoints=(3, 3))
    assert [(fault.reason, fault.refused) for fault in labels.faults] == [(reason, True)]
    assert labels.keypoints is not None
    assert labels.keypoints.shape == (0, 3, 3)


def test_every_reason_says_what_to_do() -> None:
    for case in REFUSED.values():
        data = case[0] if isinstance(case, tuple) else case
        for fault in parse_labels(data, classes=3).faults:
            assert REMEDIES[fault.reason]


def test_keypoint_rows_give_their_box() -> None:
    row = b"0 0.5 0.5 0.2 0.4 " + b"0.9 0.9 2 " * 17
    assert np.allclose(parse_labels(row, classes=1, keypoints=(17, 3)).boxes, [[0.5, 0.5, 0.2, 0.4]])
    assert parse_labels(row, classes=1).faults[0].reason == "wrong number of columns"


def test_json_is_not_read_as_rows() -> None:
    labels = parse_labels(b'{"shapes": [\n1,2,3\n]}', classes=3)
    assert labels.rows == 1
    assert [fault.reason for fault in labels.faults] == ["not YOLO text"]


def test_single_class_takes_every_class() -> None:
    assert parse_labels(b"7 .5 .5 .1 .1\n0 .2 .2 .1 .1", classes=1, single_class=True).classes.tolist() == [
        0,
        0,
    ]


def test_ten_thousand_rows() -> None:
    rows = "\n".join(f"0 {i / 20000 + 0.2:.6f} 0.5 0.1 0.1" for i in range(10_000))
    assert len(parse_labels(rows.encode(), classes=1).boxes) == 10_000


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.binary(max_size=200), st.text("0123456789.,;-+e \t\r\nnaif\0", max_size=120).map(str.encode))
)
def test_no_bytes_crash_or_harm_the_loss(data: bytes) -> None:
    labels = parse_labels(data, classes=2)
    assert len(labels.classes) == len(labels.boxes)
    if len(labels.boxes):
        assert np.isfinite(labels.boxes).all()
        assert labels.classes.min() >= 0
        assert labels.classes.max() < 2
        corners = np.concatenate(
            [labels.boxes[:, :2] - labels.boxes[:, 2:] / 2, labels.boxes[:, :2] + labels.boxes[:, 2:] / 2]
        )
        assert corners.min() >= -1e-6
        assert corners.max() <= 1 + 1e-6
        assert labels.boxes[:, 2:].min() > 0
