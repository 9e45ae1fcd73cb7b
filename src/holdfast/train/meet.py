"""How the ranks of one attempt find each other in a store that may still hold what earlier attempts wrote.

torchrun keeps its store when it starts ranks again, and how often it did is counted by each machine for
itself. So nobody can know from outside what is old: each rank shows a fresh word, and rank 0 answers every
word with the name of this attempt until all ranks have taken it. What they write afterwards goes under that
name.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

_POLL = 0.02


def meet(rank: int, world: int, timeout: float) -> Store:
    """Returns the store of this attempt, the same on all ranks.

    Args:
        rank, world: as given by the environment, which also says where the store is.
        timeout: seconds to wait for the others.

    Raises:
        RuntimeError: the store cannot be reached, or not all ranks came in time.
    """
    patience = timedelta(seconds=timeout)
    store, _, _ = next(rendezvous("env://", rank, world, timeout=patience))
    store.set_timeout(patience)
    name = _answered(store, rank) if rank else _all_answered(store, world, timeout)
    return PrefixStore(name, store)


def _answered(store: Store, rank: int) -> str:
    """Shows a word, and returns the name that rank 0 answers it with."""
    word = uuid.uuid4().hex
    store.set(f"holdfast/word/{rank}", word)
    name = str(store.get(f"holdfast/answer/{word}").decode())  # waits for it
    store.set(f"{name}/taken/{rank}", "1")
    return name


def _all_answered(store: Store, world: int, timeout: float) -> str:
    """Answers words until all ranks have taken the name, and returns it."""
    name = f"holdfast/{uuid.uuid4().hex}"
    until = time.monotonic() + timeout
    answered: set[str] = set()
    missing = list(range(1, world))
    while missing:
        for rank in missing:
            shown = f"holdfast/word/{rank}"
            word = store.get(shown).decode() if store.check([shown]) else ""
            if word and word not in answered:
                store.set(f"holdfast/answer/{word}", name)
                answered.add(word)
        missing = [rank for rank in missing if not store.check([f"{name}/taken/{rank}"])]
        if missing and time.monotonic() > until:
            raise RuntimeError(f"rank {missing[0]} did not come")
        time.sleep(_POLL if missing else 0)
    return name
