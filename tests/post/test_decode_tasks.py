"""Masks, keypoints, angles and classes are read off the maps as the golden numbers say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.geometry.masks import paint
from holdfast.models.outputs import Angles, Branch, ClassOutputs, DualOutputs, Extra, Keypoints, Masks
from holdfast.post.decode import answer

STRIDES = (8, 16, 32)
KEYS = {"strides": STRIDES, "reg_max": 1, "max_det": 300}


def levels(flat: np.ndarray) -> tuple[Tensor, ...]:
    parts = torch.from_numpy(flat).unsqueeze(0).split([320, 80, 20], 2)
    return tuple(x.unflatten(2, (16 >> i, 20 >> i)) for i, x in enumerate(parts))


def branch_of(golden: dict[str, np.ndarray], which: str, task: str) -> Branch:
    extra: Extra
    if task == "seg":
        extra = Masks(levels(golden[f"{which}_coef"]), torch.from_numpy(golden["proto"])[None])
    elif task == "pose":
        extra = Keypoints(levels(golden[f"{which}_kpts"]))
    else:
        extra = Angles(levels(golden[f"{which}_angle"]))
    return Branch(levels(golden[f"{which}_boxes"]), levels(golden[f"{which}_scores"]), extra)


def load(folder: Path, task: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    facts = json.loads((folder / "manifest.json").read_text())[f"yolo26n-{task}"]
    return dict(np.load(folder / f"yolo26n-{task}" / "golden.npz")), facts


@pytest.mark.parametrize("task", ["seg", "pose", "obb"])
def test_suppressed_rows_equal_the_golden_ones(fixtures_26: Path, task: str) -> None:
    golden, facts = load(fixtures_26, task)
    many = branch_of(golden, "o2m", task)
    (rows,) = answer(DualOutputs(one_to_many=many), conf=facts["nms_conf"], iou=facts["nms_iou"], **KEYS)
    torch.testing.assert_close(rows, torch.from_numpy(golden["nms"]), atol=5e-3, rtol=0)


@pytest.mark.parametrize("task", ["seg", "pose", "obb"])
def test_best_rows_equal_the_golden_ones(fixtures_26: Path, task: str) -> None:
    golden, _ = load(fixtures_26, task)
    (rows,) = answer(
        DualOutputs(branch_of(golden, "o2m", task), branch_of(golden, "o2o", task)), conf=0.0, iou=0.7, **KEYS
    )
    expected = torch.from_numpy(golden["e2e"])
    assert rows.shape == expected.shape
    # Neighbouring scores can be equal to the last bit, so rows are matched by what they say.
    nearest = (rows[:, None] - expected).abs().amax(2).min(0).values
    assert float(nearest.max()) < 5e-3


def test_masks_equal_the_golden_ones(fixtures_26: Path) -> None:
    golden, _ = load(fixtures_26, "seg")
    rows = torch.from_numpy(golden["e2e"][:8])
    expected = np.unpackbits(golden["e2e_mask_top8_packed"], axis=-1).astype(bool)
    masks = paint(rows[:, 6:], torch.from_numpy(golden["proto"]), rows[:, :4], 128, 160, scale=(0.25, 0.25))
    assert expected.any(axis=(1, 2)).all()
    assert (masks.numpy() != expected).sum() <= 2  # logits of nearly 0


def test_a_classifier_answers_with_probabilities(fixtures_26: Path) -> None:
    golden, _ = load(fixtures_26, "cls")
    (found,) = answer(ClassOutputs(torch.from_numpy(golden["logit"])[None]), conf=0.25, iou=0.7, **KEYS)
    torch.testing.assert_close(found, torch.from_numpy(golden["prob"]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("angle", "count"), [(0.0, 1), (math.pi, 1), (math.pi / 2, 2)])
def test_direction_counts_in_suppression(angle: float, count: int) -> None:
    sides = torch.tensor([4, 0.5, 4, 0.5]).reshape(1, 4, 1, 1).expand(1, 4, 1, 2)  # two boxes of 64 x 8
    scores = torch.tensor([[[[2.0, 1.0]], [[-9.0, -9.0]]]])
    branch = Branch((sides,), (scores,), Angles((torch.tensor([[[[0.0, angle]]]]),)))
    (rows,) = answer(DualOutputs(one_to_many=branch), strides=(8,), reg_max=1, conf=0.1, iou=0.5, max_det=9)
    assert rows.shape == (count, 7)
