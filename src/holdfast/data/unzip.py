"""A data set in a zip file, unpacked once into a folder of its own. The archive may come from anybody.

Nothing is written before all members are seen to be harmless: relative names below the folder, files and
folders only (no links), no secrets (encryption), and a size that the disk has and that such files can have.
The folder is named after the archive's list of members with their checksums, so the same content is unpacked
once, wherever the archive lies, and appears under its name when it is complete.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from holdfast.errors import DataError

LARGEST_RATIO = 200  # of all members to the archive: pictures do not shrink, label files by ten
_FREE = 2**30  # bytes of the disk that stay free
_SMALL = 2**28  # bytes that may be unpacked from an archive of any size
_BLOCK = 1 << 20
_CLUTTER = "__MACOSX/"  # what the archiver of macOS adds


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpacks a data set, unless that is done already.

    Args:
        archive: the zip file.
        folder: where data sets are unpacked; made when missing.

    Returns:
        The data file (yaml) in it.

    Raises:
        DataError: not a zip file, damaged, members that would be written elsewhere or are no plain files, too
            large, or no data file in it.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = [one for one in content.infolist() if not one.filename.startswith(_CLUTTER)]
            _refuse(archive, members)
            target = folder / f"{archive.stem}-{_key(members)}"
            if not target.is_dir():
                _fill(archive, content, members, folder, target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"is not a whole zip file ({error}).", path=archive, hint="Fetch it again, or unpack it by hand."
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot be unpacked into {folder} ({error.strerror or error}).",
            path=archive,
            hint="Unpack it by hand, and give the path of its data.yaml.",
        ) from None
    return _data_file(archive, target)


def _refuse(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raises a DataError that names the first member that may not be unpacked."""
    for member in members:
        name = member.filename
        path = PurePosixPath(name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        fault = ""
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
            fault = "would be written outside of its folder"
        elif path.parts[0][1:2] == ":":
            fault = "names a drive"
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            fault = "is a link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
        elif member.flag_bits & 1:
            fault = "is encrypted"
        if fault:
            raise DataError(
                f"holds {ascii(name)[:100]}, which {fault}; nothing was unpacked.",
                path=archive,
                hint="Use an archive of plain files, or unpack it by hand.",
            )
    total, packed = sum(member.file_size for member in members), archive.stat().st_size
    if total > max(_SMALL, LARGEST_RATIO * packed):
        raise DataError(
            f"would grow from {packed / 2**20:.1f} MiB to {total / 2**20:,.0f} MiB, as pictures and labels "
            "never do; nothing was unpacked.",
            path=archive,
            hint="If you trust it, unpack it by hand.",
        )


def _key(members: list[zipfile.ZipInfo]) -> str:
    total = hashlib.sha256()
    for member in members:
        total.update(f"{member.filename!r} {member.file_size} {member.CRC}\n".encode())
    return total.hexdigest()[:12]


def _fill(
    archive: Path, content: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path, target: Path
) -> None:
    """Unpacks beside `target`, which appears at the end; another process may do so at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(member.file_size for member in members)
    free = shutil.disk_usage(folder).free
    if total + _FREE > free:
        raise DataError(
            f"needs {total / 2**30:.1f} GiB; {folder} has {max(free - _FREE, 0) / 2**30:.1f} GiB to spare.",
            path=archive,
            hint="Make room, or unpack it by hand elsewhere.",
        )
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=folder))
    try:
        for member in members:
            path = part.joinpath(*PurePosixPath(member.filename).parts)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with content.open(member) as source, path.open("xb") as file:  # never more than it declares
                shutil.copyfileobj(source, file, _BLOCK)
        try:
            part.replace(target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _data_file(archive: Path, folder: Path) -> Path:
    """The yaml file nearest to the top; `data.yaml` where there are several."""
    found = [path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file()]
    depth = min((len(path.parts) for path in found), default=0)
    top = sorted(path for path in found if len(path.parts) == depth)
    chosen = [path for path in top if path.name == "data.yaml"] or top
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(path.name for path in top)
    raise DataError(
        f"holds several data files ({names}); it was unpacked into {folder}." if top else
        f"holds no data.yaml; it was unpacked into {folder}.",
        path=archive,
        hint="Give the path of the data file to use.",
    )  # fmt: skip
