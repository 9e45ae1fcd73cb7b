"""The confusion matrix counts confusions, misses and false alarms where they belong."""

from __future__ import annotations

import numpy as np
import torch

from holdfast.evaluate.confusion import ConfusionMatrix

TRUTH = np.array([[0, 0, 100, 100], [200, 200, 300, 300], [400, 400, 500, 500]], dtype=np.float32)
CLASSES = np.array([0, 1, 1])


def test_every_kind_of_outcome_has_its_cell() -> None:
    rows = np.array(
        [
            [0, 0, 100, 100, 0.9, 0],  # right
            [205, 200, 305, 300, 0.8, 0],  # a 1 called 0
            [600, 600, 620, 620, 0.7, 1],  # nothing there
            [400, 400, 500, 500, 0.2, 1],  # right, but below the confidence: the object counts as missed
        ],
        dtype=np.float32,
    )
    matrix = ConfusionMatrix(2)
    matrix.update(rows, CLASSES, TRUTH)
    assert matrix.matrix.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    np.testing.assert_allclose(matrix.normalised().sum(axis=0), 1.0)


def test_highest_iou_chooses_first_and_every_object_is_used_once() -> None:
    rows = np.array([[0, 0, 100, 80, 0.9, 1], [0, 0, 100, 99, 0.3, 0]], dtype=np.float32)
    matrix = ConfusionMatrix(2)
    matrix.update(rows, CLASSES[:1], TRUTH[:1])
    assert matrix.matrix.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_empty_images_and_tensors_are_taken() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    matrix.update(torch.zeros(0, 6), torch.from_numpy(CLASSES), torch.from_numpy(TRUTH))
    assert matrix.matrix[2].tolist() == [1, 2, 0]
    assert matrix.matrix.sum() == 3
    assert matrix.normalised()[2].tolist() == [1.0, 1.0, 0.0]
