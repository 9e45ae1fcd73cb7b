"""Images of a data set by number, no larger than their use needs; the same pixels whatever is cached.

Training reads an image at the smallest 1/2, 1/4, ... of its size whose long side is not under the side of
the network's input, and shrinks it further from there when a sample shows it smaller. Evaluation fits it to
that side at once. A store (cache.py) keeps what was read; besides, the last images stay in memory for a
while, because samples of the same epoch share them (neighbours.py).
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.faults import Faults
from holdfast.data.files import DriveGone, TimedFiles
from holdfast.data.image import Image, read_image, read_reduced, shown, shrink
from holdfast.data.index import Index
from holdfast.data.neighbours import WINDOW
from holdfast.errors import DataError

Read = tuple[Image, float, float]  # pixels, and how many of them go into one original pixel in x and in y
Shapes = npt.NDArray[np.int64]

_RECENT_BYTES = 512 * 2**20
_RECENT_IMAGES = WINDOW + 32  # workers run ahead of each other


class Store(Protocol):
    """Keeps images by number. Several threads may call at once."""

    def get(self, number: int) -> Read | None:
        """Returns an image, or None when it is not there."""

    def put(self, number: int, read: Read) -> Read:
        """Keeps an image if there is room; returns it, from where it is kept if that can be."""


class Recent:
    """A store in memory that forgets the oldest.

    Args:
        images: most images.
        limit: most bytes.
    """

    def __init__(self, images: int = _RECENT_IMAGES, limit: int = _RECENT_BYTES) -> None:
        self.images = images
        self.limit = limit
        self._kept: dict[int, Read] = {}
        self._held = 0
        self._lock = threading.Lock()

    def get(self, number: int) -> Read | None:
        return self._kept.get(number)

    def put(self, number: int, read: Read) -> Read:
        with self._lock:
            if number not in self._kept:
                self._kept[number] = read
                self._held += read[0].nbytes
            while self._kept and (len(self._kept) > self.images or self._held > self.limit):
                oldest = next(iter(self._kept))
                self._held -= self._kept.pop(oldest)[0].nbytes
        return read


class TrainReader:
    """Reads images for samples that show them scaled at random.

    Args:
        index: the images.
        side: side of the network's input in pixels.
        store: what is kept of earlier reads; None keeps the most recent ones only.
        timeout: seconds that reading a file may take; 0 waits for as long as it takes.

    Attributes:
        faults: the images that cannot be read; more than half of them are an error.
    """

    def __init__(
        self, index: Index, *, side: int, store: Store | None = None, timeout: float = 0.0
    ) -> None:
        self.index = index
        self.side = side
        self.store = store
        self.recent = Recent()
        self.files = TimedFiles(timeout)
        self.faults = Faults(most=len(index) // 2)

    def __getstate__(self) -> dict[str, object]:
        return {
            "index": self.index, "side": self.side, "store": self.store, "timeout": self.files.limit
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        TrainReader.__init__(self, **state)  # with files and faults of its own

    def __call__(self, number: int, divisor: int) -> Read:
        """Reads an image at about 1/divisor of its size, or smaller where training needs no more.

        Raises:
            Unusable: the image cannot be read any more, or has another size.
            DataError: neither can many others.
        """
        height, width = self.index.size(number)
        least = least_divisor(height, width, self.side)
        pixels, scale_x, scale_y = self._base(number, least)
        if divisor <= least:
            return pixels, scale_x, scale_y
        smaller, by_x, by_y = shrink(pixels, divisor // least)
        return smaller, scale_x * by_x, scale_y * by_y

    def _base(self, number: int, divisor: int) -> Read:
        """Returns an image at the size it is kept in."""
        known = self.recent.get(number)
        if known is not None:
            return known
        known = self.store.get(number) if self.store is not None else None
        if known is None:
            known = self._read(number, divisor)
            if self.store is not None:
                known = self.store.put(number, known)
        return self.recent.put(number, known)

    def _read(self, number: int, divisor: int) -> Read:
        self.faults.check(number)
        path = self.index.path(number)
        try:
            pixels, scale_x, scale_y = read_reduced(self.files.read(path), divisor, name=shown(path))
            height, width = pixels.shape[:2]
            _compare(self.index, number, height / scale_y, width / scale_x, slack=divisor)
        except DriveGone:
            raise
        except DataError as error:
            raise self.faults.note(number, error) from None
        return pixels, scale_x, scale_y


class EvalReader:
    """Reads images for samples that show them whole, long side at `side`.

    Args:
        index: the images.
        side: long side of the network's input in pixels.
        store: what is kept of earlier reads.
        timeout: seconds that reading a file may take; 0 waits for as long as it takes.

    Attributes:
        faults: the images that cannot be read.
    """

    def __init__(
        self, index: Index, *, side: int, store: Store | None = None, timeout: float = 0.0
    ) -> None:
        self.index = index
        self.side = side
        self.store = store
        self.files = TimedFiles(timeout)
        self.faults = Faults(most=len(index))

    def __call__(self, number: int) -> Image:
        """Reads an image; one whose long side is over `side` is shrunk to it, by area.

        Raises:
            Unusable: the image cannot be read any more, or has another size.
        """
        if self.store is None:
            return self._read(number)[0]
        known = self.store.get(number)
        return (known or self.store.put(number, self._read(number)))[0]

    def _read(self, number: int) -> Read:
        self.faults.check(number)
        path = self.index.path(number)
        try:
            image = read_image(self.files.read(path), name=shown(path))
            _compare(self.index, number, *image.shape[:2], slack=1)
        except DataError as error:
            raise self.faults.note(number, error) from None
        height, width = fitted(image.shape[0], image.shape[1], self.side)
        if height * width < image.shape[0] * image.shape[1]:
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        return image, 1.0, 1.0


def _compare(index: Index, number: int, height: float, width: float, *, slack: int) -> None:
    """Refuses an image whose size is not, to less than `slack` pixels, the one that the index knows."""
    known_height, known_width = index.size(number)
    if abs(height - known_height) >= slack or abs(width - known_width) >= slack:
        raise DataError(
            f"is now {width:.0f} x {height:.0f} pixels, and was {known_width} x {known_height} when the run "
            "began.",
            path=shown(index.path(number)),
            hint="Start the run anew to use it as it is now.",
        )


def recent_bytes(sizes: npt.NDArray[np.int32], side: int) -> int:
    """Returns about the bytes that a `TrainReader` holds of images read lately."""
    return min(int(train_rooms(sizes, side).mean()) * min(_RECENT_IMAGES, len(sizes)), _RECENT_BYTES)


def least_divisor(height: int, width: int, side: int) -> int:
    """Returns the largest power of two, at least 1, that leaves an image's long side at `side` or more."""
    return 1 << max((max(height, width) // side).bit_length() - 1, 0)


def fitted(height: int, width: int, side: int) -> tuple[int, int]:
    """Returns the (height, width) of an image scaled to a long side of `side`."""
    ratio = side / max(height, width)
    return max(round(height * ratio), 1), max(round(width * ratio), 1)


def train_rooms(sizes: npt.NDArray[np.int32], side: int) -> Shapes:
    """Returns the most bytes each image takes as `TrainReader` reads it, (N,), from its (height, width)."""
    ratio = np.maximum(sizes.max(axis=1).astype(np.int64) // side, 1)
    divisor = 1 << np.floor(np.log2(ratio)).astype(np.int64)
    reduced = -(-sizes.astype(np.int64) // divisor[:, None])
    return np.asarray(3 * reduced.prod(axis=1), dtype=np.int64)


def eval_rooms(sizes: npt.NDArray[np.int32], side: int) -> Shapes:
    """Returns the most bytes each image takes as `EvalReader` reads it, (N,), from its (height, width)."""
    ratio = np.minimum(side / sizes.max(axis=1), 1.0)
    reduced = np.ceil(sizes * ratio[:, None])
    return np.asarray(3 * reduced.prod(axis=1), dtype=np.int64)
