"""What a run remembers of its data set, and what it says has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from holdfast.data.index import build_index
from holdfast.data.index_arrays import Index
from holdfast.data.listing import differences, listing, pack, unpack


def images(folder: Path, count: int) -> Path:
    for number in range(count):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "labels").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "images" / f"{number}.png")
        (folder / "labels" / f"{number}.txt").write_text(f"0 0.5 0.5 0.{number + 1} 0.2\n")
    return folder


def read(folder: Path) -> Index:
    return build_index([folder / "images"], names={0: "a"}, workers=1)


def test_an_unchanged_data_set_has_no_differences(tmp_path: Path) -> None:
    index = read(images(tmp_path, 5))
    kept = unpack(pack({"train": index, "val": index}))
    assert kept["train"].paths == [f"{number}.png".encode() for number in range(5)]
    assert differences(kept["val"], listing(index)) == []


def test_changes_are_counted_and_named(tmp_path: Path) -> None:
    images(tmp_path, 6)
    before = unpack(pack({"train": read(tmp_path)}))["train"]
    (tmp_path / "images" / "0.png").unlink()
    (tmp_path / "labels" / "1.txt").write_text("0 0.5 0.5 0.25 0.2\n")
    (tmp_path / "labels" / "2.txt").write_text("")
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "images" / "3.png")
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "images" / "new.png")
    assert differences(before, listing(read(tmp_path))) == [
        "1 added (new.png)",
        "1 removed (0.png)",
        "1 of another size (3.png)",
        "2 with other labels (1.png, 2.png)",
    ]


def test_a_data_set_that_moved_is_otherwise_the_same(tmp_path: Path) -> None:
    before = listing(read(images(tmp_path / "here", 3)))
    shutil.move(tmp_path / "here", tmp_path / "there")
    now = listing(read(tmp_path / "there"))
    assert differences(before, now) == [f"moved from {tmp_path}/here/images/ to {tmp_path}/there/images/"]


def test_an_image_in_a_new_folder_is_one_that_was_added(tmp_path: Path) -> None:
    images(tmp_path, 4)
    for kind in ("images", "labels"):
        (tmp_path / kind / "deep").mkdir()
        for file in list((tmp_path / kind).glob("[012].*")):
            file.rename(tmp_path / kind / "deep" / file.name)
    deep = build_index([tmp_path / "images" / "deep"], names={0: "a"}, workers=1)
    assert differences(listing(deep), listing(read(tmp_path))) == [f"1 added ({tmp_path}/images/3.png)"]


def test_a_damaged_listing_is_none(tmp_path: Path) -> None:
    data = pack({"train": read(images(tmp_path, 3))})
    assert unpack(data[: len(data) // 2]) == {}
    assert unpack(b"") == {}
