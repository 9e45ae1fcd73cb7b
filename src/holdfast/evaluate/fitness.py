"""One number for what a validation found, whatever the task: epochs, trainings, runs are compared by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_WEIGHTS = {"mAP50": 0.1, "mAP50-95": 0.9, "accuracy_top1": 0.5, "accuracy_top5": 0.5}


def short(column: str) -> str:
    """The name of a metric without what all have in common: mAP50 for metrics/mAP50(B), of masks mAP50(M)."""
    return column.removeprefix("metrics/").removesuffix("(B)")


def fitness_weights(columns: Iterable[str]) -> dict[str, float]:
    """Those of some columns that count, with their weights.

    Args:
        columns: names as results.csv and `results_dict` have them, such as metrics/mAP50-95(M).
    """
    found = ((column, _WEIGHTS.get(short(column).split("(")[0])) for column in columns)
    return {column: weight for column, weight in found if weight is not None}


def fitness(numbers: Mapping[str, float]) -> float:
    """The weighted sum: 0.1 mAP50 + 0.9 mAP50-95 of boxes and of what they hold, or the mean accuracy."""
    return sum(weight * numbers[column] for column, weight in fitness_weights(numbers).items())
