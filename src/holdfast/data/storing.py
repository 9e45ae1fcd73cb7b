"""Which store a run gets: what was asked, what there is room for, and the line that says so."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.data.cache import DiskStore, MemoryStore, cost, file_name, fingerprint
from holdfast.data.host_memory import free_memory
from holdfast.data.index import Index
from holdfast.data.reader import eval_rooms, train_rooms

_GIB = 2**30


@dataclass
class Opened:
    """A store and what it will take.

    Attributes:
        store: where images are kept; None when nothing is cached.
        note: what is cached, where and at what cost.
        promised: bytes it may still come to take.
    """

    store: MemoryStore | DiskStore | None
    note: str
    promised: int = 0

    def close(self) -> None:
        """Gives back what the store holds."""
        if self.store is not None:
            self.store.close()


def open_store(
    cache: Literal["off", "ram", "disk"],
    index: Index,
    *,
    use: Literal["train", "val"],
    side: int,
    budget: float,
    folder: Path,
    promised: int = 0,
) -> Opened:
    """Opens a store for the images of a split.

    Args:
        cache: "ram" keeps decoded images in memory, "disk" in a file, "off" not at all.
        index: the images.
        use: "train" for `TrainReader`, "val" for `EvalReader`, which keep different sizes.
        side: side of the network's input in pixels.
        budget: share of the free memory or disk that stores may take together.
        folder: where files go.
        promised: bytes that stores opened before may come to take.
    """
    if cache == "off":
        return Opened(None, "")
    rooms = (train_rooms if use == "train" else eval_rooms)(index.sizes, side)
    whole, count = cost(rooms), len(index)
    if cache == "ram":
        free = free_memory()
        room = max(int(budget * free) - promised, 0)
        store: MemoryStore | DiskStore = MemoryStore(rooms, room)
        where, held = "memory, one copy for all workers", 0
    else:
        path = folder / file_name(index, use, side)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free, held = shutil.disk_usage(folder).free, _allocated(path)
            room = max(int(budget * free) - promised, 0) + held
            store = DiskStore(path, fingerprint(index, use, side), rooms, room)
        except OSError as error:
            return Opened(None, f"off for {use} images: {folder} cannot be written ({error.strerror})")
        where = f"disk, {path}" + (f", {store.found:,} there already" if store.found else "")
    if store.kept == count:
        note = f"all {count:,} {use} images, {_size(whole)} of {_size(free)} free {where}"
    else:
        note = (
            f"{store.kept:,} of {count:,} {use} images, as all would take {_size(whole)} and cache_budget="
            f"{budget:g} of {_size(free)} free leaves {_size(room)} of {where}; the others are decoded anew"
        )
    return Opened(store, f"{cache}: {note}", max(int(store.starts[store.kept]) - held, 0))


def _allocated(path: Path) -> int:
    """Bytes a file takes on its disk, without the holes in it; 0 when it is missing."""
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return int(getattr(status, "st_blocks", 0)) * 512


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.0f} MiB"
