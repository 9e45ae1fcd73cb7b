"""Confusion matrix of detections: rows are what was said, columns what was there, the last of both is
background.

Matching ignores classes (a cat found where a dog is counts as a confusion, not as a miss and a false alarm)
and lets the highest IoU choose first.

Dimensions: N detections, M objects of one image, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from holdfast.evaluate.match import as_array, iou_matrix


class ConfusionMatrix:
    """Counts over a data set.

    Args:
        classes: number of classes C.
        conf: detections at or below this confidence are left out.
        iou: pairs at or below this IoU do not match.
    """

    def __init__(self, classes: int, *, conf: float = 0.25, iou: float = 0.45) -> None:
        self.classes = classes
        self.conf = conf
        self.iou = iou
        self.matrix: NDArray[np.int64] = np.zeros((classes + 1, classes + 1), dtype=np.int64)

    def update(
        self,
        detections: Tensor | ArrayLike,
        truth_classes: Tensor | ArrayLike,
        truth_boxes: Tensor | ArrayLike,
        overlap: NDArray[np.float64] | None = None,
    ) -> None:
        """Adds one image.

        Args:
            detections: (N, 6) xyxy, score, class.
            truth_classes: (M,) class index.
            truth_boxes: (M, 4) xyxy in the same pixels.
            overlap: (N, M); the IoU of the boxes when None.
        """
        found = as_array(detections, np.float32).reshape(-1, 6)
        sure = found[:, 4] > self.conf
        found = found[sure]
        said = found[:, 5].astype(np.int64)
        there = as_array(truth_classes, np.int64).reshape(-1)
        if overlap is None:
            iou = iou_matrix(found[:, :4], as_array(truth_boxes, np.float32).reshape(-1, 4))
        else:
            iou = overlap[sure]
        rows, columns = _match(iou, self.iou)
        np.add.at(self.matrix, (said[rows], there[columns]), 1)
        missed = np.delete(there, columns)
        np.add.at(self.matrix, (np.full_like(missed, self.classes), missed), 1)
        alarms = np.delete(said, rows)
        np.add.at(self.matrix, (alarms, np.full_like(alarms, self.classes)), 1)

    def normalised(self) -> NDArray[np.float64]:
        """Returns the matrix with every column summing to 1 (columns without objects stay 0)."""
        total = self.matrix.sum(axis=0, keepdims=True)
        result: NDArray[np.float64] = self.matrix / np.maximum(total, 1)
        return result


def _match(iou: NDArray[np.float64], threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the indices of one-to-one pairs, highest IoU first."""
    rows: list[int] = []
    columns: list[int] = []
    if iou.size:
        i, j = np.nonzero(iou > threshold)
        free_row = np.ones(iou.shape[0], dtype=bool)
        free_column = np.ones(iou.shape[1], dtype=bool)
        for pair in np.argsort(-iou[i, j], kind="stable"):
            row, column = int(i[pair]), int(j[pair])
            if free_row[row] and free_column[column]:
                free_row[row] = free_column[column] = False
                rows.append(row)
                columns.append(column)
    return np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
