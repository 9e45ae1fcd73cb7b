"""What follows when memory ran out in a step, or nearly did: smaller micro-batches, and larger ones later."""

from __future__ import annotations

from collections.abc import Callable

import torch

from holdfast.errors import OutOfMemory
from holdfast.memory.recover import free_memory, pressure
from holdfast.train.micro import MicroBatch

TRIES = 3  # with one image at a time, and of the update, before the run gives up


class Room:
    """Fits micro-batches to the memory there is.

    Args:
        micro: their size.
        device: whose memory it is.
        say: told when memory ran out and what follows.
    """

    def __init__(self, micro: MicroBatch, *, device: torch.device, say: Callable[[str], None]) -> None:
        self.micro = micro
        self.device = device
        self.say = say
        self._failures = 0  # in a row, with one image at a time
        self._retries = pressure(device)

    def give_way(self, failure: str, images: int) -> None:
        """Frees memory after it ran out and makes the micro-batch smaller.

        Raises:
            OutOfMemory: it has one image, and that was tried often enough.
        """
        free_memory(self.device)
        tried = max(stop - start for start, stop in self.micro.parts(images))
        if tried == 1:
            self._failures += 1
            if self._failures == TRIES:
                raise OutOfMemory(
                    f"Memory ran out {TRIES} times with one image at a time ({failure}).",
                    hint="Give the run more memory, or take a smaller --imgsz or model, or --ckpt.",
                )
        else:
            self.micro.shrink(tried)
        self.say(
            f"out of memory with {tried} images at a time ({failure}); doing the step again with "
            f"{min(self.micro.size or tried, tried)}, the batch stays as it is"
        )

    def quiet(self, images: int) -> None:
        """After a good step: gives way early where the allocator struggles, else may grow back."""
        self._failures = 0
        retries = pressure(self.device)
        struggles, self._retries = retries - self._retries, retries
        tried = max((stop - start for start, stop in self.micro.parts(images)), default=1)
        if struggles and tried > 1:
            self.micro.shrink(tried)
            self.say(
                f"the allocator had to make room {struggles} times in one step with {tried} images at a "
                f"time; going on with {self.micro.size}"
            )
        elif not struggles and (size := self.micro.calm()) is not None:
            self.say(f"memory has been enough for a while; trying {size} images at a time")
