"""Images that a run cannot use, found while it is under way: which, why, and what is said of them."""

from __future__ import annotations

import threading

from holdfast.data.files import Late
from holdfast.errors import DataError

_NAMED = 50  # files that get a line of their own


class Unusable(Exception):
    """An image cannot be used at the moment. Whoever asked for it takes another one.

    Args:
        number: of the image.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Faults:
    """What could not be read. Several threads may note at once; each file is said once.

    Args:
        most: images that may be faulty at the same time.

    Attributes:
        reasons: number of each image that ever was faulty -> what was wrong, with its file.
    """

    def __init__(self, *, most: int) -> None:
        self.most = most
        self.reasons: dict[int, str] = {}
        self._now: dict[int, bool] = {}  # faulty at the moment, and whether for good
        self._fresh: list[str] = []
        self._more = 0  # found since the last call of `fresh`, without a line of their own
        self._lock = threading.Lock()

    def check(self, number: int) -> None:
        """Raises:
        Unusable: the image is known to be faulty.
        """
        if number in self._now:
            raise Unusable(number)

    def note(self, number: int, error: DataError) -> Unusable:
        """Takes down that an image cannot be read, and returns what is to be raised.

        Raises:
            DataError: too many cannot.
        """
        with self._lock:
            self._now[number] = isinstance(error, Late)
            if number not in self.reasons:
                self.reasons[number] = error.message.rstrip(".")
                if len(self.reasons) <= _NAMED:
                    self._fresh.append(self.reasons[number])
                else:
                    self._more += 1
            if len(self._now) > self.most:
                raise DataError(
                    f"{len(self._now)} images cannot be read any more, the last of them {error.message}",
                    hint="Check the drive and the data set, then go on with --resume.",
                )
        return Unusable(number)

    @property
    def count(self) -> int:
        """Images that are faulty at the moment."""
        return len(self._now)

    def retry(self) -> None:
        """Lets images be tried again, but for those whose reading took too long."""
        with self._lock:
            self._now = {number: late for number, late in self._now.items() if late}

    def fresh(self) -> list[str]:
        """Returns a line for each file noted since the last call, or for all of them together."""
        if not self._fresh and not self._more:
            return []
        with self._lock:
            lines, self._fresh = self._fresh, []
            more, self._more = self._more, 0
        if more:
            lines.append(f"{more} more images cannot be read, {len(self.reasons)} in all")
        return lines
