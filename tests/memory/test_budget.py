"""Limits are read as written, budgets keep within them, and peaks are those that were there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from holdfast.errors import SettingsError
from holdfast.memory import budget as module
from holdfast.memory.budget import Limit, Peak, budget, give_back, parse_limit, resident

CPU = torch.device("cpu")
MIB = 2**20


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8GB", Limit(bytes=8 * 10**9)),
        ("8 gib", Limit(bytes=8 * 2**30)),
        ("8G", Limit(bytes=8 * 10**9)),
        ("500MB", Limit(bytes=500 * 10**6)),
        ("1.5GiB", Limit(bytes=3 * 2**29)),
        (".5T", Limit(bytes=5 * 10**11)),
        ("75%", Limit(share=0.75)),
        ("", None),
    ],
)
def test_amounts_of_memory(text: str, meant: Limit | None) -> None:
    assert parse_limit(text) == meant


@pytest.mark.parametrize("text", ["8", "8 gigs", "0GB", "0%", "101%", "-3GB", "GB", "75 %%", "8GB8"])
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match="memory_limit"):
        parse_limit(text)


def test_a_budget_is_the_limit_or_what_is_there() -> None:
    free = budget(CPU, limit=None, headroom=0.1)
    assert free.most > resident()
    assert free.usable == free.most - int(0.1 * free.most)
    assert "free" in free.note
    small = budget(CPU, limit=Limit(bytes=700 * MIB), headroom=0.0)
    assert (small.most, small.usable) == (700 * MIB, 700 * MIB)
    assert small.note == "memory_limit 700 MiB"
    large = budget(CPU, limit=Limit(bytes=2**60), headroom=0.0)
    assert large.most < 2**50
    assert "less than memory_limit" in large.note


def test_processes_that_share_a_machine_get_equal_parts() -> None:
    alone = budget(CPU, limit=None, headroom=0.0).most - resident()
    shared = budget(CPU, limit=None, headroom=0.0, sharing=4).most - resident()
    assert shared == pytest.approx(alone / 4, rel=0.2)  # others take and free memory meanwhile


def work() -> None:
    """Holds 96 MiB for a moment, then 32 MiB."""
    torch.full((96 * MIB,), 1, dtype=torch.uint8)
    torch.full((32 * MIB,), 1, dtype=torch.uint8)


def test_a_peak_that_is_over_is_seen_and_an_earlier_one_is_not() -> None:
    torch.full((256 * MIB,), 1, dtype=torch.uint8)
    give_back(CPU)
    with Peak(CPU) as peak:
        work()
    assert peak.grown == pytest.approx(96 * MIB, abs=8 * MIB)
    assert peak.most == peak.start + peak.grown


def test_where_the_kernel_keeps_no_peak_a_thread_finds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_RESET", tmp_path / "absent" / "clear_refs")
    with Peak(CPU) as peak:
        for _ in range(5):
            work()
    assert peak.grown == pytest.approx(96 * MIB, abs=16 * MIB)
