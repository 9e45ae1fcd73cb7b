"""How much memory this process may still take: what the machine has free, the limits of its control groups
(both versions, and those of every group around its own), and a limit on its address space.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

_ROOT = Path("/sys/fs/cgroup")
_FILES = {  # version -> limit, use
    2: ("memory.max", "memory.current"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def free_memory() -> int:
    """Returns bytes of memory that this process may still take."""
    free = int(psutil.virtual_memory().available)
    for limit, used in groups():
        free = min(free, max(limit - used, 0))
    return min(free, _free_addresses(free))


def total_memory() -> int:
    """Returns bytes of memory the machine has, or the smallest control group around this process."""
    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in groups())])


def groups(root: Path = _ROOT, membership: Path = Path("/proc/self/cgroup")) -> Iterator[tuple[int, int]]:
    """Yields (limit, use) in bytes of the limited control groups this process is in, its own first.

    Pages of files that the kernel can drop at once do not count as used.

    Args:
        root: where the control groups are mounted.
        membership: file that says which groups they are.
    """
    for folder, version in _folders(root, membership):
        limit_file, used_file = _FILES[version]
        try:
            limit = int((folder / limit_file).read_text())
            used = int((folder / used_file).read_text())
            spare = dict(_pairs((folder / "memory.stat").read_text()))
        except (OSError, ValueError):  # no such group here, or "max": no limit
            continue
        yield limit, max(used - spare.get("total_inactive_file", spare.get("inactive_file", 0)), 0)


def _folders(root: Path, membership: Path) -> Iterator[tuple[Path, int]]:
    """Folders of the own group and those above it; inside a container only the last of them may exist."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, version = root, 2
        elif "memory" in controllers.split(","):
            base, version = root / "memory", 1
        else:
            continue
        folder = base / path.lstrip("/")
        yield folder, version
        while folder != base:
            folder = folder.parent
            yield folder, version


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal():
            yield name, int(value)


def _free_addresses(free: int) -> int:
    """What a limit on the address space (`ulimit -v`) leaves; `free` where there is none."""
    if sys.platform == "win32":
        return free
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return free
    return max(limit - int(psutil.Process().memory_info().vms), 0)
