"""How often an image is shown, by how rare and how poorly found its classes are (`image_weights`).

After the official YOLOv9 trainer: a class weighs the inverse of its number of objects times (1 - AP)^2, an
image the sum over its objects, and an epoch draws as many images as there are, with replacement. Other than
there, images without objects weigh as much as the average of the others, so that their share of an epoch
stays, and every appearance of an image is augmented anew.

Dimensions: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from holdfast.data.index import Index
from holdfast.data.random import Draw, draws

Weights = npt.NDArray[np.float64]


def class_weights(counts: npt.NDArray[np.int64], quality: Sequence[float]) -> Weights:
    """Returns (C,) weights with the mean 1 before any quality is known.

    Args:
        counts: (C,) objects of each class.
        quality: (C,) from 0 to 1, how well each class was found by the last validation; empty before it.
    """
    rarity = 1.0 / np.maximum(counts, 1)
    weights: Weights = rarity / rarity.mean()
    if len(quality):
        weights = weights * (1.0 - np.clip(np.asarray(quality), 0.0, 1.0)) ** 2
    return weights


def weights_of(index: Index, quality: Sequence[float]) -> Weights:
    """Returns (N,) weights, all 1 where no object weighs anything.

    Args:
        index: the images.
        quality: as of `class_weights`.
    """
    classes = index.classes.astype(np.int64)
    counts = np.bincount(classes, minlength=len(quality))
    padded = (*quality, *(0.0,) * (len(counts) - len(quality))) if len(quality) else ()
    of_object = class_weights(counts, padded)[classes]
    image = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    weights = np.bincount(image, of_object, minlength=len(index)).astype(np.float64)
    has_objects = np.diff(index.offsets) > 0
    if not weights.any():
        return np.ones(len(index))
    weights[~has_objects] = weights[has_objects].mean()
    return weights


def drawn_order(weights: Weights, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Returns an epoch of N samples, (N,), drawn with replacement: sample = image + N * earlier appearances.

    Args:
        weights: (N,) not negative, not all 0.
        seed: seed of the run.
        epoch: epoch from 0.
    """
    count = len(weights)
    up_to = np.cumsum(weights)
    chances = draws(seed, epoch, 0, Draw.WEIGHTED).random(count) * up_to[-1]
    images = np.minimum(np.searchsorted(up_to, chances, side="right"), count - 1)
    by_image = np.argsort(images, kind="stable")
    first = np.searchsorted(images[by_image], images[by_image])  # where the run of each image begins
    samples = np.empty(count, dtype=np.int64)
    samples[by_image] = images[by_image] + count * (np.arange(count) - first)
    return samples
