"""Two downloads of one file take turns.

The notes beside a partial file (`NAME.part.json`) are locked while a process works on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from holdfast.locks import take


class Busy(Exception):
    """Another process holds the file and makes no progress."""


@contextmanager
def claim(target: Path, patience: float) -> Iterator[tuple[BinaryIO, bool]]:
    """Gives the open and locked notes of a download, and whether another process had to be waited for.

    Args:
        target: the file to be.
        patience: seconds to wait while the other process makes no progress.

    Raises:
        Busy: that long.
        OSError: the folder cannot be written to.
    """
    path, part = (target.with_name(f"{target.name}{suffix}") for suffix in (".part.json", ".part"))
    seen, since, waited = identity(part), time.monotonic(), False
    while True:
        notes = path.open("a+b")
        if take(notes) and _same(notes, path):
            break
        notes.close()
        waited = True
        if identity(part) != seen:
            seen, since = identity(part), time.monotonic()
        if time.monotonic() - since > patience:
            reason = f"another process is downloading it, without progress for {patience:.0f} s"
            raise Busy(reason)
        time.sleep(0.05)
    try:
        yield notes, waited
    finally:
        with suppress(OSError):  # Windows keeps open files
            if not part.exists() or not part.stat().st_size:
                part.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        notes.close()


def _same(file: BinaryIO, path: Path) -> bool:
    """False when the file was unlinked by the process that had the lock before."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def identity(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or grows; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
