"""Which images share a batch, and the size of the batch: functions of seed, epoch and place, nothing else.

Dimensions: N images.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from holdfast.data.random import Draw, draws

Indices = npt.NDArray[np.int64]


def batch_side(side: int, spread: float, *, stride: int, seed: int, epoch: int, number: int) -> int:
    """Returns the side of a batch: a random multiple of the stride within (1 +- spread) * side.

    Args:
        side: nominal side in pixels, a multiple of `stride`.
        spread: share; 0 always gives `side`.
        stride: the side is a multiple of it, and at least twice as long.
        seed: seed of the run.
        epoch: epoch from 0.
        number: batch of the epoch from 0.
    """
    if not spread:
        return side
    low = max(math.ceil(side * (1.0 - spread) / stride - 1e-9), 2)
    high = math.floor(side * (1.0 + spread) / stride + 1e-9)
    chance = float(draws(seed, epoch, number, Draw.BATCH_SIDE).random())
    return (low + int(chance * (high - low + 1))) * stride


def similar_order(
    order: Indices, ratios: npt.NDArray[np.float64], *, batch: int, seed: int, epoch: int
) -> Indices:
    """Returns the samples of an epoch in an order in which those of a batch have similar shapes.

    Samples are sorted by shape in coarse steps (so batches differ from epoch to epoch), cut into batches, and
    the batches shuffled. A short last batch holds images of any shape.

    Args:
        order: (N,) samples, shuffled: each the index of its image, or N and more above it.
        ratios: (N,) height / width of each image.
        batch: images per batch.
        seed: seed of the run.
        epoch: epoch from 0.
    """
    full = len(order) - len(order) % batch
    steps = np.rint(np.log(ratios[order[:full] % len(ratios)]) * 16)
    rows = order[:full][np.argsort(steps, kind="stable")].reshape(-1, batch)
    chances = draws(seed, epoch, 0, Draw.BATCH_ORDER).random(len(rows))
    return np.concatenate([rows[np.argsort(chances, kind="stable")].reshape(-1), order[full:]])
