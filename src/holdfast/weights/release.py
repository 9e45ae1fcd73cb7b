"""Weight files that their authors released: where each is, under which licence, and what its bytes must be.

Facts only, none of the files is ours. Sizes and SHA-256 of the YOLO26 files are those the hosting site shows;
the older files were uploaded before it showed any, so theirs are None. The official YOLOv9 release has no
`yolov9-t.pt` and no `gelan-t.pt`: the smallest model exists in the converted form only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import SettingsError, WeightsError, did_you_mean

SUFFIXES = (".pt", ".pth", ".safetensors", ".ckpt")

_SITE = "https://github.com"


@dataclass(frozen=True)
class Release:
    """One released file.

    Attributes:
        name: file name, as published.
        repository: owner and name of the repository that released it.
        tag: the release it belongs to.
        licence: licence of the file as its authors state it, by SPDX identifier.
        size: bytes; None where nobody published it.
        sha256: SHA-256 in hexadecimal; None where nobody published it.
    """

    name: str
    repository: str
    tag: str
    licence: str
    size: int | None = None
    sha256: str | None = None

    @property
    def stem(self) -> str:
        """The name without `.pt`, as one types it."""
        return self.name.removesuffix(".pt")

    def url(self, mirror: str = "") -> str:
        """Where the file is.

        Args:
            mirror: URL of a folder that holds the files under their names; empty takes the authors' release.
        """
        if mirror:
            return f"{mirror.rstrip('/')}/{self.name}"
        return f"{_SITE}/{self.repository}/releases/download/{self.tag}/{self.name}"


def _yolo26(size: str, count: int, sha256: str) -> Release:
    return Release(f"yolo26{size}.pt", "ultralytics/assets", "v8.4.0", "AGPL-3.0", count, sha256)


RELEASES: tuple[Release, ...] = (
    _yolo26("n", 5_544_453, "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef"),
    _yolo26("s", 20_422_725, "646f8bc3fe0a656803d95c294f7852321748cb29d13466a1af8862e2db384a1b"),
    _yolo26("m", 44_255_705, "401cea9ab23ad19246ff7744859816bc599f350e93c9dd30367b6f0a0745d0b7"),
    _yolo26("l", 53_211_173, "9fe3c544f2b19bebad7ea41e76d7ad3d88b7c2f10d11d24430c5311f6b32db26"),
    _yolo26("x", 118_667_365, "9fdd44a31c504547ffb81d2c6d9e6dac3493c8eaa8b0398d3f43bae6c7003e92"),
    *(Release(f"yolov9{size}.pt", "ultralytics/assets", "v8.3.0", "AGPL-3.0") for size in "tsmce"),
    *(Release(f"yolov9-{size}.pt", "WongKinYiu/yolov9", "v0.1", "GPL-3.0") for size in "smce"),
    *(Release(f"yolov9-{size}-converted.pt", "WongKinYiu/yolov9", "v0.1", "GPL-3.0") for size in "tsmce"),
    *(Release(f"gelan-{size}.pt", "WongKinYiu/yolov9", "v0.1", "GPL-3.0") for size in "smce"),
)


def find(name: str) -> Release:
    """The released file of that name, with or without `.pt`.

    Raises:
        SettingsError: no such file; names the nearest one.
    """
    for release in RELEASES:
        if name in (release.name, release.stem):
            return release
    stem = name.removesuffix(".pt")
    longer = [release.stem for release in RELEASES if stem and release.stem.startswith(f"{stem}-")]
    near = f" Did you mean '{longer[0]}'?" if longer else did_you_mean(stem, [item.stem for item in RELEASES])
    raise SettingsError(f"There is no released weight file '{name}'.{near}", hint=listing())


def listing() -> str:
    """One sentence that names every released file."""
    return f"Released files are {', '.join(release.stem for release in RELEASES)}."


def locate(source: str | Path, cache: Path) -> str | Path:
    """Where a weight file is: the path as given, else the file of that name in the folder of downloads.

    Anything else comes back as it is, for the loader to judge: model names, and files nobody released.
    Nothing is downloaded here.

    Args:
        source: what the user named as model or weights.
        cache: folder of downloaded weight files.

    Raises:
        WeightsError: a released file that is in neither place; says how to get it.
    """
    path = Path(source)
    if path.suffix.lower() not in SUFFIXES or path.is_file():
        return source
    bare = str(source) == path.name
    if bare and (cache / path.name).is_file():
        return cache / path.name
    release = next((item for item in RELEASES if item.name == path.name), None)
    if release is None:
        return source
    folder = cache if bare else path.parent
    where = f", neither here nor in {cache}" if bare else ""
    command = f"holdfast download {release.stem}" + ("" if bare else f" --folder {path.parent}")
    raise WeightsError(
        f"There is no weight file '{source}'{where}, and nothing is downloaded unasked.",
        hint=f"Run '{command}' (licence {release.licence}), or put {release.url()} into {folder} by hand.",
    )
