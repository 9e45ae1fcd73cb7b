"""Curves over confidence, against values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.evaluate.curves import confidence_curves, f1_score, moving_average
from holdfast.evaluate.match import matches


def test_precision_and_recall_at_the_scores_that_occur() -> None:
    hits = np.array([True, False, True])
    scores = np.array([0.9, 0.6, 0.3], dtype=np.float32)
    curves = confidence_curves(hits, scores, np.zeros(3, dtype=np.int64), np.array([4]))
    at = [round(s * 999) for s in (0.95, 0.9, 0.6, 0.3, 0.1)]
    assert curves.precision[0, at] == pytest.approx([1.0, 1.0, 0.5, 2 / 3, 2 / 3], abs=2e-3)
    assert curves.recall[0, at] == pytest.approx([0.0, 0.25, 0.25, 0.5, 0.5], abs=2e-3)
    assert curves.recall[0, -1] == 0.0
    assert curves.precision[0, -1] == 1.0


def test_classes_without_objects_have_no_row() -> None:
    curves = confidence_curves(
        np.array([False, True]), np.array([0.5, 0.4], dtype=np.float32), np.array([0, 2]), np.array([0, 3, 1])
    )
    assert curves.classes.tolist() == [1, 2]
    assert not curves.recall[0].any()
    assert curves.recall[1, 0] == pytest.approx(1.0)


def test_nothing_at_all_gives_empty_curves() -> None:
    curves = confidence_curves(
        np.zeros(0, bool), np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(3, np.int64)
    )
    assert curves.f1.shape == (0, 1000)
    assert curves.best == 0


def test_f1_of_nothing_is_zero() -> None:
    assert f1_score(np.array([0.0, 1.0, 0.5]), np.array([0.0, 1.0, 1.0])) == pytest.approx([0.0, 1.0, 2 / 3])


def test_moving_average_continues_the_ends() -> None:
    assert moving_average(np.arange(10.0), 0.2).tolist() == pytest.approx(
        [1 / 3, 1, 2, 3, 4, 5, 6, 7, 8, 26 / 3]
    )


def test_best_score_takes_the_object_and_the_double_is_wrong() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10]], dtype=np.float32)
    truth = np.array([[0, 0, 10, 10]], dtype=np.float32)
    scores = np.array([0.3, 0.9, 0.8], dtype=np.float32)
    none = np.zeros(3, dtype=np.int64)
    assert (matches(boxes, scores, none, truth, none[:1]) >= 0).tolist() == [False, True, False]
    assert (matches(boxes, scores, none, truth, np.array([1])) < 0).all()


def test_an_iou_at_the_threshold_matches() -> None:
    boxes = np.array([[0, 0, 10, 5]], dtype=np.float32)
    truth = np.array([[0, 0, 10, 10]], dtype=np.float32)
    zero = np.zeros(1, dtype=np.int64)
    assert (matches(boxes, np.array([0.5], dtype=np.float32), zero, truth, zero) >= 0).all()


def test_each_detection_takes_its_best_free_object() -> None:
    truth = np.array([[0, 0, 10, 10], [2, 0, 12, 10]], dtype=np.float32)
    boxes = np.array([[1, 0, 11, 10], [2, 0, 12, 10]], dtype=np.float32)
    zero = np.zeros(2, dtype=np.int64)
    hit = matches(boxes, np.array([0.5, 0.9], dtype=np.float32), zero, truth, zero) >= 0
    assert hit.tolist() == [True, True]
