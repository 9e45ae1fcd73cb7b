"""Memory in numbers: what a run may hold, what it holds now, and the most it held during some work.

On a CPU the quantity is resident memory. Its peak is the kernel's own (VmHWM), which Linux lets a process
reset; elsewhere a thread looks every few milliseconds. On a CUDA device it is what the allocator has handed
out; a limit set by `torch.cuda.set_per_process_memory_fraction` counts.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil
import torch
from typing_extensions import Self

from holdfast.data.host_memory import free_memory, total_memory
from holdfast.errors import SettingsError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LIMIT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:(%)|([KMGT])(I?)B?)", re.IGNORECASE)
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_LOOK = 0.002  # seconds between two looks, where the kernel keeps no peak


@dataclass(frozen=True)
class Limit:
    """What `memory_limit` says: bytes, or a share of the memory there is; one of them is None."""

    bytes: int | None = None
    share: float | None = None


def parse_limit(text: str) -> Limit | None:
    """Reads `8GB` (10^9), `8GiB` (2^30), `500MB` or `75%`; None where nothing is said.

    Raises:
        SettingsError: another text, or nothing left to use.
    """
    if not text.strip():
        return None
    found = _LIMIT.fullmatch(text.strip())
    if found is None:
        raise SettingsError(
            f"memory_limit={text} is no amount of memory.",
            hint="Write a number with its unit such as 8GB, 8GiB or 500MB, or a share such as 75%.",
        )
    number, percent, unit, binary = found.groups()
    value = float(number)
    if value <= 0 or (percent and value > 100):
        raise SettingsError(f"memory_limit={text} is out of range.", hint="Expected above 0, up to 100%.")
    if percent:
        return Limit(share=value / 100)
    return Limit(bytes=int(value * (_BINARY if binary else _UNITS)[unit.upper()]))


@dataclass(frozen=True)
class Budget:
    """What a run may hold.

    Attributes:
        most: bytes, all together: what the process holds already is part of it.
        headroom: bytes of these that stay free.
        note: where the number comes from.
    """

    most: int
    headroom: int
    note: str

    @property
    def usable(self) -> int:
        """Bytes that a plan may fill."""
        return self.most - self.headroom


def budget(device: torch.device, *, limit: Limit | None, headroom: float, sharing: int = 1) -> Budget:
    """What this process may hold on a device now.

    Args:
        device: where the run computes.
        limit: what the user allows; None leaves the free memory.
        headroom: share that stays free, in [0, 1).
        sharing: processes like this one that share the device's memory in equal parts.
    """
    there, total, name = _offered(device, sharing)
    most, note = there, f"{size(there)} free or held on {name}"
    asked = None if limit is None else limit.bytes or int((limit.share or 0) * total)
    if asked is not None:
        most, note = asked, f"memory_limit {size(asked)}"
        if there < asked:
            most = there
            note = f"{size(there)} free or held on {name}, less than memory_limit {size(asked)}"
    return Budget(most, int(headroom * most), note)


def _offered(device: torch.device, sharing: int) -> tuple[int, int, str]:
    """Bytes this process may come to hold, bytes there are in all, and what to call the place."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        cap = int(torch.cuda.get_per_process_memory_fraction(device) * total)
        return min(free // sharing + torch.cuda.memory_reserved(device), cap), total, str(device)
    if device.type == "mps":
        total = int(torch.mps.recommended_max_memory())
        return total, total, "the MPS device"
    return resident() + free_memory() // sharing, total_memory(), "this machine"


def size(count: float) -> str:
    """Bytes for people: `6.2 GiB`, `812 MiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def resident() -> int:
    """Resident bytes of this process."""
    return int(psutil.Process().memory_info().rss)


def held(device: torch.device) -> int:
    """Bytes this process holds on a device: resident memory, or what the allocator has handed out."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return resident()


def give_back(device: torch.device) -> None:
    """Hands memory that nothing uses any more back to the system, as far as it goes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    else:
        trim()


def trim() -> None:
    """Hands the pages of freed memory that the C library keeps back to the system, where it knows how to."""
    if sys.platform == "linux":
        of_glibc = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if of_glibc is not None:
            of_glibc(0)


class Peak:
    """Measures the most memory that is held while the block runs.

    Attributes:
        start: bytes held when the block began.
        most: most bytes held in it; known when it has ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = self.most = 0
        self._watch: _Watch | None = None

    @property
    def grown(self) -> int:
        """Bytes by which the peak lies above the start."""
        return max(self.most - self.start, 0)

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "cpu" and not reset_resident_peak():
            self._watch = _Watch()
        self.start = held(self.device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.most = torch.cuda.max_memory_allocated(self.device)
        elif self.device.type == "mps":
            self.most = held(self.device)  # the driver keeps what it was given until it is emptied
        elif self._watch is not None:
            self.most = self._watch.stop()
        else:
            self.most = resident_peak()
        self.most = max(self.most, self.start)


def reset_resident_peak() -> bool:
    """Lets the kernel measure the peak of this process anew; False where it cannot."""
    try:
        _RESET.write_text("5")
        return resident_peak() <= resident() + 16 * 2**20  # some systems take the word and do nothing
    except (OSError, KeyError):
        return False


def resident_peak() -> int:
    """Most resident bytes since the start of the process, or since the last reset.

    Raises:
        KeyError: this system does not say.
        OSError: it has no such file.
    """
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return 1024 * int(fields["VmHWM"].split()[0])


class _Watch:
    """A thread that remembers the greatest resident size it saw."""

    def __init__(self) -> None:
        self._most = resident()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._end.wait(_LOOK):
            self._most = max(self._most, resident())

    def stop(self) -> int:
        self._end.set()
        self._thread.join()
        return max(self._most, resident())
