"""How the ranks of a run start as one: where they go on, what they share, and that they agree.

With one rank each function does what a run of one process needs, and no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from holdfast.data.cache import MemoryStore, Rooms
from holdfast.data.storing import Opened
from holdfast.devices import Device, choose_device, choose_device_of_rank
from holdfast.train.dist import Ranks

Say = Callable[[str], None]
FEW = 16  # images at a time under which batch statistics are too rough


def device_of(ranks: Ranks, wanted: str, say: Say) -> Device:
    """Chooses this rank's device, tells the ranks' group, and with several ranks says one line."""
    if ranks.world == 1:
        return choose_device(wanted)
    found = choose_device_of_rank(wanted, local_rank=ranks.local_rank, local_world=ranks.local_world)
    ranks.agree({"kind of device": found.device.type, "torch version": torch.__version__})
    ranks.on(found.device)
    say(f"{ranks}: {found.note}")
    return replace(found, note=f"{ranks.world} ranks, the first on {found.note}")


def threads_of(ranks: Ranks, threads: int, cores: int) -> int:
    """Returns the loader threads of this rank: as wanted, but not more than its share of the cores."""
    return min(threads, max(cores // ranks.local_world, 1)) if ranks.world > 1 else threads


def agree(ranks: Ranks, settings: Mapping[str, Any], facts: Mapping[str, object]) -> None:
    """Makes sure that all ranks have the same settings and stand on the same facts.

    Raises:
        SettingsError: they do not.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    ranks.agree({"settings": hashlib.sha256(text.encode()).hexdigest()[:12], **facts})


def spread(ranks: Ranks, *modules: nn.Module | None) -> None:
    """Gives every rank the weights and running statistics of rank 0."""
    for module in modules:
        if module is not None:
            ranks.spread_([*module.parameters(), *module.buffers()])


def synchronises(ranks: Ranks, wanted: bool | str, images: int) -> bool:
    """Decides whether batch norm takes its statistics over all ranks.

    Args:
        wanted: True, False, or `auto`, which does where fewer than 16 images are a micro-batch.
        images: images that go through the network of a rank at a time.
    """
    if ranks.world == 1 or wanted is False:
        return False
    return wanted is True or images < FEW


def norm_note(ranks: Ranks, wanted: bool | str, images: int) -> str:
    """One sentence on where statistics of batch norm come from; empty for one rank that was not asked."""
    if ranks.world == 1:
        return "sync_bn does nothing, because there is one rank" if wanted is True else ""
    if synchronises(ranks, wanted, images):
        why = f", because {images} images of a rank at a time are few" if wanted == "auto" else ""
        return f"statistics over all {ranks.world} ranks{why}"
    return f"statistics over {images} images of each rank at a time, averaged after each epoch"


def share_store(ranks: Ranks, opened: Opened, rooms: Rooms) -> Opened:
    """Lets the ranks of a machine keep images in one memory, that of the machine's first rank.

    Args:
        opened: what this rank opened by itself.
        rooms: most bytes of each image.

    Returns:
        The store to use. Where memory cannot be shared each rank keeps its own, no larger than its share,
        and the note says so.
    """
    if ranks.world == 1:
        return opened
    own = opened.store if isinstance(opened.store, MemoryStore) else None
    offers = ranks.gather_all(None if own is None else (own.address, own.limit))
    offer = offers[ranks.rank - ranks.local_rank]
    if own is None or offer is None or None in offers:  # the same on all ranks, as the next exchange must be
        return opened
    address, limit = offer
    joined, failed = own, False
    if ranks.local_rank:
        try:
            if address is None:
                raise OSError("memory is not shared here")
            joined = MemoryStore.join(address, rooms, limit)
        except OSError:
            failed = True
    if ranks.any(failed):
        for store in {id(own): own, id(joined): joined}.values():
            store.close()
        part = limit // ranks.local_world
        note = f"{opened.note}; not shared between ranks, each keeps {part / 2**20:.0f} MiB of its own"
        return replace(opened, store=MemoryStore(rooms, part), note=note)
    if joined is not own:
        own.close()
    return replace(opened, store=joined)
