"""Random numbers without state: every draw is a function of (seed, epoch, index, draw).

Philox is counter based, so a generator can be placed anywhere in its stream at no cost. Worker count,
prefetch, number of processes and the point of a resume therefore cannot change a sample. The low counter word
is left to the generator (2**64 numbers per draw), the other three words name the place.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

_WORD = (1 << 64) - 1


class Draw(IntEnum):
    """What a draw decides. Numbers are part of the meaning of a seed: never renumber, only add."""

    ORDER = 0
    MOSAIC = 1
    AFFINE = 2
    MIXUP = 3
    COLOR = 4
    FLIP = 5
    MIXUP_MOSAIC = 6
    MIXUP_AFFINE = 7
    FRACTION = 8
    BATCH_SIDE = 9
    BATCH_ORDER = 10
    TILES = 11
    POLICY = 12
    PASTE = 13
    PASTE_MOSAIC = 14
    PASTE_AFFINE = 15
    CUTMIX = 16
    CUTMIX_MOSAIC = 17
    CUTMIX_AFFINE = 18
    CHANNELS = 19
    WEIGHTED = 20
    ERASING = 21


def draws(seed: int, epoch: int, index: int, draw: int) -> np.random.Generator:
    """Returns the generator that belongs to one place.

    Args:
        seed: seed of the run, any integer (taken modulo 2**64).
        epoch: epoch from 0.
        index: index of the sample in the data set.
        draw: what is decided, one of `Draw`.
    """
    key = np.array([seed & _WORD, 0x686F6C6466617374], dtype=np.uint64)
    counter = np.array([0, draw & _WORD, index & _WORD, epoch & _WORD], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


class Place:
    """Where a sample stands in a run; every draw of the sample is a function of it.

    Made for one thread.

    Args:
        seed: seed of the run.
        epoch: epoch from 0.
        sample: number of the sample: the index of its image, and more where that is shown again
            (`weighing.drawn_order`).
    """

    def __init__(self, seed: int, epoch: int, sample: int) -> None:
        self.seed = seed
        self.epoch = epoch
        self.sample = sample
        self._mine = draws(seed, epoch, sample, 0)
        self._state = self._mine.bit_generator.state

    def draws(self, draw: int) -> np.random.Generator:
        """Returns the generator that decides one thing about the sample."""
        return draws(self.seed, self.epoch, self.sample, draw)

    def numbers(self, draw: int, count: int) -> npt.NDArray[np.float64]:
        """Returns (count,) numbers in [0, 1): `draws(draw).random(count)`, at a tenth of its cost."""
        self._state["state"]["counter"][1] = draw
        self._mine.bit_generator.state = self._state
        return self._mine.random(count)


def epoch_order(count: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Returns the order of `count` samples in an epoch, (count,) int64, a permutation.

    Sorting random keys rather than calling `permutation` keeps the order independent of how numpy shuffles.
    """
    return np.argsort(draws(seed, epoch, 0, Draw.ORDER).random(count), kind="stable").astype(np.int64)
