"""What is found in the input lies where it is on the original image."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from holdfast.data.letterbox import Letterbox, fit
from holdfast.geometry.rotated import rotated_iou
from holdfast.models.outputs import Angles, Branch, ClassOutputs, DualOutputs, Extra, Keypoints, Masks
from holdfast.post.original import Found, in_input, in_original

BOX = fit(120, 200, 128, 160)  # an image of 200x120 in an input of 160x128


def outputs_of(extra: Extra | None) -> DualOutputs:
    return DualOutputs(one_to_many=Branch((), (), extra))


def found_of(extra: Extra | None, rows: Tensor, box: Letterbox = BOX) -> Found:
    (found,) = in_original(outputs_of(extra), [rows], [box])
    return found


def test_boxes_are_mapped_and_clipped() -> None:
    found = found_of(None, torch.tensor([[0.0, 0, 80, 64, 0.5, 3]]))
    assert found.boxes is not None
    assert found.boxes[0].tolist() == pytest.approx([0, 0, 100, 60, 0.5, 3])
    assert found.rows is found.boxes


def test_masks_on_the_image_are_those_of_the_input_enlarged() -> None:
    torch.manual_seed(1)
    prototypes = F.interpolate(torch.randn(1, 4, 6, 8), size=(32, 40), mode="bicubic")
    boxes = torch.tensor([[10.0, 30, 120, 100, 0.9, 0], [50, 20, 155, 90, 0.8, 1]])
    rows = torch.cat((boxes, torch.randn(2, 4)), 1)
    extra = Masks((), prototypes)
    (there,) = in_original(outputs_of(extra), [rows], [BOX], input_size=(128, 160))
    here = found_of(extra, rows)
    assert there.masks.shape == (2, 128, 160)
    assert here.masks.shape == (2, 120, 200)
    inner = there.masks[:, BOX.top : 128 - BOX.top].float()[None]
    enlarged = F.interpolate(inner, size=(120, 200), mode="bilinear")[0] > 0.5
    assert (enlarged == here.masks).float().mean() > 0.98
    assert 0.05 < here.masks.float().mean() < 0.6


def test_masks_are_empty_outside_their_boxes() -> None:
    extra = Masks((), torch.ones(1, 1, 32, 40))
    rows = torch.tensor([[40.0, 64, 80, 80, 0.9, 0, 1.0]])
    mask = found_of(extra, rows).masks[0]
    (box,) = found_of(extra, rows).rows[:, :4]
    x1, y1, x2, y2 = (int(v) for v in box.ceil())
    assert mask.sum() == (x2 - x1) * (y2 - y1) == mask[y1:y2, x1:x2].sum()


def test_keypoints_are_mapped_and_keep_their_confidence() -> None:
    rows = torch.tensor([[0.0, 0, 80, 64, 0.5, 0, 80, 64, 0.25, -9, 300, 1.0]])
    found = found_of(Keypoints((), dims=3), rows)
    assert found.keypoints is not None
    assert found.keypoints[0].flatten().tolist() == pytest.approx([100, 60, 0.25, 0, 120, 1])


def test_turned_boxes_keep_their_direction_whatever_their_sides_are_called() -> None:
    rows = torch.tensor([[80.0, 64, 8, 40, 0.5, 2, 0.3]])
    found = found_of(Angles(()), rows)
    assert found.obb is not None
    expected = torch.tensor([100.0, 60, 50, 10, 0.3 + math.pi / 2])
    assert float(rotated_iou(found.obb[0, :5], expected)) > 0.999
    assert found.obb[0, 2:5].tolist() == pytest.approx([50, 10, 0.3 + math.pi / 2])
    assert found.rows.shape == (1, 6)
    (shown,) = in_input(outputs_of(Angles(())), [rows], 128, 160)
    assert shown.obb is not None
    assert float(rotated_iou(shown.obb[0, :5], rows[0, [0, 1, 2, 3, 6]])) > 0.999
    hull = shown.rows
    assert hull[0, 4:].tolist() == [0.5, 2]
    assert hull[0, 2] - hull[0, 0] > 8


def test_an_unread_image_has_all_parts_without_objects() -> None:
    found = found_of(Keypoints((), dims=3), torch.zeros(2, 12)).nothing()
    assert found.keypoints is not None
    assert (len(found.rows), found.keypoints.shape) == (0, (0, 2, 3))
    (whole,) = in_input(ClassOutputs(torch.zeros(1, 3)), [torch.tensor([0.25, 0.5, 0.25])], 32, 64)
    assert whole.rows.tolist() == [[0, 0, 64, 32, 0.5, 1]]
    (classes,) = in_original(ClassOutputs(torch.zeros(1, 3)), [torch.ones(3)], [BOX])
    assert classes.probs is not None
    assert classes.nothing() == Found()
