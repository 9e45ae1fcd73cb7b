"""How ranks start as one: one memory for images, one decision on batch norm, one run after a restart."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from crew import together
from holdfast.data.cache import MemoryStore
from holdfast.data.storing import Opened
from holdfast.train.dist import Place, Ranks
from holdfast.train.resume import folder_of_launch, resume_path
from holdfast.train.start import norm_note, share_store, synchronises, threads_of

ROOMS = np.full(3, 300, np.int64)


def images(ranks: Ranks, shared: bool) -> tuple[bool, str, int]:
    """Rank 0 keeps an image; says whether this rank sees it, the note, and the bytes there is room for."""
    own = MemoryStore(ROOMS, 1 << 21)
    if not shared:
        type(own).address = property(lambda self: None)  # as where the system has no nameless files
    opened = share_store(ranks, Opened(own, "ram: all 3 images"), ROOMS)
    assert isinstance(opened.store, MemoryStore)
    if ranks.main:
        opened.store.put(1, (np.full((10, 10, 3), 7, np.uint8), 1.0, 1.0))
    ranks.barrier()
    read = opened.store.get(1)
    seen = read is not None and bool((read[0] == 7).all())
    ranks.barrier()
    opened.close()
    return seen, opened.note, opened.store.limit


@pytest.mark.skipif(sys.platform != "linux", reason="memory is shared through /proc")
def test_ranks_of_a_machine_keep_images_once() -> None:
    assert together(images, True) == [(True, "ram: all 3 images", 1 << 21)] * 2


def test_where_memory_cannot_be_shared_each_rank_keeps_its_share_and_says_so() -> None:
    first, second = together(images, False)
    assert (first[0], second[0]) == (True, False)
    assert first[1].endswith("; not shared between ranks, each keeps 1 MiB of its own")
    assert first[2] == second[2] == 1 << 20


def test_batch_norm_is_synchronised_where_shares_are_small_or_it_is_asked_for() -> None:
    one, two = Ranks.alone(), Ranks.alone()
    two.world = 2
    assert not synchronises(one, True, 4)
    assert synchronises(two, "auto", 15)
    assert not synchronises(two, "auto", 16)
    assert synchronises(two, True, 64)
    assert not synchronises(two, False, 4)
    assert norm_note(one, "auto", 4) == ""
    assert norm_note(one, True, 4) == "sync_bn does nothing, because there is one rank"
    why = "because 8 images of a rank at a time are few"
    assert norm_note(two, "auto", 8) == f"statistics over all 2 ranks, {why}"
    assert norm_note(two, False, 8).startswith("statistics over 8 images of each rank at a time")


def test_ranks_share_the_cores_of_their_machine() -> None:
    ranks = Ranks.alone()
    assert threads_of(ranks, 8, 4) == 8
    ranks.world, ranks.local_world = 2, 2
    assert threads_of(ranks, 8, 4) == 2
    assert threads_of(ranks, 1, 4) == 1


def test_a_restarted_launch_finds_its_own_run_and_no_other(tmp_path: Path) -> None:
    for name, launch in (("exp", "torchrun a"), ("exp2", "torchrun b"), ("exp3", None)):
        (tmp_path / name / "weights").mkdir(parents=True)
        (tmp_path / name / "manifest.json").write_text(json.dumps({"launch": launch} if launch else {}))
    again = Place(0, 2, 0, 2, restarts=1, launch="torchrun a")
    assert folder_of_launch(tmp_path, again) == tmp_path / "exp"
    assert resume_path(False, tmp_path, "exp", None, again) is None  # it has no checkpoint yet
    last = tmp_path / "exp" / "weights" / "last.pt"
    last.touch()
    assert resume_path(False, tmp_path, "exp", None, again) == last
    assert folder_of_launch(tmp_path, Place(0, 2, 0, 2, restarts=0, launch="torchrun a")) is None
    assert resume_path(False, tmp_path, "exp", None, Place()) is None
