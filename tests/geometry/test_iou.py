"""IoU family: hand-worked values, golden numbers, degenerate boxes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.geometry import iou as measures
from holdfast.geometry.iou import box_parts, ciou, ciou_of_parts, pairwise_iou

# a, b, IoU, GIoU, DIoU worked by hand
HAND = [
    ((0, 0, 2, 2), (0, 0, 2, 2), 1.0, 1.0, 1.0),
    ((0, 0, 2, 2), (1, 0, 3, 2), 2 / 6, 2 / 6, 2 / 6 - 1 / 13),  # hull 3 x 2, diagonal^2 13, shift^2 1
    ((0, 0, 1, 1), (2, 2, 3, 3), 0.0, -7 / 9, -8 / 18),
]


@pytest.mark.parametrize(("a", "b", "iou", "giou", "diou"), HAND)
def test_hand_worked_overlaps(a, b, iou, giou, diou) -> None:
    a, b = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    assert float(measures.iou(a, b)) == pytest.approx(iou, abs=1e-6)
    assert float(measures.giou(a, b)) == pytest.approx(giou, abs=1e-6)
    assert float(measures.diou(a, b)) == pytest.approx(diou, abs=1e-6)


def test_ciou_adds_the_aspect_penalty() -> None:
    # Same centre, 4 x 2 against 2 x 4: inter 4, union 12; v = 4/pi^2 (atan(1/2) - atan 2)^2,
    # alpha = v / (v - 1/3 + 1)
    a, b = torch.tensor([-2.0, -1, 2, 1]), torch.tensor([-1.0, -2, 1, 2])
    v = 4 / math.pi**2 * (math.atan(0.5) - math.atan(2)) ** 2
    assert float(ciou(a, b)) == pytest.approx(1 / 3 - v * v / (v - 1 / 3 + 1), abs=1e-6)


@pytest.mark.parametrize("case", ["random", "shifted", "degenerate"])
def test_golden_numbers(fixtures_v9: Path, case: str) -> None:
    data = np.load(fixtures_v9 / f"box_{case}.npz")
    a, b = torch.from_numpy(data["box1"]).requires_grad_(), torch.from_numpy(data["box2"])
    for name in ("iou", "giou", "diou", "ciou"):
        ours = getattr(measures, name)(a, b)
        np.testing.assert_allclose(ours.detach().numpy(), data[name][:, 0], atol=1e-5, err_msg=name)
    (1 - ciou(a, b)).sum().backward()
    np.testing.assert_allclose(a.grad.numpy(), data["ciou_loss_grad_box1"], atol=1e-5)


def test_ciou_and_its_gradient_are_finite_for_degenerate_boxes() -> None:
    points = torch.tensor(
        [[0.0, 0, 0, 0], [3, 3, 3, 9], [3, 3, 9, 3], [9, 9, 3, 3], [0, 0, 1e6, 1e-6], [2, 2, 6, 6]]
    )
    a = points.repeat_interleave(len(points), 0).requires_grad_()
    value = ciou(a, points.repeat(len(points), 1))
    value.sum().backward()
    assert value.isfinite().all()
    assert a.grad.isfinite().all()


def test_prepared_boxes_give_the_same_ciou() -> None:
    a, b = torch.rand(50, 4), torch.rand(50, 4)
    index = torch.randint(0, 50, (30,))
    parts = ciou_of_parts(box_parts(a).take(index).column(), box_parts(b))
    assert torch.equal(parts, ciou(a[index].unsqueeze(1), b))


def test_pairwise_iou_is_every_row_against_every_column() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [10, 10, 12, 12], [1, 1, 1, 1]])
    b = torch.tensor([[1.0, 0, 3, 2], [10, 10, 12, 11]])
    expected = torch.tensor([[1 / 3, 0], [0, 0.5], [0, 0]])
    assert torch.allclose(pairwise_iou(a, b), expected, atol=1e-6)
    assert pairwise_iou(a, b[:0]).shape == (3, 0)
