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


def _shared_memory(pid: int) -> int:
    """Resident bytes of files in memory (Linux)."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return sum(1024 * int(line.split()[1]) for line in file if line.startswith("RssShmem"))


def memory_held() -> dict[str, int]:
    """Bytes held by the family: pages in common are counted once in "pss", once per process in the others."""
    full = [process.memory_full_info() for process in family()]
    return {
        "rss": sum(info.rss for info in full),
        "pss": sum(getattr(info, "pss", info.rss) for info in full),
        "shmem": sum(_shared_memory(process.pid) for process in family()),
        "processes": len(full),
    }
