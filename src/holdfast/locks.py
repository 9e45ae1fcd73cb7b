"""Files as locks. The system ends a lock with its process, also with a killed one, so nothing stale can keep
the next one out.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class Held(Exception):
    """Another process holds the lock; its text says which, where that is known."""


def take(file: BinaryIO) -> bool:
    """Locks an open file until it is closed; False where another process has. Goes without on disks that know
    no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # far behind the content, which stays readable
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        return fault.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


@contextmanager
def sole(path: Path) -> Iterator[None]:
    """Holds a lock in a file that names its process. Goes without where the file cannot be written.

    Raises:
        Held: another process has it.
    """
    try:
        file = path.open("a+b")
    except OSError:
        yield
        return
    with file:
        if not take(file):
            raise Held(path.read_text(encoding="utf-8", errors="replace"))
        with suppress(OSError):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}".encode())
            file.flush()
        yield
