"""How often the kernel has ended a process of this machine for want of memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_COUNTERS = Path("/proc/vmstat")


def oom_kills() -> int:
    """Returns the kernel's count since it started; 0 where it keeps none."""
    with suppress(OSError, ValueError):
        for line in _COUNTERS.read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0
