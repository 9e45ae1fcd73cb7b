"""Ranks over gloo: what they sum, agree on and tell each other, and how the loss of one ends the others."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from torch import Tensor

import holdfast.train.dist as under_test
from crew import together
from holdfast.errors import RankError, SettingsError
from holdfast.train.dist import Place, Ranks, place


def sums(ranks: Ranks) -> list[Tensor]:
    under_test._BUCKET = 4096  # bytes: several buckets, and one tensor that is cut
    under_test._SMALLEST = 64
    own = torch.Generator().manual_seed(ranks.rank)
    tensors = [
        torch.randn(8, 3, 3, 3, generator=own).contiguous(memory_format=torch.channels_last),
        torch.randn((), generator=own),
        torch.randn(40, 70, generator=own),
        torch.randn(5, generator=own, dtype=torch.float64),
        torch.tensor([ranks.rank + 1]),
        torch.randn(0),
    ]
    ranks.sum_(tensors)
    return tensors


def expected_sums() -> list[Tensor]:
    return [a + b for a, b in zip(*(sums(_fake(rank)) for rank in range(2)), strict=True)]


def _fake(rank: int) -> Ranks:
    ranks = Ranks.alone()
    ranks.rank = rank
    return ranks


def conversation(ranks: Ranks) -> dict[str, Any]:
    weights = [torch.full((3,), float(ranks.rank)), torch.tensor([7 * ranks.rank])]
    ranks.spread_(weights)
    ranks.barrier()
    return {
        "any": [ranks.any(False), ranks.any(ranks.rank == 1)],
        "largest": ranks.largest(10 * ranks.rank),
        "said": ranks.broadcast_object({"from": ranks.rank}),
        "gathered": ranks.gather(f"r{ranks.rank}"),
        "all": ranks.gather_all(ranks.rank),
        "weights": weights,
        "line": str(ranks),
        "sums": sums(ranks),
    }


def test_two_ranks_sum_and_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_BUCKET", 4096)
    monkeypatch.setattr(under_test, "_SMALLEST", 64)
    first, second = together(conversation)
    for answer in (first, second):
        assert answer["any"] == [False, True]
        assert answer["largest"] == 10
        assert answer["said"] == {"from": 0}
        assert answer["all"] == [0, 1]
        assert answer["weights"][0].tolist() == [0, 0, 0]
        assert answer["weights"][1].tolist() == [0]
        assert all(torch.equal(a, b) for a, b in zip(answer["sums"], expected_sums(), strict=True))
    assert (first["gathered"], second["gathered"]) == (["r0", "r1"], [])
    assert first["line"].startswith("rank 0 of 2 on ")


def short_of_memory(ranks: Ranks) -> tuple[int, float]:
    take = under_test._try_empty

    def starved(size: int, kind: torch.dtype, device: torch.device) -> Tensor | None:
        return None if ranks.rank == 1 and size * kind.itemsize > 2**21 else take(size, kind, device)

    under_test._try_empty = starved
    tensor = torch.ones(2**21)  # 8 MiB
    ranks.sum_([tensor])
    return ranks._bucket[torch.float32].numel(), float(tensor.sum())


def test_a_rank_that_is_short_of_memory_makes_all_take_smaller_buckets() -> None:
    assert together(short_of_memory) == [(2**19, 2.0**22)] * 2


def disagree(ranks: Ranks) -> None:
    ranks.agree({"torch version": "2", "images": 10 + ranks.rank})


def test_ranks_that_do_not_agree_say_on_what() -> None:
    for error in together(disagree):
        assert isinstance(error, SettingsError)
        assert "agree on the images: rank 0 has 10, rank 1 has 11" in str(error)


def die(ranks: Ranks) -> None:
    ranks.barrier()
    if ranks.rank == 1:
        os._exit(9)
    ranks.sum_([torch.ones(4)])


def hang(ranks: Ranks) -> None:
    ranks.barrier()
    if ranks.rank == 1:
        signal.pause()
    ranks.barrier()


def test_a_dead_rank_is_one_clear_error_for_the_others() -> None:
    (error,) = together(die, awaited=1)
    assert isinstance(error, RankError)
    assert str(error).startswith("Rank 0 of 2 could not ")
    assert "one of them has ended (Connection closed by peer" in str(error)
    assert "\n" not in str(error)


def test_a_silent_rank_is_one_clear_error_after_the_timeout() -> None:
    (error,) = together(hang, timeout=3.0, awaited=1)
    assert isinstance(error, RankError)
    assert "one did not answer within 3 s" in str(error)
    assert "--ddp-timeout" in error.hint


def test_one_process_needs_nobody() -> None:
    ranks = Ranks.alone()
    tensor = torch.ones(3)
    ranks.sum_([tensor])
    ranks.spread_([tensor])
    ranks.barrier()
    ranks.agree({"images": 3})
    assert tensor.tolist() == [1, 1, 1]
    assert (ranks.any(True), ranks.largest(3), ranks.gather("x"), ranks.main) == (True, 3, ["x"], True)


def test_the_environment_of_torchrun_gives_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TORCHELASTIC", "RANK", "WORLD_SIZE", "LOCAL_")):
            monkeypatch.delenv(name)
    assert place() == Place()
    values = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    values |= {"TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_RUN_ID": "job7"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert place() == Place(5, 8, 1, 4, 2, "torchrun job7")
    monkeypatch.setenv("RANK", "x")
    with pytest.raises(SettingsError, match="variable RANK is 'x'"):
        place()
