"""Images kept from one epoch to the next: one copy in memory for the whole machine, or one file on disk.

Both are filled while the first epoch runs and never change an image: what is not there is read again.

- `MemoryStore` is a file without a name that lives in memory. It needs no room in /dev/shm, vanishes with its
  last user however that ends, and other processes of the machine can map the same pages (`MemoryStore.join`).
  Where the system has no such files (it is not Linux), the memory is shared by threads only.
- `DiskStore` is one file per data set, input side and purpose. It carries the fingerprint of the images it
  was made from and is made anew when that differs; each image has a checksum, so what was damaged is read
  again.

Either may be too small for all images: then the first ones of the data set are kept.

Layout: a head of `_HEAD` bytes (kind of file, fingerprint), one `_ROW` per image, then the pixels, each image
in the room it was given when the file was made.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import Image
from holdfast.data.index import Index
from holdfast.data.reader import Read

Rooms = npt.NDArray[np.int64]  # (N,) most bytes of each image

_MARK = b"holdfast images 1\n"
_HEAD = 64
_ROW = np.dtype(
    [("x", "<f8"), ("y", "<f8"), ("height", "<i4"), ("width", "<i4"), ("sum", "<u4"), ("ready", "<u4")]
)


class MemoryStore:
    """Images in memory that processes can share.

    Two writers of one image write the same bytes, so none has to wait for another.

    Args:
        rooms: most bytes of each image.
        limit: bytes to use; images beyond it are not kept.
    """

    def __init__(self, rooms: Rooms, limit: int) -> None:
        self.rooms = rooms
        self.limit = limit
        self.starts, self.kept = _layout(rooms, limit)
        size = int(self.starts[self.kept])
        self.file: int | None = None
        if hasattr(os, "memfd_create"):
            self.file = os.memfd_create("holdfast-images", os.MFD_CLOEXEC)
            os.truncate(self.file, size)
        self._map(mmap.mmap(-1 if self.file is None else self.file, size))

    @classmethod
    def join(cls, address: str, rooms: Rooms, limit: int) -> MemoryStore:
        """Opens the store of another process of this machine.

        Args:
            address: `address` of that store.
            rooms: as given there.
            limit: as given there.

        Raises:
            OSError: that process has ended or belongs to another user.
        """
        store = cls.__new__(cls)
        store.rooms = rooms
        store.limit = limit
        store.starts, store.kept = _layout(rooms, limit)
        store.file = os.open(address, os.O_RDWR)
        store._map(mmap.mmap(store.file, int(store.starts[store.kept])))
        return store

    def __reduce__(self) -> tuple[Callable[..., MemoryStore], tuple[object, ...]]:
        return MemoryStore.join, (self.address, self.rooms, self.limit)

    @property
    def address(self) -> str | None:
        """Where other processes find it as long as this one lives; None when they cannot."""
        return None if self.file is None else f"/proc/{os.getpid()}/fd/{self.file}"

    def _map(self, memory: mmap.mmap) -> None:
        self._bytes = np.frombuffer(memory, np.uint8)
        self._rows = np.frombuffer(memory, _ROW, len(self.starts) - 1, _HEAD)

    @property
    def complete(self) -> bool:
        """Whether other processes find all images here, sooner or later."""
        return self.file is not None and self.kept == len(self.rooms)

    @property
    def held(self) -> int:
        """Bytes of the images that are there."""
        done = self._rows["ready"] == 1
        return int((self._rows["height"][done].astype(np.int64) * self._rows["width"][done] * 3).sum())

    def get(self, number: int) -> Read | None:
        """Returns an image without copying it, or None when it is not there."""
        if number >= self.kept:
            return None
        x, y, height, width, _, ready = self._rows[number].item()
        return (self._pixels(number, height, width), x, y) if ready else None

    def put(self, number: int, read: Read) -> Read:
        """Keeps an image if it has room; returns it from where it lies."""
        pixels, x, y = read
        start, end = int(self.starts[number]), int(self.starts[number + 1])
        if number >= self.kept or pixels.nbytes > end - start:
            return read
        height, width = pixels.shape[:2]
        mine = self._bytes[start : start + pixels.nbytes].reshape(height, width, 3)
        mine[...] = pixels
        self._rows[number] = (x, y, height, width, 0, 0)
        self._rows["ready"][number] = 1  # last: whoever sees it sees the rest
        return self._pixels(number, height, width), x, y

    def _pixels(self, number: int, height: int, width: int) -> Image:
        start = int(self.starts[number])
        pixels = self._bytes[start : start + height * width * 3].reshape(height, width, 3)
        pixels.flags.writeable = False
        return pixels

    def close(self) -> None:
        """Gives the memory back as soon as nobody looks at its images any more."""
        self._bytes, self._rows = np.zeros(0, np.uint8), np.zeros(0, _ROW)
        self.kept = 0
        if self.file is not None:
            os.close(self.file)
            self.file = None


class DiskStore:
    """Images in a file that the next run finds.

    Args:
        path: the file; made when missing, damaged or made from other images.
        fingerprint: of the images, 32 bytes (`fingerprint`).
        rooms: most bytes of each image.
        limit: bytes to use; images beyond it are not kept.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, fingerprint: bytes, rooms: Rooms, limit: int) -> None:
        self.path = path
        self.starts, self.kept = _layout(rooms, limit)
        self.found = 0
        count = len(rooms)
        head = (_MARK + fingerprint).ljust(_HEAD, b"\0")
        self._rows = _read_rows(path, head, count)
        if self._rows is None:
            self._rows = np.zeros(count, _ROW)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
            with os.fdopen(handle, "wb") as file:
                file.write(head + self._rows.tobytes())
            os.replace(temporary, path)
        self.found = int((self._rows["ready"] == 1).sum())
        self._checked = np.zeros(count, np.bool_)

    def get(self, number: int) -> Read | None:
        """Returns an image, or None when it is not there or not as it was written."""
        assert self._rows is not None
        x, y, height, width, total, ready = self._rows[number].item()
        start, end = int(self.starts[number]), int(self.starts[number + 1])
        if ready != 1 or min(height, width) < 1 or height * width * 3 > end - start:
            return None
        pixels = np.empty((height, width, 3), np.uint8)
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(start)
                if file.readinto(pixels.data.cast("B")) != pixels.nbytes:
                    return None
        except OSError:
            return None
        if not self._checked[number]:
            if zlib.crc32(pixels.data.cast("B")) != total:
                return None
            self._checked[number] = True
        return pixels, x, y

    def put(self, number: int, read: Read) -> Read:
        """Keeps an image if it has room on the disk; returns it."""
        assert self._rows is not None
        pixels, x, y = read
        pixels = np.ascontiguousarray(pixels)
        start, end = int(self.starts[number]), int(self.starts[number + 1])
        if number >= self.kept or pixels.nbytes > end - start:
            return read
        height, width = pixels.shape[:2]
        content = pixels.data.cast("B")
        row = np.array((x, y, height, width, zlib.crc32(content), 1), _ROW)
        try:
            with open(self.path, "r+b", buffering=0) as file:
                file.seek(start)
                if file.write(content) != len(content):
                    return read
                file.seek(_HEAD + number * _ROW.itemsize)
                file.write(row.tobytes())  # last: a run that is killed before leaves nothing wrong
        except OSError:  # the disk is full or gone: go on without
            self.kept = 0
            return read
        self._rows[number] = row
        self._checked[number] = True
        return read

    def close(self) -> None:
        """Does nothing: each access opens the file."""


