"""Masks: which pixels a box holds, mixing prototypes, and overlap, each against a loop."""

from __future__ import annotations

import torch

from holdfast.geometry.masks import crop_masks, inside_boxes, mask_iou, mix, resize_masks


def test_a_pixel_is_inside_from_the_low_edge_to_before_the_high_one() -> None:
    boxes = torch.tensor([[1.0, 0.5, 3.0, 2.0], [-5, -5, 50, 50], [2, 2, 2, 2]])
    got = inside_boxes(boxes, 4, 5)
    for box, mask in zip(boxes.tolist(), got, strict=True):
        for y in range(4):
            for x in range(5):
                assert mask[y, x] == (box[0] <= x < box[2] and box[1] <= y < box[3])
    masks = torch.randn(3, 4, 5)
    assert torch.equal(crop_masks(masks, boxes), torch.where(got, masks, torch.zeros(())))


def test_masks_are_mixtures_of_prototypes() -> None:
    coefficients, prototypes = torch.randn(3, 4), torch.randn(4, 5, 6)
    want = sum(coefficients[:, i, None, None] * prototypes[i] for i in range(4))
    torch.testing.assert_close(mix(coefficients, prototypes), want)
    assert resize_masks(want, 10, 12).shape == (3, 10, 12)
    assert mix(coefficients[:0], prototypes).shape == (0, 5, 6)


def test_iou_counts_pixels() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(4, 6, 7, generator=g) > 0.5, torch.rand(3, 6, 7, generator=g) > 0.7
    a[0] = False
    got = mask_iou(a, b)
    for i in range(4):
        for j in range(3):
            union = (a[i] | b[j]).sum().item()
            assert abs(got[i, j].item() - (a[i] & b[j]).sum().item() / union) < 1e-6
    assert mask_iou(a[:1], a[:1]).item() == 0
