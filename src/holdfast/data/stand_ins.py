"""Which image takes the place of one that cannot or shall not be used: the next in the order of the epoch.

Whether an image can be read is found out by whoever asks first, so what is already known must not matter: a
place is given to another image only when its own has been asked for, and only to one that has been read. The
sample is then a function of (seed, epoch, index) and of which files can be read, whatever was tried before.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.data.faults import Unusable
from holdfast.data.neighbours import Neighbours
from holdfast.data.reader import TrainReader
from holdfast.errors import DataError


class StandIns:
    """Finds other images, and knows which are left out.

    Args:
        near: knows the order of each epoch.
        read: where the images come from.
    """

    def __init__(self, near: Neighbours, read: TrainReader) -> None:
        self.near = near
        self.read = read
        self._out: dict[int, int] = {}  # image -> first epoch that goes without it

    def leave_out(self, numbers: Iterable[int], *, start: int) -> None:
        """Leaves images out from epoch `start` on; an earlier start of the same image stays."""
        wanted = {int(number): start for number in numbers}
        known = self._out
        self._out = {**known, **{n: min(first, known.get(n, first)) for n, first in wanted.items()}}

    @property
    def left_out(self) -> list[tuple[int, int]]:
        """The images that are left out and the first epoch of each, sorted."""
        return sorted(self._out.items())

    def check(self, epoch: int, number: int) -> None:
        """Raises:
        Unusable: the image is left out of this epoch.
        """
        if self._out and self._out.get(number, epoch + 1) <= epoch:
            raise Unusable(number)

    def of(self, epoch: int, number: int) -> int:
        """Returns the image that takes the place of `number`: it has just been read.

        Raises:
            DataError: there is none.
        """
        for other in self.near.after(epoch, number):
            try:
                self.check(epoch, other)
                self.read(other, 1)
            except Unusable:
                continue
            return other
        raise DataError(
            f"none of {self.near.count} images can be used any more.",
            hint="Check the drive and the data set, then go on with --resume.",
        )
