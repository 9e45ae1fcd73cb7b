"""Whom a sample shares its picture with: images that come shortly before it in the order of the epoch.

Any image would do, and the order is shuffled, so these are as random as any. But they have just been read:
a reader that remembers the last `WINDOW` images decodes each image once per epoch, instead of once for every
picture it is part of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.data.random import epoch_order

WINDOW = 128  # images to choose from; fewer would show in a batch as the same image again and again


class _Epoch(NamedTuple):
    """One epoch: `order` (N,) lists images by position, `position` (N,) says where each image comes."""

    number: int
    order: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]


class Neighbours:
    """Chooses images near a sample, as a function of (seed, epoch, sample) and of the numbers drawn.

    Args:
        count: images of the data set.
        seed: seed of the run, which decides the order of each epoch.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._known: tuple[_Epoch, ...] = ()

    def pick(self, epoch: int, index: int, chances: npt.NDArray[np.float64]) -> list[int]:
        """Returns one image per number.

        Args:
            epoch: epoch from 0.
            index: the sample.
            chances: (M,) numbers in [0, 1).
        """
        _, order, position = self._epoch(epoch)
        start = max(int(position[index]) - WINDOW + 1, 0)
        found: list[int] = order[start + (chances * min(WINDOW, self.count)).astype(np.int64)].tolist()
        return found

    def after(self, epoch: int, index: int) -> Iterator[int]:
        """Yields all other images: those after `index` in the order of an epoch, then those before it."""
        _, order, position = self._epoch(epoch)
        start = int(position[index])
        for step in range(1, self.count):
            yield int(order[(start + step) % self.count])

    def _epoch(self, number: int) -> _Epoch:
        for known in self._known:
            if known.number == number:
                return known
        order = epoch_order(self.count, seed=self.seed, epoch=number).astype(np.int32)
        position = np.empty_like(order)
        position[order] = np.arange(self.count, dtype=np.int32)
        made = _Epoch(number, order, position)
        self._known = (made, *self._known[:1])  # workers may still be in the epoch before
        return made
