"""Result rows are what pycocotools reads, rounded as published numbers were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from holdfast.evaluate.results_json import COCO_CATEGORY_IDS, image_key, result_rows, write_results


def test_boxes_become_xywh_rounded_to_three_and_scores_to_five() -> None:
    rows = result_rows(42, np.array([[1.23456, 2, 11.23456, 22.5, 0.123456789, 3]], dtype=np.float32))
    assert rows == [{"image_id": 42, "category_id": 3, "bbox": [1.235, 2.0, 10.0, 20.5], "score": 0.12346}]


def test_category_ids_are_mapped() -> None:
    rows = result_rows(
        "a", np.array([[0, 0, 1, 1, 0.5, 79]], dtype=np.float32), dict(enumerate(COCO_CATEGORY_IDS))
    )
    assert rows[0]["category_id"] == 90


def test_coco_category_ids_skip_the_eleven_unused() -> None:
    assert len(COCO_CATEGORY_IDS) == 80
    assert set(range(1, 91)) - set(COCO_CATEGORY_IDS) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@pytest.mark.parametrize(
    ("path", "key"), [("a/000000000139.jpg", 139), ("b/cat.png", "cat"), ("1_2.jpg", "1_2")]
)
def test_image_id_is_the_number_in_the_name(path: str, key: int | str) -> None:
    assert image_key(path) == key


@pytest.mark.parametrize("count", [0, 1, 3])
def test_file_is_one_json_list(tmp_path: Path, count: int) -> None:
    path = tmp_path / "results.json"
    assert write_results(path, ({"image_id": i} for i in range(count))) == count
    assert json.loads(path.read_text(encoding="utf-8")) == [{"image_id": i} for i in range(count)]
