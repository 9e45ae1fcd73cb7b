"""Checkpoints are written in the background, whole or not at all, and a disk that refuses stops nothing."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.errors import CheckpointError
from holdfast.train.checkpoint import write
from holdfast.train.saver import Saver
from holdfast.weights.digest import digest, is_intact


def content(number: float) -> dict[str, Any]:
    return {"weights": {"a": torch.full((50, 3), number), "b": torch.tensor(3)}, "progress": {"step": 7}}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_newest_snapshot_is_on_disk_after_a_flush_and_the_one_before_is_kept(tmp_path: Path) -> None:
    saver = Saver(tmp_path, every=0, say=print)
    for number in range(3):
        saver.put("last.pt", content(number), keep_previous=True)
        saver.flush()
    saver.close()
    assert read(tmp_path / "last.pt")["weights"]["a"][0, 0] == 2
    assert read(tmp_path / "last.previous.pt")["weights"]["a"][0, 0] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.previous.pt", "last.pt"]


def test_a_folder_that_vanished_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    saver = Saver(folder, every=0, say=print)
    saver.put("last.pt", content(1))
    saver.flush()
    shutil.rmtree(folder)
    saver.put("last.pt", content(2))
    saver.flush()
    saver.close()
    assert read(folder / "last.pt")["weights"]["a"][0, 0] == 2


def test_what_cannot_be_written_is_said_once_and_written_when_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.write_text("a file where the folder should be")
    said: list[str] = []
    saver = Saver(folder, every=0, say=said.append, patience=0.05)
    saver.put("last.pt", content(1))
    wait_until(lambda: said)
    time.sleep(0.3)  # several tries
    assert len(said) == 1
    assert "training goes on" in said[0]
    folder.unlink()
    saver.flush()
    saver.close()
    assert read(folder / "last.pt")["weights"]["a"][0, 0] == 1
    assert said[1].endswith("could be written again")


def test_a_run_that_ends_without_a_place_to_write_says_where_its_files_are(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.write_text("in the way")
    saver = Saver(folder, every=0, say=print, patience=0.05)
    saver.put("last.pt", content(4))
    with pytest.raises(CheckpointError, match="the files are in") as caught:
        saver.flush()
    saver.close()
    elsewhere = Path(str(caught.value).partition("the files are in ")[2].partition(" instead")[0])
    assert read(elsewhere / "last.pt")["weights"]["a"][0, 0] == 4
    shutil.rmtree(elsewhere)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("rows", [1, 200_000])  # fits into the file's buffer, or fails in its middle
def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, rows: int) -> None:
    write(tmp_path / "last.pt", content(1), keep_previous=True)
    (tmp_path / ".last.pt.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="[Nn]o space"):
        write(tmp_path / "last.pt", {"weights": torch.zeros(rows, 3)}, keep_previous=True)
    assert read(tmp_path / "last.pt")["weights"]["a"][0, 0] == 1


def test_saves_in_mid_epoch_are_due_by_time(tmp_path: Path) -> None:
    saver = Saver(tmp_path, every=0.05, say=print)
    assert not saver.due()
    wait_until(saver.due)
    saver.put("last.pt", content(1))
    saver.flush()
    assert not Saver(tmp_path, every=0, say=print).due()
    saver.close()


def test_a_digest_sees_every_change(tmp_path: Path) -> None:
    whole = content(1.0)
    whole["digest"] = digest(whole)
    assert is_intact(whole)
    assert is_intact({"from": "an older version"})
    layout = {**whole, "weights": {k: v.t().contiguous().t() if v.ndim else v for k, v in
                                   whole["weights"].items()}}  # fmt: skip
    assert is_intact(layout)  # strides are no content
    whole["weights"]["a"][3, 1] = 1.0000001
    assert not is_intact(whole)
    whole["weights"]["a"][3, 1] = 1.0
    whole["progress"]["step"] = 8
    assert not is_intact(whole)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_said_and_the_thread_lives_on(tmp_path: Path) -> None:
    part = tmp_path / ".last.pt.part"
    part.symlink_to("/dev/full")
    said: list[str] = []
    saver = Saver(tmp_path, every=0, say=said.append, patience=0.05)
    saver.put("last.pt", {"weights": torch.zeros(200_000, 3)})
    saver.flush()  # the failed write has removed the link, as it removes parts of files
    saver.close()
    assert "No space left" in said[0]
    assert len(read(tmp_path / "last.pt")["weights"]) == 200_000
