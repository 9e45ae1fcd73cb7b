"""Which pictures of a validation are kept, and what is said about them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.data.batch import Batch
from holdfast.data.letterbox import Letterbox
from holdfast.geometry.targets import Targets
from holdfast.report.examples import Examples, answer

NAMES = {0: "cat", 1: "dog"}
NONE = torch.zeros(0, 6)


def batch(
    truth: list[Tensor], classes: list[Tensor], *, first: int = 0, unread: tuple[int, ...] = ()
) -> Batch:
    """Grey images of 96 x 64 in the middle of 128 x 128, with objects in input pixels."""
    count = len(truth)
    images = torch.zeros(count, 3, 128, 128, dtype=torch.uint8)
    images[:, :, 32:96, 16:112] = 128
    owner = torch.repeat_interleave(torch.arange(count), torch.tensor([len(boxes) for boxes in truth]))
    return Batch(
        images=images,
        targets=Targets(owner, torch.cat(classes), torch.cat(truth)),
        indices=torch.arange(first, first + count),
        letterboxes=[Letterbox(0.5, 0.5, 16, 32, 128, 192)] * count,
        paths=[f"a/{first + i}.jpg" for i in range(count)],
        unread=dict.fromkeys(unread, "gone"),
    )


def box(x: float, y: float, side: float = 20) -> list[float]:
    return [x, y, x + side, y + side]


def rows(*found: tuple[list[float], float, int]) -> Tensor:
    return torch.tensor([[*place, score, label] for place, score, label in found])


def kept(folder: Path) -> dict[str, list[dict[str, object]]]:
    groups: dict[str, list[dict[str, object]]]
    groups = json.loads((folder / "examples/examples.json").read_text())["groups"]
    return groups


def test_detections_are_matched_and_counted() -> None:
    truth, there = torch.tensor([box(20, 40), box(60, 40)]), torch.tensor([0, 1])
    found = rows((box(21, 40), 0.9, 0), (box(20, 41), 0.8, 0), (box(60, 40), 0.2, 1))
    of = answer(found, truth, there)
    assert (of.hits, of.false.tolist(), of.missed.tolist()) == (1, [1], [1])
    assert of.f1 == pytest.approx(0.5)
    assert answer(NONE, truth[:0], there[:0]).f1 == 1.0


def test_worst_and_best_images_are_kept_with_what_is_wrong(tmp_path: Path) -> None:
    cat, dog = torch.tensor([0]), torch.tensor([1])
    one = torch.tensor([box(40, 45)])
    cases: list[tuple[Tensor, Tensor, Tensor, str]] = [  # truth, classes, found, what is said
        (one, cat, rows((box(40, 45), 0.9, 0)), ""),
        (one, cat, rows((box(40, 45), 0.9, 1)), "dog 0.90: labelled as cat"),
        (one, dog, rows((box(52, 45), 0.8, 1)), "dog 0.80: the box does not fit this dog (IoU 0.25)"),
        (one, cat, rows((box(90, 70), 0.7, 0)), "cat 0.70: nothing is labelled here"),
        (one[:0], cat[:0], rows((box(90, 70), 0.6, 0)), "cat 0.60: nothing is labelled on this image"),
        (one, cat, rows((box(40, 45), 0.9, 0), (box(41, 45), 0.5, 0)),
         "cat 0.50: this cat was found already"),
    ]  # fmt: skip
    examples = Examples(NAMES)
    examples.add(batch([case[0] for case in cases], [case[1] for case in cases]), [case[2] for case in cases])
    examples.add(batch([one], [cat], first=6), [rows((box(40, 45), 0.13, 0))])
    examples.save(tmp_path)
    groups = kept(tmp_path)
    assert [row["text"] for row in groups["false alarms"]] == [text for *_, text in cases if text]
    assert {row["file"]: row["text"] for row in groups["missed"]} == {
        "a/1.jpg": "cat: taken for dog",
        "a/2.jpg": "dog: the box does not fit (IoU 0.25)",
        "a/3.jpg": "cat: not found",
        "a/6.jpg": "cat: found with a confidence of 0.13 only",
    }
    assert [row["file"] for row in groups["best"]] == ["a/0.jpg", "a/5.jpg"]
    assert groups["best"][0] | {"picture": ""} == {
        "picture": "", "file": "a/0.jpg", "hits": 1, "missed": 0, "false": 0,
    }  # fmt: skip
    assert [row["file"] for row in groups["worst"]] == [f"a/{i}.jpg" for i in (1, 2, 3, 4, 6, 5)]
    whole = cv2.imread(str(tmp_path / "examples" / str(groups["worst"][0]["picture"])))
    assert whole is not None
    assert whole.shape == (320, 480, 3), "the image without its padding, as large as it may be"
    assert len(list((tmp_path / "examples").glob("*.jpg"))) == 6 + 5 + 4 + 2


def test_a_bounded_number_is_kept_and_those_of_before_are_replaced(tmp_path: Path) -> None:
    examples = Examples(NAMES, images=2, crops=3)
    place = torch.tensor([box(40, 45)])
    for number in range(20):
        score = 0.3 + 0.03 * ((7 * number) % 20)
        examples.add(batch([place], [torch.tensor([0])], first=number), [rows((box(80, 60), score, 0))])
    examples.save(tmp_path)
    groups = kept(tmp_path)
    assert [len(groups[name]) for name in ("worst", "false alarms", "missed", "best")] == [2, 3, 3, 0]
    assert [str(row["text"])[:8] for row in groups["false alarms"]] == ["cat 0.87", "cat 0.84", "cat 0.81"]
    assert [row["file"] for row in groups["worst"]] == ["a/0.jpg", "a/1.jpg"], "of equal ones the first"
    Examples(NAMES).save(tmp_path)
    assert [path.name for path in (tmp_path / "examples").iterdir()] == ["examples.json"]


def test_images_that_could_not_be_read_are_passed_over(tmp_path: Path) -> None:
    examples = Examples(NAMES)
    place = torch.tensor([box(40, 45)])
    examples.add(batch([place, place], [torch.tensor([0])] * 2, unread=(0,)), [NONE, NONE])
    examples.save(tmp_path)
    assert examples.seen == 1
    assert [row["file"] for row in kept(tmp_path)["worst"]] == ["a/1.jpg"]


def test_boxes_at_the_border_are_drawn(tmp_path: Path) -> None:
    examples = Examples(NAMES)
    places = torch.tensor([[10.0, 30, 14, 34], [100, 90, 130, 130], [16, 32, 112, 96]])
    examples.add(batch([places], [torch.tensor([0, 1, 0])]), [rows((box(500, 500), 0.9, 0))])
    examples.save(tmp_path)
    for path in (tmp_path / "examples").glob("*.jpg"):
        assert np.asarray(cv2.imread(str(path))).std() > 0
