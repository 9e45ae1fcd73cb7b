"""Data sets in zip files: unpacked once, and never outside their folder."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.shapes import write_demo
from holdfast.data.unzip import unpacked
from holdfast.errors import DataError


def archive(path: Path, members: dict[str, bytes], *, mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = mode << 16
            file.writestr(member, data)
    return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set zipped with its folder, as people do."""
    folder = tmp_path_factory.mktemp("zipped")
    root = write_demo(folder / "shapes", images=4).parent
    files = {str(file.relative_to(folder)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    return archive(folder / "shapes.zip", {**files, "__MACOSX/shapes/._data.yaml": b"junk"})


def test_a_data_set_is_unpacked_once_and_can_be_read(demo: Path, tmp_path: Path) -> None:
    found = unpacked(demo, tmp_path / "sets")
    assert found.parent.name == "shapes"
    assert found.parents[2] == tmp_path / "sets"
    assert len(list(read_dataset_file(found).split("train")[0].iterdir())) == 3
    stamp = found.stat().st_mtime_ns
    copy = tmp_path / "shapes.zip"
    copy.write_bytes(demo.read_bytes())
    assert unpacked(copy, tmp_path / "sets") == found  # the same content is there already
    assert found.stat().st_mtime_ns == stamp
    assert len(list((tmp_path / "sets").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("../evil.txt", 0, "outside of its folder"),
        ("a/../../evil.txt", 0, "outside of its folder"),
        ("/tmp/evil.txt", 0, "outside of its folder"),
        ("..\\evil.txt", 0, "outside of its folder"),
        ("C:/evil.txt", 0, "names a drive"),
        ("link", stat.S_IFLNK | 0o777, "is a link"),
        ("pipe", stat.S_IFIFO | 0o666, "neither a file nor a folder"),
    ],
)
def test_members_that_would_leave_the_folder_are_refused(
    tmp_path: Path, name: str, mode: int, message: str
) -> None:
    path = archive(tmp_path / "set.zip", {"data.yaml": b"names: [a]", name: b"/etc/passwd"}, mode=mode)
    with pytest.raises(DataError, match=message) as caught:
        unpacked(path, tmp_path / "sets")
    assert str(path) in str(caught.value)
    assert [one.name for one in tmp_path.iterdir()] == ["set.zip"]  # nothing was written


def test_archives_that_grow_beyond_reason_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "bomb.zip", {"data.yaml": b"", "zeros.bin": bytes(300 * 2**20)})
    with pytest.raises(DataError, match=r"would grow from 0\.3 MiB to 300 MiB"):
        unpacked(path, tmp_path / "sets")
    assert not (tmp_path / "sets").exists()


def test_damaged_archives_and_ones_without_a_data_file_are_one_sentence(demo: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.zip"
    cut.write_bytes(demo.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a whole zip file"):
        unpacked(cut, tmp_path / "sets")
    data = bytearray(demo.read_bytes())
    data[200] ^= 255  # inside the first member
    cut.write_bytes(data)
    with pytest.raises(DataError, match="not a whole zip file"):
        unpacked(cut, tmp_path / "sets")
    assert not list((tmp_path / "sets").iterdir())  # no part of it stays
    with pytest.raises(DataError, match=r"holds no data\.yaml"):
        unpacked(archive(tmp_path / "bare.zip", {"a.jpg": b"x"}), tmp_path / "sets")
