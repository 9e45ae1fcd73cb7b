"""Records of made-up runs: a healthy one, and the same with one thing changed."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

from holdfast.health.records import Epoch, Facts, History

GIB = 2**30

HEALTHY = Facts(
    model="gelan-s", device="cuda:0 (a card)", epochs=100, train_images=20_000, batch=64, imgsz=640,
    object_side=70.0, optimizer="SGD", lr0=0.01, warmup_epochs=3.0, mixup=0.0, box=7.5, patience=100,
    autoaugment="none", cache="off", threads=8, cores=8, precision="bfloat16",
    planned=9 * GIB, limit=12 * GIB,
)  # fmt: skip


def healthy_epoch(number: int, noise: random.Random) -> Epoch:
    """Epoch of a run that learns: losses fall towards a floor, AP rises, the rest stays with some noise."""
    def around(value: float, share: float = 0.03) -> float:
        return value * (1 + share * noise.uniform(-1, 1))

    fall = math.exp(-number / 8)
    score = 0.55 * (1 - math.exp(-number / 15))
    return Epoch(
        epoch=number, step=number * 312, time=1e9 + 60 * number, seconds=around(55.0),
        losses={"box": around(1.0 + 2.5 * fall), "cls": around(0.6 + 3 * fall), "dfl": around(1.0 + fall)},
        val_losses={"box": around(1.1 + 2.4 * fall), "cls": around(0.7 + 3 * fall)},
        metrics={"metrics/mAP50(B)": score + around(0.12), "metrics/mAP50-95(B)": score},
        images_per_second=around(360.0, 0.1), wait_share=abs(around(0.04, 0.5)), rates=(0.01, 0.01, 0.01),
        norm=around(14.0, 0.4), norm_max=around(40.0, 0.4), clipped=0.9,
        layers={"backbone.stage2": around(3, 0.5), "neck.out4": around(2, 0.5), "head.box": around(9, 0.5)},
        rss=round(around(6 * GIB, 0.02)), allocated=round(around(GIB, 0.01)), reserved=round(10.2 * GIB),
        peak=round(around(9 * GIB, 0.02)), val_peak=round(4 * GIB), capacity=16 * GIB,
        utilisation=around(0.93, 0.05),
    )  # fmt: skip


def history(
    length: int = 60,
    change: Callable[[Epoch], dict[str, Any]] | None = None,
    seed: int = 0,
    **facts: Any,
) -> History:
    """A healthy run; `change` says what differs in an epoch, and `facts` what differs in the run."""
    noise = random.Random(seed)
    rows = [healthy_epoch(number, noise) for number in range(1, length + 1)]
    if change is not None:
        rows = [dataclasses.replace(row, **change(row)) for row in rows]
    return History(facts=dataclasses.replace(HEALTHY, **facts), epochs=tuple(rows))
