"""The user's cache folder, and `holdfast download`: released weight files, fetched when asked for.

Unusual: the one place that asks the environment for the user's cache folders; lower layers are handed them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from holdfast.errors import SettingsError, WeightsError
from holdfast.settings import DownloadSettings
from holdfast.weights.fetch import Report, download, file_sha256
from holdfast.weights.release import Release, find, listing


def weights_folder() -> Path:
    """Where downloaded weight files are kept and names such as `yolo26n.pt` are looked up.

    `$XDG_CACHE_HOME/holdfast/weights` or `~/.cache/holdfast/weights`; `~/Library/Caches/holdfast/weights` on
    macOS; `%LOCALAPPDATA%/holdfast/weights` on Windows.
    """
    return _cache_folder() / "weights"


def index_folder() -> Path:
    """Where the indices of large data sets are kept: `index` beside the folder of weights."""
    return _cache_folder() / "index"


def images_folder() -> Path:
    """Where `cache=disk` keeps decoded images: `images` beside `weights_folder()`."""
    return _cache_folder() / "images"


def data_file(data: str) -> str:
    """Returns what `data` names; a zip file is unpacked once, into `datasets` beside `weights_folder()`.

    Raises:
        DataError: an archive that is damaged, unsafe, too large, or without a data file.
    """
    path = Path(data)
    if path.suffix.lower() != ".zip" or not path.is_file():
        return data
    from holdfast.data.unzip import unpacked

    return str(unpacked(path, _cache_folder() / "datasets"))


def _cache_folder() -> Path:
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = _home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        if not base.is_absolute():  # empty, or to be ignored as its specification says
            base = _home() / ".cache"
    return base / "holdfast"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a user without an entry, as in some containers
        return Path.cwd()


def run_download(
    settings: DownloadSettings, *, say: Callable[[str], None] = print, report: Report | None = None
) -> list[Path]:
    """Runs `holdfast download`, and returns the files in the order of the names.

    Args:
        settings: what to download.
        say: where lines go.
        report: told the bytes so far and in all, file by file.

    Raises:
        SettingsError: no name, or one that nobody released; then nothing is downloaded.
        WeightsError: a file that cannot be had, or is not what was released.
    """
    if not settings.names:
        raise SettingsError("download needs the name of a released weight file.", hint=listing())
    releases = [find(name) for name in dict.fromkeys(settings.names)]
    folder = Path(settings.folder) if settings.folder else weights_folder()
    return [_one(release, folder, settings, say, report) for release in releases]


def _one(
    release: Release,
    folder: Path,
    settings: DownloadSettings,
    say: Callable[[str], None],
    report: Report | None,
) -> Path:
    target = folder / release.name
    licence = f"licence {release.licence}, set by {release.repository}; check that your use allows it"
    if target.is_file() and not settings.force:
        say(f"{target} is there already, {_checked(release, file_sha256(target), target)}; {licence}")
        return target
    url = release.url(settings.mirror)
    say(f"{release.name}: {licence}")
    say(f"{release.name}: {url}")
    got = download(
        url,
        folder,
        release.name,
        timeout=settings.timeout,
        retries=settings.retries,
        sha256=release.sha256,
        size=release.size,
        report=report,
        note=say,
    )
    say(f"{release.name}: {got.size:,} bytes in {got.path}, {_checked(release, got.sha256, got.path)}")
    return got.path


def _checked(release: Release, sha256: str, path: Path) -> str:
    """What is known about a file's content.

    Raises:
        WeightsError: it is not the released one.
    """
    if release.sha256 is None:
        return f"no published checksum; computed sha256 {sha256}"
    if release.sha256 != sha256:
        raise WeightsError(
            f"{path} is not the released file: its SHA-256 is {sha256} instead of {release.sha256}.",
            hint=f"Run 'holdfast download {release.stem} --force' to replace it.",
        )
    return "sha256 as published"
