"""quarantine.csv."""

from __future__ import annotations

import csv
from pathlib import Path

from holdfast.train.quarantine import Case, Quarantine


def test_cases_are_written_once_and_left_out_from_their_epoch_on(tmp_path: Path) -> None:
    left: list[tuple[tuple[int, ...], int]] = []

    def leave_out(numbers: tuple[int, ...], *, start: int) -> None:
        left.append((numbers, start))

    quarantine = Quarantine(tmp_path / "quarantine.csv", leave_out=leave_out, say=print)
    assert quarantine.add(Case(7, "a, b.jpg", "the loss is not finite", 12, 2))
    assert not quarantine.add(Case(7, "a, b.jpg", "again", 13, 3))
    assert quarantine.add(Case(3, "dönüş.jpg", "cannot be read", 20, None))
    with (tmp_path / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["file", "reason", "step"],
            ["a, b.jpg", "the loss is not finite", "12"],
            ["dönüş.jpg", "cannot be read", "20"],
        ]
    assert left == [((7,), 2)]
    again = Quarantine(tmp_path / "resumed.csv", leave_out=leave_out, say=print)
    again.load_state(quarantine.state())
    assert left == [((7,), 2)] * 2
    assert again.cases == quarantine.cases
    assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "quarantine.csv").read_bytes()


def test_no_file_without_a_case_and_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "gone" / "quarantine.csv"
    quarantine = Quarantine(path, leave_out=lambda *_, **__: None, say=said.append)
    quarantine.load_state([])
    assert not said
    quarantine.add(Case(1, "a.jpg", "x", 1, 1))
    assert "training goes on" in said[0]
