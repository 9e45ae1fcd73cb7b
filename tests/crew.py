"""Several ranks of a test on one machine: real processes that meet over the loopback device."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any

import torch

from holdfast.train.dist import Ranks, place

Work = Callable[..., Any]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun would set."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    }


def _one(
    work: Work, rank: int, world: int, port: int, timeout: float, given: tuple[Any, ...], found: Queue[Any]
) -> None:
    os.environ.update(environment(rank, world, port))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        with Ranks(place(), timeout=timeout) as ranks:
            found.put((rank, work(ranks, *given)))
    except Exception as error:
        found.put((rank, error))


def together(work: Work, *given: Any, world: int = 2, timeout: float = 30.0, awaited: int = -1) -> list[Any]:
    """Calls `work(ranks, *given)` on every rank; returns what each returned or raised, by rank.

    Args:
        world: number of ranks.
        timeout: seconds that ranks wait for each other.
        awaited: how many ranks will answer, the first ones; the others are killed then. All when negative.
    """
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    port = free_port()
    crew = [
        context.Process(target=_one, args=(work, rank, world, port, timeout, given, found), daemon=True)
        for rank in range(world)
    ]
    count = world if awaited < 0 else awaited
    for member in crew:
        member.start()
    try:
        answers = dict(found.get(timeout=120) for _ in range(count))
    finally:
        for member in crew:
            member.join(10 if awaited < 0 else 0)
            if member.is_alive():
                member.kill()
                member.join()
    return [answers[rank] for rank in range(count)]
