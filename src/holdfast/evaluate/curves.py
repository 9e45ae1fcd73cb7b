"""Precision, recall and F1 as functions of the confidence threshold, and the threshold where F1 is best.

The numbers users compare between programs come from here, so the conventions are the common ones: a grid of
1000 confidences from 0 to 1, linear interpolation between the scores that occur, and the operating point
where the mean F1 over classes, smoothed by a moving average of a tenth of the grid, is highest.

Dimensions: N detections, K classes, X = 1000 grid points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 1000
SMOOTHING = 0.1
_TINY = 1e-16


@dataclass(frozen=True)
class ConfidenceCurves:
    """Curves of the classes that have objects.

    Attributes:
        classes: (K,) int64 class index of every row.
        confidence: (X,) grid from 0 to 1.
        precision: (K, X) precision of the detections above the confidence.
        recall: (K, X) recall of the same detections.
        best: index into the grid where the smoothed mean F1 is highest.
    """

    classes: NDArray[np.int64]
    confidence: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    best: int

    @property
    def f1(self) -> NDArray[np.float64]:
        """(K, X) harmonic mean of precision and recall."""
        return f1_score(self.precision, self.recall)

    @property
    def best_confidence(self) -> float:
        """The confidence of the operating point."""
        return float(self.confidence[self.best])


def f1_score(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harmonic mean, 0 where both are 0."""
    result: NDArray[np.float64] = 2.0 * precision * recall / (precision + recall + _TINY)
    return result


def moving_average(values: NDArray[np.float64], fraction: float) -> NDArray[np.float64]:
    """Centred moving average over `fraction` of the length; the ends are continued with the end values."""
    half = round(len(values) * fraction) // 2
    padded = np.concatenate([np.full(half, values[0]), values, np.full(half, values[-1])])
    total = np.concatenate([[0.0], np.cumsum(padded)])
    width = 2 * half + 1
    result: NDArray[np.float64] = (total[width:] - total[:-width]) / width
    return result


def confidence_curves(
    hits: NDArray[np.bool_],
    scores: NDArray[np.float32],
    classes: NDArray[np.int64],
    truth_counts: NDArray[np.int64],
) -> ConfidenceCurves:
    """Builds the curves of a whole data set.

    Args:
        hits: (N,) whether the detection matches an object (at IoU 0.5).
        scores: (N,) confidence in [0, 1].
        classes: (N,) class index.
        truth_counts: (classes of the data set,) number of objects per class.

    Returns:
        One row per class that has objects; no row when there is no object at all (then `best` is 0).
    """
    present = np.flatnonzero(truth_counts > 0)
    grid = np.linspace(0.0, 1.0, GRID)
    precision = np.zeros((len(present), GRID))
    recall = np.zeros((len(present), GRID))
    # One sort for all classes: by class, then by falling score; every class is then a slice.
    order = np.lexsort((-scores, classes))
    hits, scores = hits[order], scores[order]
    starts = np.searchsorted(classes[order], present, side="left")
    ends = np.searchsorted(classes[order], present, side="right")
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if start == end:
            continue  # objects but no detection: precision and recall stay 0
        found = np.cumsum(hits[start:end])
        falling = -scores[start:end].astype(np.float64)  # np.interp wants rising abscissae
        count = np.arange(1, end - start + 1)
        # Above the highest score nothing is detected: recall 0, and by convention precision 1.
        precision[row] = np.interp(-grid, falling, found / count, left=1.0)
        recall[row] = np.interp(-grid, falling, found / (truth_counts[present[row]] + _TINY), left=0.0)
    best = 0
    if len(present):
        best = int(moving_average(f1_score(precision, recall).mean(axis=0), SMOOTHING).argmax())
    return ConfidenceCurves(present.astype(np.int64), grid, precision, recall, best)
