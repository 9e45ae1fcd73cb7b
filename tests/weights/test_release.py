"""Released files: the table, finding a file where it is, and what is said where it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.errors import SettingsError, WeightsError
from holdfast.weights.release import RELEASES, Release, find, locate


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.stem)
def test_every_row_is_complete_and_plausible(release: Release) -> None:
    assert re.fullmatch(r"[a-z0-9-]+\.pt", release.name)
    assert release.licence == ("GPL-3.0" if release.repository.startswith("WongKinYiu/") else "AGPL-3.0")
    assert release.url() == (
        f"https://github.com/{release.repository}/releases/download/{release.tag}/{release.name}"
    )
    assert release.url("http://mirror/weights/") == f"http://mirror/weights/{release.name}"
    assert (release.sha256 is None) == (release.size is None)
    assert release.sha256 is None or re.fullmatch("[0-9a-f]{64}", release.sha256)
    assert find(release.name) is find(release.stem) is release


def test_no_file_and_no_checksum_stands_twice() -> None:
    names = [release.name for release in RELEASES]
    sums = [release.sha256 for release in RELEASES if release.sha256]
    assert len(set(names)) == len(names) == 23
    assert len(set(sums)) == len(sums) == 5


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("yolo26", "Did you mean 'yolo26"),
        ("yolo26-n.pt", "Did you mean 'yolo26n'?"),
        ("yolov9-t", "Did you mean 'yolov9-t-converted'?"),  # the t is released in that form only
        ("../yolo26n.pt", "Released files are yolo26n, "),
        ("", "Released files are yolo26n, "),
    ],
)
def test_other_names_are_refused_with_the_nearest_one(name: str, near: str) -> None:
    with pytest.raises(SettingsError) as caught:
        find(name)
    assert near in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_path_as_given_comes_before_the_folder_of_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, here = tmp_path / "cache", tmp_path / "here"
    for folder in (cache, here):
        folder.mkdir()
        (folder / "yolo26n.pt").write_bytes(b"")
    monkeypatch.chdir(here)
    assert locate("yolo26n.pt", cache) == "yolo26n.pt"
    (here / "yolo26n.pt").unlink()
    assert locate("yolo26n.pt", cache) == locate(Path("yolo26n.pt"), cache) == cache / "yolo26n.pt"


@pytest.mark.parametrize(
    "source", ["yolo26n", "yolov9-s.yaml", "best.pt", "runs/best.pt", "", "a.safetensors", Path("none.pt")]
)
def test_model_names_and_files_nobody_released_are_left_to_the_loader(
    source: str | Path, tmp_path: Path
) -> None:
    assert locate(source, tmp_path) is source


def test_a_file_put_into_the_folder_by_hand_is_found_by_its_bare_name_only(tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(b"")
    assert locate("mine.pt", tmp_path) == tmp_path / "mine.pt"
    assert locate("sub/mine.pt", tmp_path) == "sub/mine.pt"
    assert locate("../mine.pt", tmp_path / "other") == "../mine.pt"


def test_a_missing_released_file_says_where_it_was_looked_for_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        locate("yolo26n.pt", tmp_path)
    assert str(caught.value) == (
        f"There is no weight file 'yolo26n.pt', neither here nor in {tmp_path}, and nothing is downloaded "
        "unasked. Run 'holdfast download yolo26n' (licence AGPL-3.0), or put "
        f"https://github.com/ultralytics/assets/releases/download/v8.4.0/yolo26n.pt into {tmp_path} by hand."
    )


def test_a_missing_released_file_in_a_folder_is_to_be_put_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        locate("weights/gelan-c.pt", tmp_path)
    assert "'holdfast download gelan-c --folder weights' (licence GPL-3.0)" in str(caught.value)
    assert "into weights by hand" in str(caught.value)
