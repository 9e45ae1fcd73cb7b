"""Non-maximum suppression: equal to the textbook loop on every kind of crowd, and to golden numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.geometry import nms as module
from holdfast.geometry.nms import nms


def textbook(
    boxes: torch.Tensor, scores: torch.Tensor, threshold: float, groups: torch.Tensor | None
) -> list[int]:
    b = boxes.numpy()
    area = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    kept: list[int] = []
    for i in np.argsort(-scores.numpy(), kind="stable"):
        if kept:
            k = np.array(kept)
            w = np.maximum(np.minimum(b[i, 2], b[k, 2]) - np.maximum(b[i, 0], b[k, 0]), 0)
            h = np.maximum(np.minimum(b[i, 3], b[k, 3]) - np.maximum(b[i, 1], b[k, 1]), 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                hit = w * h / (area[i] + area[k] - w * h) > np.float32(threshold)
            if groups is not None:
                hit &= (groups[k] == groups[i]).numpy()
            if hit.any():
                continue
        kept.append(int(i))
    return kept


def crowd(kind: str, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r = np.random.default_rng(seed)
    if kind == "sparse":
        centre, size = r.uniform(0, 640, (count, 2)), np.exp(r.normal(3, 0.5, (count, 2)))
    elif kind == "grid":  # equal IoUs and equal coordinates abound
        centre, size = r.integers(0, 12, (count, 2)) * 8.0, r.integers(0, 5, (count, 2)) * 8.0
    else:
        seeds = r.uniform(0, 640, (12, 2))
        of = r.integers(0, 12, count)
        centre, size = seeds[of] + r.normal(0, 6, (count, 2)), np.exp(r.normal(4, 0.2, (count, 2)))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), 1).astype(np.float32)
    scores = r.integers(0, max(2, count // 3), count) / count  # with ties
    return (
        torch.from_numpy(boxes),
        torch.from_numpy(scores).float(),
        torch.from_numpy(r.integers(-2, 5, count)),
    )


@pytest.mark.parametrize("kind", ["sparse", "grid", "piles"])
@pytest.mark.parametrize("count", [1, 2, 65, 700, 1800])
@pytest.mark.parametrize("threshold", [0.0, 0.45, 0.7])
def test_same_boxes_in_the_same_order_as_the_textbook_loop(kind: str, count: int, threshold: float) -> None:
    boxes, scores, groups = crowd(kind, count, seed=count)
    for label in (None, groups):
        expected = textbook(boxes, scores, threshold, label)
        assert nms(boxes, scores, threshold, groups=label).tolist() == expected
        assert nms(boxes, scores, threshold, groups=label, max_keep=7).tolist() == expected[:7]
        assert nms(boxes, scores, threshold, groups=label, max_keep=400).tolist() == expected[:400]


@pytest.mark.parametrize("kind", ["sparse", "grid", "piles"])
def test_each_way_of_working_gives_the_same_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores, groups = crowd(kind, 1500, seed=3)
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, groups = boxes[order], scores[order], groups[order]
    by_pairs = module._by_pairs

    def always(columns, threshold, label, *, most):
        return by_pairs(columns, threshold, label, most=10**12)

    for label in (None, groups):
        expected = textbook(boxes, scores, 0.5, label)
        assert module._suppress_device(boxes, 0.5, label, block=200).tolist() == expected
        with monkeypatch.context() as patch:
            patch.setattr(module, "_by_pairs", lambda *_, **__: None)
            assert module._suppress_host(boxes.numpy(), 0.5, label).tolist() == expected
        with monkeypatch.context() as patch:
            patch.setattr(module, "_by_pairs", always)
            patch.setattr(module, "_CHUNK", 1000)
            assert module._suppress_host(boxes.numpy(), 0.5, label).tolist() == expected


def test_a_box_falls_only_above_the_threshold() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 1], [1, 0, 3, 1]])  # IoU exactly 1/3 in float32
    scores = torch.tensor([0.5, 0.9])
    third = float(torch.tensor(1.0) / 3)
    assert nms(boxes, scores, third).tolist() == [1, 0]
    assert nms(boxes, scores, third - 1e-6).tolist() == [1]


def test_groups_far_apart_in_number_are_kept_apart() -> None:
    boxes = torch.tensor([[600.0, 600, 640, 640]]).expand(3, 4)
    kept = nms(boxes, torch.tensor([0.3, 0.2, 0.1]), 0.5, groups=torch.tensor([0, 10**12, 0]))
    assert kept.tolist() == [0, 1]


def test_no_boxes_no_room_and_boxes_without_area() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).shape == (0,)
    assert nms(torch.zeros(3, 4), torch.rand(3), 0.5, max_keep=0).tolist() == []
    assert nms(torch.zeros(3, 4), torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]


@pytest.mark.parametrize("case", ["best", "multi", "agnostic"])
def test_golden_numbers(fixtures_v9: Path, case: str) -> None:
    data = np.load(fixtures_v9 / f"nms_{case}.npz")
    options = json.loads(str(data["args"]))
    for i, prediction in enumerate(torch.from_numpy(data["prediction"])):
        centre, size, scores = prediction[:2].T, prediction[2:4].T, prediction[4:].T
        boxes = torch.cat((centre - size / 2, centre + size / 2), 1)
        if options["multi_label"]:
            anchor, label = (scores > options["conf_thres"]).nonzero(as_tuple=True)
        else:
            anchor = (scores.amax(1) > options["conf_thres"]).nonzero().squeeze(1)
            label = scores[anchor].argmax(1)
        boxes, score = boxes[anchor], scores[anchor, label]
        groups = None if options.get("agnostic") else label
        kept = nms(boxes, score, options["iou_thres"], groups=groups, max_keep=options["max_det"])
        ours = torch.cat((boxes[kept], score[kept, None], label[kept, None].float()), 1)
        np.testing.assert_allclose(ours.numpy(), data[f"out{i}"], atol=1e-4)
