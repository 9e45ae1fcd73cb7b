"""Trying something that may run out of memory, and clearing up after it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from holdfast.errors import OutOfMemory
from holdfast.memory.oom import is_out_of_memory

Result = TypeVar("Result")


def attempt(work: Callable[[], Result]) -> tuple[Result | None, str]:
    """Does `work` and returns its result, or None and the first line of the error when memory ran out.

    An exception holds the frames it went through, and these hold the tensors that filled the memory. It is
    gone when this function has returned, so the caller can free them.
    """
    try:
        return work(), ""
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None, str(error).strip().split("\n")[0] or type(error).__name__


class Pieces:
    """Does work that can be cut anywhere in pieces that fit into memory, and remembers what fitted.

    Args:
        most: items at a time.
        device: whose memory is freed between two tries.
        say: told when a piece did not fit.

    Attributes:
        most: items at a time now.
    """

    def __init__(
        self, most: int, *, device: torch.device, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.most = most
        self.device = device
        self.say = say

    def run(self, count: int, work: Callable[[int, int], Result]) -> list[Result]:
        """Does `work(start, stop)` over `count` items and returns the result of each piece.

        Raises:
            OutOfMemory: one item does not fit.
        """
        results: list[Result] = []
        done = 0
        while done < count:
            start, stop = done, min(done + self.most, count)
            result, failure = attempt(lambda: work(start, stop))  # noqa: B023
            if result is None:
                free_memory(self.device)
                if stop - start == 1:
                    raise OutOfMemory(
                        f"Memory ran out with one image ({failure}).",
                        hint="Free memory on this device, or take a smaller --imgsz or model.",
                    )
                self.most = (stop - start) // 2
                self.say(
                    f"out of memory with {stop - start} images at a time ({failure}); going on with "
                    f"{self.most}"
                )
            else:
                results.append(result)
                done = stop
        return results


def free_memory(device: torch.device) -> None:
    """Collects what nothing refers to and hands unused device memory back to the driver."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def pressure(device: torch.device) -> int:
    """How often the allocator of a CUDA device had to free what it had kept and ask again; 0 elsewhere."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.memory_stats_as_nested_dict(device).get("num_alloc_retries", 0))
