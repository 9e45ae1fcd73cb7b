"""Images that a run cannot use, found while it is under way: which, why, and what is said of them."""

from __future__ import annotations

import threading
from typing import NamedTuple

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


class Found(NamedTuple):
    """An image found to be faulty.

    Attributes:
        number: of the image.
        reason: what is wrong, with its file.
        late: whether reading it took too long, so that it is not tried again.
    """

    number: int
    reason: str
    late: bool


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
        self._now: dict[int, Found] = {}
        self._fresh: list[Found] = []
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
        self.add(Found(number, error.message.rstrip("."), isinstance(error, Late)))
        return Unusable(number)

    def add(self, found: Found) -> None:
        """Takes down what another process has found.

        Raises:
            DataError: too many images cannot be read.
        """
        with self._lock:
            self._now[found.number] = found
            if found.number not in self.reasons:
                self.reasons[found.number] = found.reason
                self._fresh.append(found)
            if len(self._now) > self.most:
                raise DataError(
                    f"{len(self._now)} images cannot be read any more, the last of them {found.reason}.",
                    hint="Check the drive and the data set, then go on with --resume.",
                )

    @property
    def late(self) -> list[Found]:
        """Those whose reading took too long."""
        return [found for found in self._now.values() if found.late] if self._now else []

    @property
    def count(self) -> int:
        """Images that are faulty at the moment."""
        return len(self._now)

    def retry(self) -> None:
        """Lets images be tried again, but for those whose reading took too long."""
        with self._lock:
            self._now = {found.number: found for found in self.late}

    def take(self) -> list[Found]:
        """Returns what was found for the first time since the last call."""
        if not self._fresh:
            return []
        with self._lock:
            taken, self._fresh = self._fresh, []
        return taken

    def fresh(self) -> list[str]:
        """Returns a line for each file that `take` returns, or where there are many, for all together."""
        taken = self.take()
        room = max(_NAMED - (len(self.reasons) - len(taken)), 0)
        lines = [found.reason for found in taken[:room]]
        if more := len(taken) - len(lines):
            lines.append(f"{more} more images cannot be read, {len(self.reasons)} in all")
        return lines
