"""Confusion matrix of detections: rows are what was said, columns what was there, the last of both is
background.

Matching ignores classes (a cat found where a dog is counts as a confusion, not as a miss and a false alarm)
and lets the highest IoU choose first.

Dimensions: N detections, M objects of one image, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from holdfast.evaluate.match import iou_matrix


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
        detections: NDArray[np.float32],
        truth_classes: NDArray[np.int64],
        truth_boxes: NDArray[np.float32],
    ) -> None:
        """Adds one image.

        Args:
            detections: (N, 6) xyxy, score, class.
            truth_classes: (M,) class index.
            truth_boxes: (M, 4) xyxy in the same pixels.
        """
        detections = detections[detections[:, 4] > self.conf]
        said = detections[:, 5].astype(np.int64)
        rows, columns = _match(detections[:, :4], truth_boxes, self.iou)
        np.add.at(self.matrix, (said[rows], truth_classes[columns]), 1)
        missed = np.delete(truth_classes, columns)
        np.add.at(self.matrix, (np.full_like(missed, self.classes), missed), 1)
        alarms = np.delete(said, rows)
        np.add.at(self.matrix, (alarms, np.full_like(alarms, self.classes)), 1)

    def normalised(self) -> NDArray[np.float64]:
        """Returns the matrix with every column summing to 1 (columns without objects stay 0)."""
        total = self.matrix.sum(axis=0, keepdims=True)
        result: NDArray[np.float64] = self.matrix / np.maximum(total, 1)
        return result


def _match(
    boxes: NDArray[np.float32], truth: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the indices of one-to-one pairs, highest IoU first."""
    rows: list[int] = []
    columns: list[int] = []
    if len(boxes) and len(truth):
        iou = iou_matrix(boxes, truth)
        i, j = np.nonzero(iou > threshold)
        free_row = np.ones(len(boxes), dtype=bool)
        free_column = np.ones(len(truth), dtype=bool)
        for pair in np.argsort(-iou[i, j], kind="stable"):
            row, column = int(i[pair]), int(j[pair])
            if free_row[row] and free_column[column]:
                free_row[row] = free_column[column] = False
                rows.append(row)
                columns.append(column)
    return np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
