"""The cached index: opened when nothing changed, built again when anything did, never in the way."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from holdfast.data import index as index_module
from holdfast.data import index_cache
from holdfast.data.index import Index, build_index

NAMES = {0: "cat", 1: "dog"}


@pytest.fixture(autouse=True)
def _small_sets_are_cached_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "CACHE_FROM", 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images: outlines and boxes, a faulty row, a background."""
    rows = ["0 .1 .1 .5 .1 .5 .5\n1 .5 .5 .2 .2\n", "0 nan .5 .1 .1\n1 .5 .5 .3 .3\n", ""]
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number, text in enumerate(rows):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), np.zeros((40, 60, 3), np.uint8))
        (tmp_path / "labels" / f"{number}.txt").write_text(text)
    return tmp_path


def open_index(root: Path, **options: Any) -> tuple[Index, bool]:
    """The index through the cache, and whether it was scanned."""
    calls: list[int] = []
    index = build_index(
        [root / "images"],
        **{"names": NAMES, **options},
        cache=root / "cache",
        progress=lambda done, _: calls.append(done),
    )
    return index, bool(calls)


def same(one: Index, other: Index) -> bool:
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
        for a, b in ((getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    )


@pytest.mark.parametrize("options", [{}, {"keypoints": (2, 3)}, {"oriented": True}, {"single_cls": True}])
def test_what_is_opened_is_what_was_scanned(root: Path, options: dict[str, Any]) -> None:
    plain = build_index([root / "images"], names=NAMES, **options)
    (first, scanned), (second, again) = (open_index(root, **options) for _ in range(2))
    assert (scanned, again) == (True, False)
    assert same(plain, first)
    assert same(plain, second)
    assert plain.fingerprint == second.fingerprint
    assert second.problems.lines() == plain.problems.lines() != []
    assert not second.boxes.flags.writeable  # mapped
    assert type(second.boxes) is np.ndarray


def touch(path: Path) -> None:
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns + 1_000_000))


CHANGES = {
    "a label is edited": lambda root: (root / "labels" / "0.txt").write_text("0 .5 .5 .1 .1\n"),
    "a label is edited in the same length": lambda root: touch(root / "labels" / "0.txt"),
    "a label appears": lambda root: (root / "images" / "2.TXT").write_text("0 .5 .5 .1 .1\n"),
    "a label goes": lambda root: (root / "labels" / "1.txt").unlink(),
    "an image is replaced": lambda root: touch(root / "images" / "0.png"),
    "an image goes": lambda root: (root / "images" / "1.png").unlink(),
    "an image is renamed": lambda root: (root / "images" / "2.png").rename(root / "images" / "3.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_noticed(root: Path, change: str) -> None:
    open_index(root)
    if change == "a label appears":
        (root / "labels" / "2.txt").unlink()
        open_index(root)
    CHANGES[change](root)
    index, scanned = open_index(root)
    assert scanned
    assert same(index, build_index([root / "images"], names=NAMES))
    assert not open_index(root)[1]


def test_other_options_are_other_indices(root: Path) -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"names": {0: "cat", 1: "cow"}},
        {"single_cls": True},
        {"min_items": 1},
        {"fraction": 0.4},
        {"oriented": True},
    ]
    assert all(open_index(root, **options)[1] for options in variants)
    assert not any(open_index(root, **options)[1] for options in variants)
    assert open_index(root, names={0: "cat", 1: "cow"})[0].names[1] == "cow"


DAMAGE = {
    "cut short": lambda data: data[:-70],
    "longer": lambda data: data + b"\0",
    "one bit": lambda data: data[:-100] + bytes([data[-100] ^ 4]) + data[-99:],
    "no header": lambda data: data[: data.index(b"\n") + 1],
    "other header": lambda data: data.replace(b'"arrays"', b'"arrows"'),
    "empty": lambda data: b"",
    "another kind of file": lambda data: b"PK" + data,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_written_anew(root: Path, damage: str) -> None:
    index, _ = open_index(root)
    (file,) = (root / "cache").glob("*.index")
    broken = DAMAGE[damage](file.read_bytes())
    file.unlink()  # the open index keeps its own
    file.write_bytes(broken)
    again, scanned = open_index(root)
    assert scanned
    assert same(index, again)
    assert not open_index(root)[1]


def test_a_folder_that_cannot_be_written_is_a_note(root: Path) -> None:
    (root / "cache").write_text("a file where the folder should be")
    index, scanned = open_index(root)
    assert scanned
    assert len(index) == 3
    (note,) = index.notes
    assert "the next start scans again" in note
    assert str(root / "cache") in note


def test_a_full_disk_is_a_note(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    index, _ = open_index(root)
    assert "No space left on device" in index.notes[0]
    assert [file.suffix for file in (root / "cache").iterdir()] == [".lock"]  # no half-written file stays


def test_small_sets_leave_no_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "CACHE_FROM", 1000)
    assert open_index(root)[1]
    assert not (root / "cache").exists()


def test_nothing_is_written_beside_the_data(root: Path) -> None:
    before = sorted(root.rglob("*"))
    open_index(root)
    assert sorted(path for path in root.rglob("*") if "cache" not in path.parts) == before


def test_files_that_nobody_used_for_long_are_removed(root: Path) -> None:
    open_index(root)
    (file,) = (root / "cache").glob("*.index")
    long_ago = time.time() - 100 * 86400
    os.utime(file, (long_ago, long_ago))
    open_index(root, single_cls=True)
    assert len(list((root / "cache").glob("*.index"))) == 1
    os.utime(next((root / "cache").glob("*.index")), (long_ago, long_ago))
    assert not open_index(root, single_cls=True)[1]  # used again, so it is young
    open_index(root)
    assert len(list((root / "cache").glob("*.index"))) == 2


def _rank(root: Path, log: Path) -> None:
    index_module.CACHE_FROM = 1

    def progress(done: int, total: int) -> None:
        with log.open("a") as file:
            file.write("x")
        time.sleep(0.5)

    index = build_index([root / "images"], names=NAMES, cache=root / "cache", progress=progress)
    assert len(index) == 3


@pytest.mark.skipif(sys.platform == "win32", reason="ranks of this test are forked")
def test_of_several_ranks_one_scans_and_the_others_wait(root: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_rank, args=(root, root / "log")) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert (root / "log").read_text() == "x"


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_a_rank_without_progress_is_not_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    open_index(root)
    (root / "labels" / "0.txt").write_text("")
    (lock,) = (root / "cache").glob("*.lock")
    monkeypatch.setattr(index_cache, "_PATIENCE", 0.2)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert open_index(root)[1]
