"""Metrics as people and programs read them: the printed table and the content of results.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.evaluate.coco import DetectionMetrics
from holdfast.evaluate.metrics import ClassifyMetrics, Metrics


def table(metrics: Metrics, speed: Mapping[str, float]) -> str:
    """Returns the table printed at the end of a validation, one line per class that has objects.

    Args:
        speed: milliseconds per image by step.
    """
    lines = _accuracies(metrics) if isinstance(metrics, ClassifyMetrics) else _precisions(metrics)
    parts = ", ".join(f"{name} {spent:.1f} ms" for name, spent in speed.items())
    return "\n".join([*lines, f"speed per image: {parts} over {metrics.images} images"])


def _precisions(metrics: Metrics) -> list[str]:
    """One block of columns per set of metrics."""
    parts = list(metrics.parts.items())
    first = parts[0][1]
    shown = [int(c) for c in first.class_index]
    width = max([len("class"), *(len(first.names[c]) for c in shown)])
    heads = "  ".join(_head(title) for title, _ in parts)
    lines = [f"{'class':<{width}}  images  objects  {heads}"]
    total = "  ".join(_numbers(*part.headline) for _, part in parts)
    lines.append(f"{'all':<{width}}  {first.images:6d}  {int(first.nt.sum()):7d}  {total}")
    if len(first.names) > 1:
        for c in shown:
            numbers = "  ".join(_numbers(*_of_class(part, c)) for _, part in parts)
            count = f"{int(first.images_with[c]):6d}  {int(first.nt[c]):7d}"
            lines.append(f"{first.names[c]:<{width}}  {count}  {numbers}")
    return lines


def _head(title: str) -> str:
    if not title:
        return f"{'P':>6}  {'R':>6}  {'mAP50':>6}  {'mAP50-95':>8}"
    letter = title[0]
    return f"{f'P({letter})':>6}  {f'R({letter})':>6}  {f'50({letter})':>6}  {f'50-95({letter})':>8}"


def _numbers(p: float, r: float, ap50: float, ap: float) -> str:
    return f"{p:6.3f}  {r:6.3f}  {ap50:6.3f}  {ap:8.3f}"


def _of_class(metrics: DetectionMetrics, c: int) -> tuple[float, float, float, float]:
    return metrics.p[c], metrics.r[c], metrics.ap50[c], metrics.ap[c]


def _accuracies(metrics: ClassifyMetrics) -> list[str]:
    rows = metrics.summary()
    width = max([len("class"), *(len(row["class"]) for row in rows)])
    lines = [f"{'class':<{width}}  images   top-1   top-5"]
    lines.append(f"{'all':<{width}}  {metrics.images:6d}  {metrics.top1:6.3f}  {metrics.top5:6.3f}")
    lines += [
        f"{row['class']:<{width}}  {row['images']:6d}  {row['top1']:6.3f}  {row['top5']:6.3f}" for row in rows
    ]
    return lines


def results_summary(metrics: Metrics, speed: Mapping[str, float], *, unread: int = 0) -> dict[str, Any]:
    """Returns the content of results.json: metrics overall and per class, size split, speed in ms per
    image.

    Args:
        unread: images that could not be read, among those counted.
    """
    return {
        "metrics": metrics.results_dict,
        **metrics.details,
        "images": metrics.images,
        "images_unread": unread,
        "speed_ms_per_image": dict(speed),
        "classes": metrics.summary(),
    }
