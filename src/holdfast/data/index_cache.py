"""The index of a large data set in one file, opened by mapping it into memory.

Layout: a line that names the format, a line of JSON, then raw arrays at multiples of 64 bytes. Mapped arrays
cost memory only where they are read, and all processes of a machine share them. A file counts when its
checksum holds and nothing it was made from has changed: image paths, time and size of every image and label,
class names, options, version. Otherwise it is written anew.

Several processes that want the same index take turns by a lock on a file beside it: one scans, the others
wait and open what it wrote. A lock ends with its process; a process that shows no progress is not waited for.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from holdfast import __version__
from holdfast.data.find import LabelPlaces
from holdfast.data.index_arrays import ARRAYS, Index
from holdfast.data.problems import Problems
from holdfast.locks import take

_FORMAT = b"holdfast index 1\n"
_ALIGN = 64
_NONE = (-1, -1)
_BLOCK = 1 << 22
_PATIENCE = 300.0  # seconds without progress of the process that scans; it may be reading a large json
_KEPT_DAYS = 90  # files that were not used for so long are removed

Tick = Callable[[], None]


def cached(folder: Path, name: str, state: str, build: Callable[[Tick], Index]) -> Index:
    """Returns the index of that name and state, built only when no process has yet.

    Args:
        folder: where cache files are; made when missing.
        name: what the index is of: sources and options.
        state: what it was made from.
        build: makes it; has to call its argument now and then, to show that it goes on.
    """
    path = folder / f"{name}.index"
    found = load(path, state)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("a+b")
    except OSError as error:
        return _noted(build(_idle), folder, error)
    with lock:
        if _wait(lock):
            found = load(path, state)
            if found is not None:
                return found
        index = build(lambda: _touch(lock))
        try:
            save(index, path, state)
        except OSError as error:
            return _noted(index, folder, error)
    return load(path, state) or index


def digest(parts: Sequence[object]) -> str:
    """SHA-256 over plain values and arrays."""
    total = hashlib.sha256(__version__.encode())
    for part in parts:
        total.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else repr(part).encode())
        total.update(b"\0")
    return total.hexdigest()


def stamps(images: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Returns (n, 4): time and size of every image and of its label file, -1 where there is none."""
    values: list[int] = []
    places = LabelPlaces()
    for image in images:
        values += _stamp([image])
        values += _stamp(places.of(image))
    return np.array(values, dtype=np.int64).reshape(-1, 4)


def _stamp(places: Iterable[bytes]) -> tuple[int, int]:
    """Returns time and size of the first file that is there."""
    for path in places:
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            continue
        return status.st_mtime_ns, status.st_size
    return _NONE


def save(index: Index, path: Path, state: str) -> None:
    """Writes an index so that its file is whole or absent.

    Raises:
        OSError: the folder cannot be written to.
    """
    arrays = {name: np.ascontiguousarray(getattr(index, name)) for name in ARRAYS}
    layout, offset, total = {}, 0, 0
    for name, array in arrays.items():
        layout[name] = [array.dtype.str, array.shape, offset]
        offset += -(-array.nbytes // _ALIGN) * _ALIGN
        total = zlib.crc32(_padded_tail(array), zlib.crc32(_bytes(array), total))
    header = {
        "state": state,
        "names": list(index.names.items()),
        "problems": vars(index.problems),
        "arrays": layout,
        "bytes": offset,
        "crc32": total,
    }
    _prune(path.parent)
    handle, temporary = tempfile.mkstemp(prefix=f"{path.stem}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_FORMAT + json.dumps(header).encode("ascii") + b"\n")
            file.write(b"\0" * (-file.tell() % _ALIGN))
            for array in arrays.values():
                file.write(_bytes(array))
                file.write(_padded_tail(array))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def load(path: Path, state: str) -> Index | None:
    """Opens an index; None when there is none of that state, or its file is damaged."""
    try:
        with path.open("rb") as file:
            if file.readline(len(_FORMAT)) != _FORMAT:
                return None
            header = json.loads(file.readline())
            if header["state"] != state:
                return None
            start = -(-file.tell() // _ALIGN) * _ALIGN
            if not _whole(file, start, header["bytes"], header["crc32"]):
                return None
        with suppress(OSError):
            os.utime(path)  # in use: not to be removed
        return _mapped(path, start, header)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _mapped(path: Path, start: int, header: dict[str, Any]) -> Index:
    content: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)
    if header["bytes"]:
        content = np.asarray(np.memmap(path, np.uint8, "r", offset=start, shape=(header["bytes"],)))
    arrays = {}
    for name in ARRAYS:
        kind, shape, offset = header["arrays"][name]
        dtype = np.dtype(kind)
        length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        arrays[name] = content[offset : offset + length].view(dtype).reshape(shape)
    names = {int(number): str(name) for number, name in header["names"]}
    return Index(names=names, problems=Problems(**header["problems"]), **arrays)


def _whole(file: BinaryIO, start: int, length: int, expected: int) -> bool:
    """Checks length and sum; reads, because mapped pages would count as memory of the process."""
    file.seek(start)
    total, left = 0, length
    while left > 0:
        block = file.read(min(left, _BLOCK))
        if not block:
            return False
        total, left = zlib.crc32(block, total), left - len(block)
    return total == expected and not file.read(1)


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _padded_tail(array: npt.NDArray[Any]) -> bytes:
    return b"\0" * (-array.nbytes % _ALIGN)


def _prune(folder: Path) -> None:
    """Removes what was not used for a long time, and what a killed process left half written."""
    now = time.time()
    for pattern, days in (("*.index", _KEPT_DAYS), ("*.lock", _KEPT_DAYS), ("*.part", 1)):
        for file in folder.glob(pattern):
            with suppress(OSError):
                if now - file.stat().st_mtime > days * 86400:
                    file.unlink()


def _noted(index: Index, folder: Path, error: OSError) -> Index:
    reason = error.strerror or type(error).__name__
    note = f"index not kept, the next start scans again: {folder} cannot be written ({reason})"
    return index.with_note(note)


def _idle() -> None:
    """Nobody waits."""


def _touch(lock: BinaryIO) -> None:
    with suppress(OSError):
        os.utime(lock.fileno() if os.utime in os.supports_fd else lock.name)


def _wait(lock: BinaryIO) -> bool:
    """Waits until no other process holds the lock; True when it is ours, or on disks that know no locks."""
    seen, since = 0, time.monotonic()
    while not take(lock):
        touched = os.fstat(lock.fileno()).st_mtime_ns
        if touched != seen:
            seen, since = touched, time.monotonic()
        if time.monotonic() - since > _PATIENCE:
            return False
        time.sleep(0.05)
    return True
