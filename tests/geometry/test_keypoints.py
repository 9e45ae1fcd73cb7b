"""Likeness of keypoints as COCO counts it."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.geometry.keypoints import COCO_SIGMAS, keypoint_sigmas, object_keypoint_similarity


def test_similarity_is_the_mean_over_labelled_keypoints() -> None:
    g = torch.Generator().manual_seed(0)
    truth = torch.cat((torch.rand(6, 17, 2, generator=g) * 90, torch.ones(6, 17, 1)), -1)
    truth[..., 2] = (torch.rand(6, 17, generator=g) > 0.4).float() * 2
    truth[5, :, 2] = 0
    points = truth[..., :2] + torch.randn(6, 17, 2, generator=g) * 4
    area = torch.rand(6, generator=g) * 4000 + 100
    got = object_keypoint_similarity(points, truth, area, torch.tensor(COCO_SIGMAS))
    for i in range(6):
        terms = [
            math.exp(-((points[i, k] - truth[i, k, :2]) ** 2).sum().item() / (8 * s**2 * area[i].item()))
            for k, s in enumerate(COCO_SIGMAS)
            if truth[i, k, 2] > 0
        ]
        assert got[i].item() == pytest.approx(sum(terms) / max(len(terms), 1), abs=1e-5)
    exact = object_keypoint_similarity(truth, truth, area, torch.tensor(COCO_SIGMAS))
    assert exact[:5].tolist() == pytest.approx([1] * 5)


def test_spreads_are_those_of_coco_for_its_own_shape_only() -> None:
    assert keypoint_sigmas((17, 3)) == COCO_SIGMAS
    assert keypoint_sigmas((17, 2)) == (1 / 17,) * 17
    assert keypoint_sigmas((5, 3)) == (0.2,) * 5
