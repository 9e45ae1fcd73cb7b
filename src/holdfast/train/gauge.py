"""What a run takes: memory of host and device, its peaks, and how busy the device is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from holdfast.data.host_memory import total_memory
from holdfast.health.records import Breakdown
from holdfast.memory.budget import held, reset_resident_peak, resident, resident_peak

BETWEEN = 5.0  # seconds between two looks at how busy a CUDA device is


@dataclass(frozen=True)
class Memory:
    """Bytes; None what the device does not tell. See `health.records.Epoch` for the meaning."""

    rss: int
    allocated: int | None
    reserved: int | None
    capacity: int | None


class Gauge:
    """Reads memory and work of one device; the work is that since `restart`.

    Args:
        device: where the run computes.
        cores: cores of this process, whose work counts on a CPU.
    """

    def __init__(self, device: torch.device, cores: int) -> None:
        self.device = device
        self.cores = max(cores, 1)
        self._process = psutil.Process()
        self._resets = True  # whether the peak is that since `restart`
        self._tells = device.type == "cuda"
        self.restart()

    def restart(self) -> None:
        """Lets peaks and work count from now on."""
        self._looks: list[float] = []
        self._began = self._looked = time.perf_counter()
        self._worked = self._seconds()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "cpu":
            self._resets = reset_resident_peak()

    def used(self) -> int:
        """Bytes to show: the peak on a CUDA device, what is held elsewhere."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else resident()

    def peak(self) -> int | None:
        """Most bytes in use since `restart`; None where this system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return resident_peak() if self.device.type == "cpu" and self._resets else None

    def memory(self) -> Memory:
        """Bytes held now."""
        rss = int(self._process.memory_info().rss)
        if self.device.type == "cuda":
            allocated, reserved = (
                torch.cuda.memory_allocated(self.device), torch.cuda.memory_reserved(self.device),
            )  # fmt: skip
            capacity = torch.cuda.get_device_properties(self.device).total_memory
            return Memory(rss, allocated, reserved, capacity)
        if self.device.type == "mps":
            return Memory(rss, held(self.device), None, None)
        return Memory(rss, None, None, total_memory())

    def look(self, now: float) -> None:
        """Looks how busy a CUDA device is, now and then.

        Args:
            now: `time.perf_counter()`.
        """
        if not self._tells or now - self._looked < BETWEEN:
            return
        self._looked = now
        try:
            self._looks.append(torch.cuda.utilization(self.device) / 100)
        except Exception:  # no such library, a driver or a partition of a card that does not tell
            self._tells = False

    def utilisation(self) -> float | None:
        """Share of the time since `restart` that the device, or the CPU's cores, worked; None if unknown."""
        if self.device.type == "cpu":
            spent = max(time.perf_counter() - self._began, 1e-9) * self.cores
            return min((self._seconds() - self._worked) / spent, 1.0)
        return sum(self._looks) / len(self._looks) if self._looks else None

    def _seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


def breakdown(
    model: nn.Module,
    optimizer: Optimizer,
    average: nn.Module | None,
    images: int,
    before: int,
    peak: int,
    val_peak: int,
) -> Breakdown:
    """Where the memory of a run goes; after a step, when the optimizer has its state.

    Args:
        images: bytes of the images of a micro-batch, as bytes and as numbers.
        before: bytes held before the first step, weights and average included.
        peak: most bytes in use during training.
        val_peak: the same during validation; 0 where there was none.
    """
    weights = _bytes([*model.parameters(), *model.buffers()])
    gradients = _bytes(p for p in model.parameters() if p.requires_grad)
    state = _bytes(x for kept in optimizer.state.values() for x in kept.values() if isinstance(x, Tensor))
    kept = 0 if average is None else _bytes([*average.parameters(), *average.buffers()])
    known = weights + gradients + state + kept + images
    other = max(min(before - weights - kept, peak - known), 0)  # a process may fill what it had freed before
    steady = weights + state + kept + other
    return Breakdown(
        weights=weights,
        gradients=gradients,
        state=state,
        average=kept,
        images=images,
        activations=max(peak - known - other, 0),
        validation=max(val_peak - steady, 0),
        other=other,
        peak=max(peak, val_peak),
    )


def image_bytes(images: int, side: int, dtype: torch.dtype) -> int:
    """Bytes of square images on a device: as they arrive, and as numbers of a type."""
    return 3 * images * side * side * (1 + dtype.itemsize)


def _bytes(tensors: Iterable[Any]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
