"""Metrics as people and programs read them: the printed table and the content of results.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.evaluate.coco import DetectionMetrics


def table(metrics: DetectionMetrics, speed: Mapping[str, float]) -> str:
    """Returns the table printed at the end of a validation, one line per class that has objects.

    Args:
        speed: milliseconds per image by step.
    """
    m = metrics
    shown = [int(c) for c in m.class_index]
    width = max([len("all"), *(len(m.names[c]) for c in shown)])
    lines = [f"{'class':<{width}}  images  objects       P       R   mAP50  mAP50-95"]

    def row(name: str, images: int, count: int, *values: float) -> str:
        p, r, ap50, ap = values
        return f"{name:<{width}}  {images:6d}  {count:7d}  {p:6.3f}  {r:6.3f}  {ap50:6.3f}  {ap:8.3f}"

    lines.append(row("all", m.images, int(m.nt.sum()), m.mp, m.mr, m.map50, m.map))
    if len(m.names) > 1:
        lines += [
            row(m.names[c], int(m.images_with[c]), int(m.nt[c]), m.p[c], m.r[c], m.ap50[c], m.ap[c])
            for c in shown
        ]
    parts = ", ".join(f"{name} {spent:.1f} ms" for name, spent in speed.items())
    lines.append(f"speed per image: {parts} over {m.images} images")
    return "\n".join(lines)


def results_summary(
    metrics: DetectionMetrics, speed: Mapping[str, float], *, unread: int = 0
) -> dict[str, Any]:
    """Returns the content of results.json: metrics overall and per class, size split, speed in ms per
    image.

    Args:
        unread: images that could not be read, among those counted.
    """
    return {
        "metrics": metrics.results_dict,
        "mAP75": metrics.map75,
        "mAP_small": metrics.map_small,
        "mAP_medium": metrics.map_medium,
        "mAP_large": metrics.map_large,
        "images": metrics.images,
        "images_unread": unread,
        "speed_ms_per_image": dict(speed),
        "classes": metrics.summary(),
    }
