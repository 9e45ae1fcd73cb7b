"""Batches that are on a GPU before they are used: copied one ahead, on a stream of their own."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from holdfast.data.batch import Batch


def uploaded(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields batches whose images are on a CUDA device; all else stays on the host.

    The copy of a batch is begun before the batch before it is handed out, and runs beside the work on that
    one. Batches take their places in memory twice: the one in use and the next.

    Args:
        batches: images in page-locked memory; else the copies hold the program up.
        device: a CUDA device.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    before: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            images = batch.images.to(device, non_blocking=True)
        copied = stream.record_event()
        if before is not None:
            yield _arrived(*before)
        before = batch._replace(images=images), copied
    if before is not None:
        yield _arrived(*before)


def _arrived(batch: Batch, copied: torch.cuda.Event) -> Batch:
    """Has the current stream wait for a copy; its memory is not used again before that stream is through."""
    current = torch.cuda.current_stream(batch.images.device)
    current.wait_event(copied)
    batch.images.record_stream(current)
    return batch
