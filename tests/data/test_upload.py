"""Batches that are copied to a GPU ahead of their use arrive whole, in order, one ahead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from holdfast.data.batch import Batch
from holdfast.data.upload import uploaded
from holdfast.geometry.targets import Targets

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
COUNT = 12


def batch(number: int) -> Batch:
    rows = torch.full((8, 256, 256, 3), number, dtype=torch.uint8).pin_memory()
    return Batch(rows.permute(0, 3, 1, 2), Targets.empty(), torch.tensor([number]), None, [])


def test_batches_arrive_in_order_while_the_device_is_busy() -> None:
    made: list[int] = []

    def make() -> Iterator[Batch]:
        for number in range(COUNT):
            made.append(number)
            yield batch(number)

    device = torch.device("cuda", torch.cuda.current_device())
    load, sums = torch.randn(2048, 2048, device=device), []
    for number, arrived in enumerate(uploaded(make(), device)):
        assert arrived.images.device == device
        assert arrived.images.is_contiguous(memory_format=torch.channels_last)
        assert len(made) == min(number + 2, COUNT)
        for _ in range(20):
            load = load @ load / 50  # the copy of the next batch has to wait for nothing of this
        sums.append(arrived.images.long().sum())
    assert torch.stack(sums).tolist() == [number * 8 * 256 * 256 * 3 for number in range(COUNT)]


def test_no_batch_gives_none() -> None:
    assert list(uploaded(iter(()), torch.device("cuda"))) == []
