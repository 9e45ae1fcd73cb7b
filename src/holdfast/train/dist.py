"""The ranks of a run: who they are, and what they tell each other.

Unusual: two groups. Decisions (counts, flags, objects) go over gloo between CPUs and wait for no device;
tensors go over the device's own group (nccl, or gloo for CPUs). `Ranks.alone()` is a run of one process, in
which every exchange is a no-op, so callers need no second path.

Every rank has to call the same exchanges in the same order. A rank that is gone or does not answer in time
ends the others by one `RankError`; whoever started them starts all of them again (launch.py).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from holdfast.errors import HoldfastError, RankError, SettingsError

T = TypeVar("T")

_BUCKET = 25 * 2**20  # bytes that travel at once: enough to fill the wire, little beside the activations
_SMALLEST = 2**20


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of its run.

    Attributes:
        rank: number among all, from 0.
        world: number of processes.
        local_rank: number among those of this machine.
        local_world: number of processes on this machine.
        restarts: how often torchrun has started them again.
        launch: what names this launch and its restarts, and no other; empty when there is no launcher.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    restarts: int = 0
    launch: str = ""


def place() -> Place:
    """Returns the place that torchrun, or `launch.py`, has given to this process by its environment.

    Raises:
        SettingsError: the environment names a rank, but not all that goes with it.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Place()
    rank, world = _number("RANK"), _number("WORLD_SIZE")
    local_rank = _number("LOCAL_RANK", rank)
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if name == "none":  # torchrun without an id: its process tells launches apart
        name = f"{socket.gethostname()} {os.getppid()}"
    elastic = "TORCHELASTIC_RESTART_COUNT" in os.environ
    return Place(
        rank,
        world,
        local_rank,
        _number("LOCAL_WORLD_SIZE", world),
        _number("TORCHELASTIC_RESTART_COUNT", 0),
        f"torchrun {name}" if elastic else "",
    )


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise SettingsError(
            f"The environment variable {name} is '{text}', expected a whole number.",
            hint="Start with torchrun, or unset RANK and WORLD_SIZE.",
        )
    return int(text)


