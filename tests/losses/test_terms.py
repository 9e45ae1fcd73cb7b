"""Terms of the loss against plain definitions, gradients included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from holdfast.losses import terms
from holdfast.losses.maps import columns, flat, flat_index, values


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_soft_bce_is_bce_with_a_dense_target(layout, smoothing: float, dtype: torch.dtype) -> None:
    logits = (torch.randn(3, 5, 4, 6) * 20).to(dtype).to(memory_format=layout).requires_grad_()
    image, cell = torch.tensor([0, 0, 2]), torch.tensor([7, 23, 0])
    classes, score = torch.tensor([1, 4, 4]), torch.tensor([0.3, 0.9, 0.01])
    target = torch.zeros(3, 5, 24)
    target[image, :, cell] = (smoothing / 5 * score).unsqueeze(1)
    target[image, classes, cell] += (1 - smoothing) * score
    assert float(target.sum()) == pytest.approx(
        float(score.sum())
    )  # smoothing spreads the target, adds nothing

    plain = logits.detach().clone().requires_grad_()
    expected = F.binary_cross_entropy_with_logits(plain.float().flatten(2), target, reduction="sum")
    ours = terms.soft_bce(logits, image, cell, classes, score, smoothing=smoothing)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    (3 * ours).backward()
    (3 * expected).backward()
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(logits.grad, plain.grad, rtol=tolerance, atol=tolerance)
    assert logits.grad.stride() == logits.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_cells_are_read_and_their_gradient_put_back(layout) -> None:
    maps = torch.randn(2, 6, 3, 4).to(memory_format=layout).requires_grad_()
    image, cell, channel = torch.tensor([1, 0, 1]), torch.tensor([11, 5, 0]), torch.tensor([0, 5, 2])
    expected = maps.detach()[image, :, cell // 4, cell % 4]
    assert torch.equal(columns(maps, image, cell), expected)
    assert torch.equal(values(maps, image, channel, cell), expected[torch.arange(3), channel])
    assert torch.equal(flat(maps)[flat_index(maps, image, channel, cell)], expected[torch.arange(3), channel])
    weight = torch.randn(3, 6)
    (terms.take_columns(maps, image, cell) * weight).sum().backward()
    full = torch.zeros(2, 6, 3, 4)
    full[image, :, cell // 4, cell % 4] = weight
    assert torch.equal(maps.grad, full)
    assert maps.grad.stride() == maps.stride()


@pytest.mark.parametrize("case", ["random", "shifted", "degenerate"])
def test_golden_distribution_focal_loss(fixtures_v9: Path, case: str) -> None:
    data = np.load(fixtures_v9 / f"box_{case}.npz")
    logits = torch.from_numpy(data["dfl_logits"]).requires_grad_()
    points, boxes = torch.from_numpy(data["dfl_points"]), torch.from_numpy(data["dfl_target_boxes"])
    distance = torch.cat((points - boxes[:, :2], boxes[:, 2:] - points), 1)
    np.testing.assert_allclose(distance.clamp(0, 14.99).numpy(), data["dfl_target_dist"], atol=1e-5)
    log_probability = logits.log_softmax(-1)
    mean = terms.expected_distance(log_probability)
    np.testing.assert_allclose(mean.detach().numpy(), data["dfl_expected_dist"], atol=1e-5)
    total = terms.distribution_focal_loss(log_probability, distance, torch.ones(len(points)))
    assert float(total.detach()) == pytest.approx(float(data["dfl_loss"].sum()), rel=1e-5)
    total.backward()
    np.testing.assert_allclose(logits.grad.numpy(), data["dfl_grad"], atol=1e-5)
    for i in range(0, len(points), 7):
        one = terms.distribution_focal_loss(log_probability[i : i + 1], distance[i : i + 1], torch.ones(1))
        assert float(one.detach()) == pytest.approx(float(data["dfl_loss"][i, 0]), abs=1e-5)


def test_box_term_weighs_one_minus_ciou() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]])
    weight = torch.tensor([0.5, 7.0])
    shifted = boxes + torch.tensor([[0.0], [1.0]])  # second: IoU 1/7, shift^2 2 over diagonal^2 18
    expected = 7 * (1 - 1 / 7 + 2 / 18)
    assert float(terms.ciou_loss(shifted, boxes, weight)) == pytest.approx(expected, abs=1e-4)
