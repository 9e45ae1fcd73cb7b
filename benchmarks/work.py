"""What a process and its workers use: processor time and memory. Both sides have psutil."""

from __future__ import annotations

import time

import psutil


def family() -> list[psutil.Process]:
    """This process and those it started."""
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def cpu_seconds() -> float:
    """Processor time of the living family so far, and of children that ended and were waited for."""
    own = psutil.Process().cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for process in family()[1:]:
        times = process.cpu_times()
        total += times.user + times.system
    return total


def settle() -> None:
    """Waits until the family has stopped working."""
    before = -1.0
    while before < (now := cpu_seconds()):
        before = now
        time.sleep(0.1)


def memory_held() -> dict[str, int]:
    """Bytes held by the family: pages in common are counted once in "pss", once per process in "rss"."""
    full = [process.memory_full_info() for process in family()]
    return {
        "rss": sum(info.rss for info in full),
        "pss": sum(getattr(info, "pss", info.rss) for info in full),
        "shared": sum(info.shared for info in full),
        "processes": len(full),
    }
