"""The comparison sees what differs, and takes order and the end of a list for what they are."""

from __future__ import annotations

import math

import pytest
import torch

from holdfast.export.parity import FULL, Difference, compare
from holdfast.models.outputs import Decoded, Rows


def rows(count: int) -> torch.Tensor:
    """(1, count, 6) boxes of falling score."""
    boxes = torch.rand(count, 4) * 100
    scores = torch.linspace(0.9, 0.1, count).unsqueeze(1)
    return torch.cat((boxes, scores, torch.arange(count).float().unsqueeze(1) % 3), 1)[None]


def test_anchors_are_compared_one_to_one() -> None:
    boxes, scores = torch.rand(2, 9, 4), torch.rand(2, 9, 3)
    moved = boxes.clone()
    moved[1, 4, 2] += 0.5
    assert compare(Decoded(moved, scores), Decoded(boxes, scores)) == pytest.approx((0.5, 0.0), abs=1e-6)
    moved[0, 0, 0] = math.nan
    assert not compare(Decoded(moved, scores), Decoded(boxes, scores)).within(FULL)


def test_rows_of_equal_score_may_stand_in_any_order() -> None:
    wanted = rows(10)
    wanted[0, 3, 4] = wanted[0, 2, 4]
    order = [0, 1, 3, 2, *range(4, 10)]
    assert compare(Rows(wanted[:, order]), Rows(wanted)) == Difference(0.0, 0.0)


@pytest.mark.parametrize(("column", "by"), [(0, 3.0), (5, 1.0), (4, 0.01)])
def test_a_row_that_differs_is_seen(column: int, by: float) -> None:
    wanted = rows(10)
    found = wanted.clone()
    found[0, 4, column] += by
    assert not compare(Rows(found), Rows(wanted)).within(FULL)


def test_the_last_row_counts_where_scores_end_a_list_and_not_where_it_was_cut_off() -> None:
    wanted = torch.cat((rows(5), torch.zeros(1, 3, 6)), 1)
    found = wanted.clone()
    found[0, 4, 0] += 3
    assert compare(Rows(found), Rows(wanted)).within(FULL)
    assert not compare(Rows(found), Rows(wanted), thresholded=True).within(FULL)


def test_another_layout_is_no_match() -> None:
    assert not compare(Rows(rows(3)), Decoded(torch.rand(1, 9, 4), torch.rand(1, 9, 3))).within(FULL)