def fingerprint(index: Index, use: str, side: int) -> bytes:
    """Returns 32 bytes that change with the image files (names, sizes, times of change) and their use."""
    digest = hashlib.sha256(f"{use} {side} {cv2.__version__}".encode())
    for array in (index.path_bytes, index.path_offsets, index.sizes):
        digest.update(np.ascontiguousarray(array).tobytes())
    for i in range(len(index)):
        try:
            status = os.stat(index.path(i))
        except OSError:
            continue
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.digest()


def file_name(index: Index, use: str, side: int) -> str:
    """Returns the name of a data set's file: the same one after its images have changed."""
    digest = hashlib.sha256(f"{use} {side}".encode())
    digest.update(np.ascontiguousarray(index.path_bytes).tobytes())
    return f"{use}-{side}-{digest.hexdigest()[:24]}.images"


def cost(rooms: Rooms) -> int:
    """Returns the bytes a store takes for all images."""
    return int(_layout(rooms, 1 << 62)[0][-1])


def _layout(rooms: Rooms, limit: int) -> tuple[npt.NDArray[np.int64], int]:
    """Returns where each image starts, (N + 1,), and how many images fit into `limit` bytes."""
    first = -(-(_HEAD + len(rooms) * _ROW.itemsize) // mmap.PAGESIZE) * mmap.PAGESIZE
    padded = -(-rooms // 64) * 64
    starts = np.concatenate([[first], first + padded.cumsum()]).astype(np.int64)
    return starts, max(int(np.searchsorted(starts, limit, side="right")) - 1, 0)


def _read_rows(path: Path, head: bytes, count: int) -> npt.NDArray[np.void] | None:
    """Returns the rows of a file, or None when it is not there or not the one that is wanted."""
    try:
        with open(path, "rb") as file:
            if file.read(_HEAD) != head:
                return None
            content = file.read(count * _ROW.itemsize)
    except OSError:
        return None
    return np.frombuffer(content, _ROW).copy() if len(content) == count * _ROW.itemsize else None
