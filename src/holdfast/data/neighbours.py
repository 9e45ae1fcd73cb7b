"""Whom a sample shares its picture with: images that come shortly before it in the order of the epoch.

Any image would do, and the order is shuffled, so these are as random as any. But they have just been read:
a reader that remembers the last `WINDOW` images decodes each image once per epoch, instead of once for every
picture it is part of.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from holdfast.data.random import epoch_order
from holdfast.data.weighing import Weights, drawn_order

WINDOW = 128  # images to choose from; fewer would show in a batch as the same image again and again


class _Epoch:
    """One epoch.

    Args:
        number: epoch from 0.
        samples: (N,) by position; each is the index of its image, or as many times N more as the image was
            shown before.
    """

    def __init__(self, number: int, samples: npt.NDArray[np.int64]) -> None:
        self.number = number
        self.images = (samples % len(samples)).astype(np.int32)
        self._by_sample = np.argsort(samples, kind="stable").astype(np.int32)
        # A permutation needs no search: its samples, sorted, are 0 to N - 1.
        self._sorted = samples[self._by_sample] if samples.max() >= len(samples) else None

    def position(self, sample: int) -> int:
        """Where a sample comes; somewhere, if it was not drawn."""
        at = sample if self._sorted is None else np.searchsorted(self._sorted, sample)
        return int(self._by_sample[min(int(at), len(self._by_sample) - 1)])


class Neighbours:
    """Knows the order of each epoch, and chooses images near a sample as a function of (seed, epoch, sample)
    and of the numbers drawn.

    Args:
        count: images of the data set.
        seed: seed of the run, which decides the order of each epoch.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.weights: Weights | None = None
        self.plain = self  # knows the order without weights
        self._known: tuple[_Epoch, ...] = ()

    def weigh(self, weights: Weights) -> None:
        """Has epochs that have not begun drawn with weights (N,) (`weighing.drawn_order`)."""
        self.weights = weights
        if self.plain is self:
            self.plain = Neighbours(self.count, self.seed)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The samples of an epoch, (N,): all images, or as many that were drawn."""
        if self.weights is None:
            return epoch_order(self.count, seed=self.seed, epoch=epoch)
        return drawn_order(self.weights, seed=self.seed, epoch=epoch)

    def pick(self, epoch: int, sample: int, chances: npt.NDArray[np.float64]) -> list[int]:
        """Returns one image per number.

        Args:
            epoch: epoch from 0.
            sample: one of `order`.
            chances: (M,) numbers in [0, 1).
        """
        known = self._epoch(epoch)
        start = max(known.position(sample) - WINDOW + 1, 0)
        found: list[int] = known.images[start + (chances * min(WINDOW, self.count)).astype(np.int64)].tolist()
        return found

    def after(self, epoch: int, index: int) -> Iterator[int]:
        """Yields all other images: those after `index` in the plain order of an epoch, then those before."""
        whole = self.plain._epoch(epoch)
        start = whole.position(index)
        for step in range(1, self.count):
            yield int(whole.images[(start + step) % self.count])

    def _epoch(self, number: int) -> _Epoch:
        for known in self._known:
            if known.number == number:
                return known
        made = _Epoch(number, self.order(number))
        self._known = (made, *self._known[:1])  # workers may still be in the epoch before
        return made
