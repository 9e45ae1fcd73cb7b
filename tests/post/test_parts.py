"""Masks, keypoints, oriented boxes and probabilities under the names and in the formats users know."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from holdfast.post.boxes import OBB
from holdfast.post.keypoints import Keypoints
from holdfast.post.masks import Masks
from holdfast.post.probs import Probs
from holdfast.post.results import Results

NAMES = dict(enumerate(["cat", "dog", "owl", "fox", "elk", "bee"]))
ROWS = torch.tensor([[20.0, 10, 60, 50, 0.9, 1], [100, 20, 180, 90, 0.4, 0]])


def image() -> np.ndarray[Any, Any]:
    return np.full((100, 200, 3), 127, np.uint8)


def segmented(size: tuple[int, int] = (100, 200)) -> Results:
    masks = torch.zeros(2, *size, dtype=torch.bool)
    masks[0, 10:50, 20:60] = True
    masks[1, 20:30, 100:110] = True
    return Results(image(), path="a.jpg", names=NAMES, boxes=ROWS, masks=masks)


def posed(count: int = 17, numbers: int = 3) -> Results:
    points = torch.linspace(5, 95, 2 * count * 2).view(2, count, 2)
    if numbers == 3:
        points = torch.cat((points, torch.linspace(0.1, 1, 2 * count).view(2, count, 1)), 2)
    return Results(image(), path="a.jpg", names=NAMES, boxes=ROWS, keypoints=points)


def turned() -> Results:
    rows = torch.tensor([[100.0, 50, 80, 20, math.pi / 6, 0.9, 1], [40, 40, 30, 10, 0, 0.5, 2]])
    return Results(image(), path="a.jpg", names=NAMES, obb=rows)


def classified() -> Results:
    return Results(image(), path="a.jpg", names=NAMES, probs=torch.tensor([0.05, 0.6, 0.1, 0.02, 0.2, 0.03]))


EVERY = [segmented, posed, turned, classified]


def test_outlines_follow_the_largest_part() -> None:
    masks = segmented().masks
    assert isinstance(masks, Masks)
    assert masks.xy[0].min(0).tolist() == [20.5, 10.5]
    assert masks.xy[0].max(0).tolist() == [59.5, 49.5]
    assert masks.xyn[0].max(0).tolist() == pytest.approx([59.5 / 200, 49.5 / 100])
    masks.data[0] = False
    assert masks.xy[0].shape == (0, 2)


def test_masks_of_the_input_lie_on_the_image_without_its_padding() -> None:
    data = torch.zeros(1, 160, 160, dtype=torch.bool)  # the image is 160x80 in the middle of it
    data[0, 40:80, 80:160] = True  # its upper right quarter
    masks = Masks(data, (100, 200))
    quarter = np.zeros((100, 200), bool)
    quarter[:50, 100:] = True
    assert (masks.in_image()[0] == quarter).all()
    assert masks.xy[0].min(0).tolist() == pytest.approx([100, 0], abs=1)
    assert masks.xy[0].max(0).tolist() == pytest.approx([200, 50], abs=1)


def test_keypoints_in_every_format() -> None:
    points = posed().keypoints
    assert isinstance(points, Keypoints)
    assert points.xy.shape == (2, 17, 2)
    assert points.has_visible
    torch.testing.assert_close(points.xyn * torch.tensor([200, 100]), points.xy)
    assert points.conf.shape == (2, 17)
    assert len(points[0]) == 1
    plain = posed(4, 2).keypoints
    assert plain is not None
    assert (plain.has_visible, plain.conf) == (False, None)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_oriented_boxes_in_every_format(kind: str) -> None:
    boxes = turned().obb if kind == "torch" else turned().numpy().obb
    assert isinstance(boxes, OBB)
    corners = np.asarray(boxes.xyxyxyxy)
    ours = {tuple(np.round(c).tolist()) for c in corners[0]}
    theirs = {tuple(np.round(c).tolist()) for c in cv2.boxPoints(((100, 50), (80, 20), 30))}
    assert ours == theirs
    assert np.asarray(boxes.xyxy[1]).tolist() == pytest.approx([25, 35, 55, 45])
    assert np.asarray(boxes.xyxyxyxyn)[1].max(0).tolist() == pytest.approx([55 / 200, 45 / 100])
    assert np.asarray(boxes.xywhr[1]).tolist() == [40, 40, 30, 10, 0]
    assert np.asarray(boxes.conf).tolist() == pytest.approx([0.9, 0.5])
    assert np.asarray(boxes.cls).tolist() == [1, 2]
    assert (boxes.is_track, boxes.id) == (False, None)
    with pytest.raises(ValueError, match="rows of 7 or 8 numbers"):
        OBB(torch.zeros(1, 6), (9, 9))


def test_probabilities_of_the_first_classes() -> None:
    probs = classified().probs
    assert isinstance(probs, Probs)
    assert (probs.top1, probs.top5) == (1, [1, 4, 2, 0, 5])
    assert float(probs.top1conf) == pytest.approx(0.6)
    assert probs.top5conf.tolist() == pytest.approx([0.6, 0.2, 0.1, 0.05, 0.03])
    assert Probs(np.array([0.3, 0.7])).top5 == [1, 0]


@pytest.mark.parametrize("make", EVERY)
def test_parts_move_and_are_cut_together(make: Any) -> None:
    result = make()
    moved = result.cpu().numpy().to("cpu")
    assert moved.verbose() == result.verbose()
    assert len(result) == len(list(result)) == (1 if make is classified else 2)
    assert result[0].summary() == result.summary()[:1]
    assert make in (classified,) or len(result[:0]) == 0
    assert "Results('a.jpg', 200x100" in repr(result)


def test_words_of_a_classified_image() -> None:
    assert classified().verbose() == "dog 0.60, elk 0.20, owl 0.10, cat 0.05, bee 0.03"
    assert turned().verbose() == "1 dog, 1 owl"


def lines_of(result: Results, path: Path, **options: bool) -> list[list[str]]:
    text = Path(result.save_txt(path / "a.txt", **options)).read_text()
    return [line.split() for line in text.splitlines()]


def test_label_rows_of_each_kind(tmp_path: Path) -> None:
    outlines = lines_of(segmented(), tmp_path / "seg")
    assert outlines[0][0] == "1"
    assert np.array(outlines[0][1:], float).reshape(-1, 2).max(0).tolist() == pytest.approx(
        [59.5 / 200, 49.5 / 100]
    )
    points = lines_of(posed(), tmp_path / "pose", save_conf=True)
    assert len(points[0]) == 1 + 4 + 17 * 3 + 1
    assert [float(v) for v in points[0][1:5]] == pytest.approx([0.2, 0.3, 0.2, 0.4])
    assert float(points[0][-1]) == pytest.approx(0.9)
    assert len(lines_of(posed(4, 2), tmp_path / "plain")[0]) == 1 + 4 + 4 * 2
    corners = lines_of(turned(), tmp_path / "obb")
    assert len(corners[1]) == 1 + 8
    assert np.array(corners[1][1:], float).reshape(4, 2).min(0).tolist() == pytest.approx([25 / 200, 0.35])
    assert lines_of(classified(), tmp_path / "cls")[:2] == [["0.60", "dog"], ["0.20", "elk"]]


def test_an_object_whose_mask_is_empty_is_told_by_its_box(tmp_path: Path) -> None:
    result = segmented()
    assert result.masks is not None
    result.masks.data[0] = False
    assert len(lines_of(result, tmp_path)[0]) == 5


def test_summaries_name_what_there_is() -> None:
    assert set(segmented().summary()[0]) == {"name", "class", "confidence", "box", "segments"}
    assert set(posed().summary()[0]["keypoints"]) == {"x", "y", "visible"}
    assert set(posed(4, 2).summary()[0]["keypoints"]) == {"x", "y"}
    assert set(turned().summary(normalize=True)[0]["box"]) == {f"{a}{i}" for a in "xy" for i in (1, 2, 3, 4)}
    assert classified().summary() == [{"name": "dog", "class": 1, "confidence": 0.6}]


@pytest.mark.parametrize("make", EVERY)
def test_tables_have_a_column_for_each_number(make: Any) -> None:
    result = make()
    assert json.loads(result.to_json()) == result.summary()
    rows = list(csv.DictReader(result.to_csv().splitlines()))
    assert [row["name"] for row in rows] == [row["name"] for row in result.summary()]
    assert None not in rows[0]
    assert result[:0].to_csv().splitlines()[0] == result.to_csv().splitlines()[0]


@pytest.mark.parametrize("make", EVERY)
def test_drawing_changes_a_copy_and_can_leave_things_out(make: Any) -> None:
    result = make()
    drawn = result.plot()
    assert drawn.shape == (100, 200, 3)
    assert (drawn != 127).any()
    assert (result.orig_img == 127).all()
    bare = result.plot(boxes=False, masks=False, probs=False)
    assert (bare != 127).any() == (make is posed)


def test_crops_are_cut_from_the_upright_boxes(tmp_path: Path) -> None:
    turned().save_crop(tmp_path)
    crop = cv2.imread(str(tmp_path / "owl" / "im.jpg"))
    assert crop is not None
    assert crop.shape[:2] == (10, 30)
    classified().save_crop(tmp_path / "cls")
    assert not (tmp_path / "cls").exists()
