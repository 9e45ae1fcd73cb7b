"""Ranks in step within one attempt, where synchronised batch norms exchange statistics in every pass.

All ranks make the same number of exchanges in an attempt: as many micro-batches as the rank that needs most,
so many exchanges each. A rank whose micro-batch is empty, or whose memory runs out, joins in those that are
left, and all learn at the end whether the attempt stands. Without an exchange each rank is on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from holdfast.nn.sync_norm import Exchange
from holdfast.train.dist import Ranks

T = TypeVar("T")


class Turns:
    """Counts the exchanges of attempts.

    Args:
        exchange: of the model's batch norms; None where they do not synchronise.
        ranks: the processes that share a step.
    """

    def __init__(self, exchange: Exchange | None, ranks: Ranks) -> None:
        self.exchange = exchange
        self.ranks = ranks
        self._forward = self._backward = 0
        self._each = 0

    @property
    def uncounted(self) -> bool:
        """Whether there is an exchange of which it is not known how often it is used."""
        return self.exchange is not None and not self._forward

    def count(self, forward: Callable[[], T], backward: Callable[[T], None]) -> None:
        """Learns how many exchanges a pass has, from one in which nothing is exchanged."""
        assert self.exchange is not None
        with self.exchange.counting() as ahead:
            result = forward()
        with self.exchange.counting() as back:
            backward(result)
        self._forward, self._backward = ahead[0], back[0]

    def parts(self, own: Sequence[tuple[int, int]], images: int) -> Sequence[tuple[int, int]]:
        """Returns (start, stop) of this rank's micro-batches: `own`, or as many as the others have."""
        if self.exchange is None:
            return own
        count = self.ranks.largest(len(own))
        return [(images * i // count, images * (i + 1) // count) for i in range(count)]

    def begin(self, parts: int, *, backward: bool) -> None:
        """Starts an attempt over so many micro-batches, forward only or with backward."""
        if self.exchange is not None:
            self._each = self._forward + (self._backward if backward else 0)
            self.exchange.begin(parts * self._each)

    def skip(self, left: int) -> None:
        """Joins in for an empty micro-batch, after which `left` are to come."""
        if self.exchange is not None:
            self.exchange.drain(failed=False, keep=left * self._each)

    def end(self, done: bool) -> bool:
        """Ends an attempt; returns whether it stands.

        Args:
            done: whether this rank has done its part.
        """
        if self.exchange is None:
            return done
        self.exchange.drain(failed=not done)
        return not self.exchange.any_failed()
