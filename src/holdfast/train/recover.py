"""Trying something that may run out of memory, and clearing up after it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from holdfast.train.oom import is_out_of_memory

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
