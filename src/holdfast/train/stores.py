"""What keeps the images of a run, for both splits and all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from holdfast.data.index import Index
from holdfast.data.reader import eval_rooms, train_rooms
from holdfast.data.storing import Opened, open_store
from holdfast.train.dist import Ranks
from holdfast.train.start import share_store


def open_stores(
    kind: Literal["off", "ram", "disk"],
    ranks: Ranks,
    train_index: Index,
    val_index: Index,
    *,
    sides: tuple[int, int],
    budget: float,
    folder: Path,
) -> tuple[Opened, Opened]:
    """Opens what keeps the images of both splits; training images get their share of the budget first.

    Args:
        kind: where images are kept.
        sides: largest input side of training and of validation.
        budget: share of the free memory or disk.
        folder: where "disk" keeps them.
    """
    train = open_store(kind, train_index, use="train", side=sides[0], budget=budget, folder=folder)
    val = open_store(
        kind, val_index, use="val", side=sides[1], budget=budget, folder=folder, promised=train.promised
    )
    rooms = train_rooms(train_index.sizes, sides[0]), eval_rooms(val_index.sizes, sides[1])
    return share_store(ranks, train, rooms[0]), share_store(ranks, val, rooms[1])