class Ranks:
    """The processes of one run, seen from one of them.

    Args:
        place: where this process stands.
        timeout: seconds to wait for the others in any exchange.

    Raises:
        RankError: the others cannot be reached.
    """

    def __init__(self, place: Place, *, timeout: float) -> None:
        self.rank = place.rank
        self.world = place.world
        self.local_rank = place.local_rank
        self.local_world = place.local_world
        self.device = torch.device("cpu")
        self.timeout = timeout
        self._bucket: dict[torch.dtype, Tensor] = {}
        self._control: dist.ProcessGroup | None = None
        self._group: dist.ProcessGroup | None = None
        if self.world == 1:
            return
        with self._clear("meet the others"):
            dist.init_process_group(
                "gloo",
                init_method="env://",
                rank=self.rank,
                world_size=self.world,
                timeout=timedelta(seconds=timeout),
            )
        self._control = self._group = dist.group.WORLD

    def on(self, device: torch.device) -> Ranks:
        """Says where this rank's tensors are, on every rank at once; returns the object itself.

        Raises:
            RankError: the devices cannot reach each other.
        """
        self.device = device
        if self.world > 1 and device.type == "cuda":
            torch.cuda.set_device(device)
            with self._clear("connect its GPU with the others"):
                self._group = dist.new_group(
                    backend="nccl", timeout=timedelta(seconds=self.timeout), device_id=device
                )
        return self

    @classmethod
    def alone(cls) -> Ranks:
        """A run of one process."""
        return cls(Place(), timeout=0.0)

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes, prints and draws."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.world} on {socket.gethostname()}"

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their sums over all ranks.

        Args:
            tensors: on the device, of any shapes and types, the same on every rank. They travel in buckets,
                whose memory is taken at the first call and kept.

        Raises:
            RankError: a rank is gone, or no memory is left for the smallest bucket.
        """
        for flat, parts, views in self._buckets(tensors):
            torch._foreach_copy_(views, parts)
            with self._clear("sum gradients"):
                dist.all_reduce(flat, group=self._group)
            torch._foreach_copy_(parts, views)

    def spread_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by those of rank 0; arguments and errors as in `sum_`."""
        for flat, parts, views in self._buckets(tensors):
            torch._foreach_copy_(views, parts)
            with self._clear("spread weights"):
                dist.broadcast(flat, 0, group=self._group)
            torch._foreach_copy_(parts, views)

    def any(self, flag: bool) -> bool:
        """Tells whether a flag is up on at least one rank."""
        return bool(self.largest(int(flag)))

    def largest(self, number: int) -> int:
        """Returns the largest of the ranks' numbers."""
        if self.world == 1:
            return number
        value = torch.tensor(number, dtype=torch.int64)
        with self._clear("agree"):
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self._control)
        return int(value)

    def barrier(self) -> None:
        """Waits until all ranks are here."""
        self.largest(0)

    def broadcast_object(self, value: T) -> T:
        """Returns the object of rank 0 on every rank."""
        if self.world == 1:
            return value
        box = [value]
        with self._clear("hear from rank 0"):
            dist.broadcast_object_list(box, 0, group=self._control, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Returns the objects of all ranks, in their order, on rank 0; an empty list on the others."""
        if self.world == 1:
            return [value]
        found: list[Any] | None = [None] * self.world if self.main else None
        with self._clear("report to rank 0"):
            dist.gather_object(value, found, dst=0, group=self._control)
        return found or []

    def gather_all(self, value: T) -> list[T]:
        """Returns the objects of all ranks, in their order, on every rank."""
        return self.broadcast_object(self.gather(value))

    def from_main(self, make: Callable[[], T]) -> T:
        """Returns on every rank what `make` returns on rank 0, the only one that calls it.

        Raises:
            HoldfastError: raised there; on every rank.
        """
        if self.world == 1:
            return make()
        made: T | HoldfastError | None = None
        if self.main:
            try:
                made = make()
            except HoldfastError as error:
                made = error
        told = self.broadcast_object(made)
        if isinstance(told, HoldfastError):
            raise told
        return cast(T, told)

    def agree(self, facts: Mapping[str, object]) -> None:
        """Makes sure that all ranks stand on the same facts.

        Raises:
            SettingsError: on every rank, naming the fact and who says what.
        """
        told = self.gather_all({key: str(value) for key, value in facts.items()})
        for key, mine in told[0].items():
            for rank, other in enumerate(told):
                if other[key] != mine:
                    raise SettingsError(
                        f"The ranks of this run do not agree on the {key}: rank 0 has {mine}, rank {rank} "
                        f"has {other[key]}.",
                        hint="Start all of them with the same settings, data and versions.",
                    )

    def close(self) -> None:
        """Leaves the group, once all ranks are done."""
        if self._control is not None and dist.is_initialized():
            self.barrier()
            dist.destroy_process_group()
        self._control = self._group = None
        self._bucket.clear()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # else the others may be anywhere: nothing to wait for, the process will end
            self.close()

    def _buckets(
        self, tensors: Sequence[Tensor]
    ) -> Iterator[tuple[Tensor, list[Tensor], list[Tensor]]]:
        """Yields per bucket: one flat tensor, the parts of tensors that it carries, and its views of their
        shapes. All ranks see the same buckets, because shapes, types and the size of buckets are the same.
        """
        if self.world == 1:
            return
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor.detach())
        for kind, members in kinds.items():
            memory = self._memory(kind, sum(tensor.numel() for tensor in members))
            parts: list[Tensor] = []
            filled = 0
            for part in (piece for tensor in members for piece in _pieces(tensor, memory.numel())):
                if filled + part.numel() > memory.numel():
                    yield memory[:filled], parts, _views(memory, parts)
                    parts, filled = [], 0
                parts.append(part)
                filled += part.numel()
            if filled:
                yield memory[:filled], parts, _views(memory, parts)

    def _memory(self, kind: torch.dtype, wanted: int) -> Tensor:
        """The memory of buckets of a type. Its size is agreed on when it is taken: a rank that has less left
        makes all take less.
        """
        known = self._bucket.get(kind)
        size = min(max(wanted, 1), _BUCKET // kind.itemsize)
        if known is not None and known.numel() >= size:
            return known
        while True:
            memory = _try_empty(size, kind, self.device)
            if not self.any(memory is None):
                assert memory is not None
                self._bucket[kind] = memory
                return memory
            del memory
            if size * kind.itemsize <= _SMALLEST:
                raise RankError(
                    f"A rank has no {_SMALLEST >> 20} MiB of memory left to exchange tensors with others.",
                    hint="Leave more headroom, or use a smaller model or imgsz.",
                )
            size //= 2

    @contextmanager
    def _clear(self, purpose: str) -> Iterator[None]:
        """Turns what the backends raise about others into one error of ours."""
        began = time.monotonic()
        try:
            yield
        except RuntimeError as fault:  # torch.distributed's errors are; gloo raises it plain
            waited = time.monotonic() - began
            late = waited >= 0.95 * self.timeout
            why = f"one did not answer within {self.timeout:g} s" if late else "one of them has ended"
            raise RankError(
                f"Rank {self.rank} of {self.world} could not {purpose}: {why} ({_gist(fault)}).",
                hint="See what the other ranks said; --ddp-timeout sets how long to wait." if late else
                "See what the other ranks said.",
            ) from None


def _pieces(tensor: Tensor, limit: int) -> Iterator[Tensor]:
    """Cuts a tensor that is larger than a bucket along its first dimension."""
    if tensor.numel() <= limit:
        yield tensor
        return
    rows = limit // max(tensor[0].numel(), 1)
    if rows:
        yield from torch.split(tensor, rows)
        return
    for row in tensor:
        yield from _pieces(row, limit)


def _views(memory: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    lengths = [part.numel() for part in parts]
    pieces = torch.split(memory[: sum(lengths)], lengths)
    return [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)]


def _try_empty(size: int, kind: torch.dtype, device: torch.device) -> Tensor | None:
    try:
        return torch.empty(size, dtype=kind, device=device)
    except RuntimeError:  # out of memory, in whatever words
        return None


def _gist(fault: BaseException) -> str:
    """What a backend's message says: without the place in its source, and its first sentence."""
    text = str(fault).strip().split("\n")[0]
    if text.startswith("["):
        text = text.partition("] ")[2] or text
    return text.split(". ")[0].rstrip(".") or type(fault).__name__
