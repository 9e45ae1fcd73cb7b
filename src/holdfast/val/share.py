"""A validation that several ranks share: what each found, and how rank 0 puts it together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Protocol, TypeVar

from torch import Tensor

from holdfast.post.original import Found

T = TypeVar("T")


class Ranks(Protocol):
    """The processes that share a validation (`train.dist.Ranks`)."""

    rank: int
    world: int

    def gather(self, value: T) -> list[T]:
        """Returns the objects of all ranks, in their order, on rank 0; an empty list on the others."""

    def broadcast_object(self, value: T) -> T:
        """Returns the object of rank 0 on every rank."""


class Alone:
    """One process that does it all."""

    rank = 0
    world = 1

    def gather(self, value: T) -> list[T]:
        return [value]

    def broadcast_object(self, value: T) -> T:
        return value


@dataclass
class Part:
    """What one batch gave.

    Attributes:
        sums: (L, 3T) of the losses, as `losses.branch.sums_of` has them, on the CPU; empty without a loss.
        found: per image (dataset index, what was found on it in original pixels), on the CPU.
        unread: dataset index of each image that could not be read -> why.
    """

    sums: Tensor
    found: list[tuple[int, Found]]
    unread: dict[int, str] = field(default_factory=dict)


def in_order(ranks: Sequence[Sequence[Part]]) -> list[Part]:
    """Returns the parts of all ranks, each of which had every n-th batch, in the order of the batches."""
    return [part for row in zip_longest(*ranks) for part in row if part is not None]
