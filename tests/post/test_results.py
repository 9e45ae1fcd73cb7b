"""A result gives the same boxes in every format, and writes what other programs read."""

from __future__ import annotations

import builtins
import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from holdfast.errors import MissingExtraError
from holdfast.post.boxes import Boxes
from holdfast.post.results import Results

ROWS = torch.tensor([[10.0, 20, 50, 80, 0.9, 1], [0, 0, 200, 100, 0.5, 0], [5, 5, 15, 15, 0.25, 1]])
NAMES = {0: "dog", 1: "cat"}


def make(rows: Any = ROWS, *, path: str = "pictures/a b.jpg") -> Results:
    image = np.full((100, 200, 3), 127, dtype=np.uint8)
    return Results(image, path=path, names=NAMES, boxes=rows, speed={"inference": 5.0})


@pytest.mark.parametrize("rows", [ROWS, ROWS.numpy()], ids=["torch", "numpy"])
def test_boxes_in_every_format(rows: Any) -> None:
    boxes = Boxes(rows, (100, 200))
    assert np.asarray(boxes.xyxy[0]).tolist() == [10, 20, 50, 80]
    assert np.asarray(boxes.xywh[0]).tolist() == [30, 50, 40, 60]
    assert np.asarray(boxes.xyxyn[0]).tolist() == pytest.approx([0.05, 0.2, 0.25, 0.8])
    assert np.asarray(boxes.xywhn[0]).tolist() == pytest.approx([0.15, 0.5, 0.2, 0.6])
    assert np.asarray(boxes.conf).tolist() == pytest.approx([0.9, 0.5, 0.25])
    assert np.asarray(boxes.cls).tolist() == [1, 0, 1]
    assert boxes.id is None
    assert not boxes.is_track
    assert boxes.shape == (3, 6)
    assert type(boxes.xywh) is type(rows)


def test_tracked_rows_carry_ids_before_the_confidence() -> None:
    boxes = Boxes(torch.tensor([[0.0, 0, 1, 1, 7, 0.5, 2]]), (10, 10))
    assert boxes.is_track
    assert boxes.id.tolist() == [7]
    assert boxes.conf.tolist() == [0.5]
    assert boxes.cls.tolist() == [2]


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of 6 or 7"):
        Boxes(torch.zeros(2, 5), (10, 10))


def test_results_are_counted_cut_and_walked_through() -> None:
    result = make()
    assert len(result) == 3
    assert len(result[0]) == 1
    assert len(result[result.boxes.conf > 0.4]) == 2  # type: ignore[union-attr]
    assert [r.verbose() for r in result] == ["1 cat", "1 dog", "1 cat"]
    assert len(result.new()) == 0
    assert len(make(None)) == 0
    assert len(make(torch.zeros(0, 6))) == 0


def test_moving_keeps_everything_and_changes_only_the_type() -> None:
    moved = make().cpu().numpy()
    assert moved.boxes is not None
    assert isinstance(moved.boxes.data, np.ndarray)
    assert moved.speed["inference"] == 5.0
    half = moved.to(torch.float16)
    assert half.boxes is not None
    assert half.boxes.data.dtype == torch.float16


def test_rows_are_clipped_to_the_image_and_the_given_tensor_is_left_alone() -> None:
    rows = torch.tensor([[-5.0, -5, 500, 500, 0.9, 0]])
    result = make(rows)
    assert result.boxes is not None
    assert result.boxes.xyxy[0].tolist() == [0, 0, 200, 100]
    assert rows[0, 0] == -5
    result.update(boxes=ROWS)
    assert len(result) == 3


def test_parts_of_other_tasks_are_none() -> None:
    result = make()
    assert result.masks is result.keypoints is result.obb is result.probs is None


def test_verbose_says_what_was_found() -> None:
    assert make().verbose() == "1 dog, 2 cats"
    assert make(torch.zeros(0, 6)).verbose() == "(no detections)"
    assert "200x100: 1 dog, 2 cats" in repr(make())


def test_summary_in_pixels_and_in_parts() -> None:
    assert make().summary(decimals=2)[0] == {
        "name": "cat", "class": 1, "confidence": 0.9, "box": {"x1": 10.0, "y1": 20.0, "x2": 50.0, "y2": 80.0},
    }  # fmt: skip
    assert make().summary(normalize=True)[0]["box"] == {"x1": 0.05, "y1": 0.2, "x2": 0.25, "y2": 0.8}
    tracked = make(torch.tensor([[0.0, 0, 1, 1, 7, 0.5, 0]])).summary()
    assert tracked[0]["track_id"] == 7
    assert make(None).summary() == []


def test_json_and_csv_hold_the_summary() -> None:
    assert json.loads(make().to_json()) == make().summary()
    rows = list(csv.DictReader(make().to_csv(decimals=1).splitlines()))
    assert rows[0] == {
        "name": "cat", "class": "1", "confidence": "0.9",
        "x1": "10.0", "y1": "20.0", "x2": "50.0", "y2": "80.0",
    }  # fmt: skip
    assert make(None).to_csv() == "name,class,confidence,x1,y1,x2,y2\n"


def test_table_without_polars_and_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("polars", "pandas"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="pip install polars"):
        make().to_df()


def test_txt_rows_are_normalised_and_appended(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "a.txt"
    make().save_txt(path)
    make(ROWS[:1]).save_txt(path, save_conf=True)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines == ["1 0.15 0.5 0.2 0.6", "0 0.5 0.5 1 1", "1 0.05 0.1 0.05 0.1", "1 0.15 0.5 0.2 0.6 0.9"]
    make(torch.zeros(0, 6)).save_txt(tmp_path / "none.txt")
    assert not (tmp_path / "none.txt").exists()


def test_crops_go_into_class_folders_and_never_overwrite(tmp_path: Path) -> None:
    result = make()
    result.names[1] = "cat/wild?"
    result.save_crop(tmp_path, "ä b.jpg")
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.jpg"))
    assert files == ["cat_wild_/ä b.jpg", "cat_wild_/ä b_2.jpg", "dog/ä b.jpg"]
    data = np.fromfile(tmp_path / "cat_wild_" / "ä b.jpg", dtype=np.uint8)
    crop = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert crop is not None
    assert crop.shape == (60, 40, 3)


def test_an_empty_box_at_the_border_still_gives_a_crop(tmp_path: Path) -> None:
    make(torch.tensor([[200.0, 100, 200, 100, 0.5, 0]])).save_crop(tmp_path)
    assert len(list(tmp_path.rglob("*.jpg"))) == 1


def test_plot_draws_on_a_copy() -> None:
    result = make()
    drawn = result.plot()
    assert drawn.shape == (100, 200, 3)
    assert drawn.dtype == np.uint8
    assert (drawn != 127).any()
    assert (result.orig_img == 127).all()
    assert (result.plot(boxes=False) == 127).all()
    assert result.plot(pil=True).size == (200, 100)
    with pytest.raises(ValueError, match="color_mode"):
        result.plot(color_mode="rainbow")


def test_pictures_are_saved_under_any_name(tmp_path: Path) -> None:
    path = make().save(tmp_path / "новая папка" / "猫.png", line_width=1)
    data = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert data is not None
    assert (data == make().plot(line_width=1)).all()
    make().plot(save=True, filename=tmp_path / "b.jpg")
    assert (tmp_path / "b.jpg").is_file()
