"""Where images are, and where their labels are.

Sources are folders (searched to any depth), images, list files (.txt, one image per line), COCO json files
and glob patterns.
Paths are bytes in the file system's encoding: names that are not UTF-8 survive.
"""

from __future__ import annotations

import codecs
import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from holdfast.data.coco_json import listed_images
from holdfast.data.image import IMAGE_SUFFIXES
from holdfast.errors import DataError

_SEP = os.fsencode(os.sep)
_SUFFIXES = frozenset(suffix.encode() for suffix in IMAGE_SUFFIXES)
_LABELS = (  # suffixes, and which folder of images goes with which folder of labels
    ((b".txt", b".TXT", b".Txt"), ((b"images", b"labels"),)),
    (
        (b".xml", b".XML"),
        (
            (b"JPEGImages", b"Annotations"),
            (b"images", b"annotations"),
            (b"images", b"Annotations"),
            (b"images", b"labels"),
        ),
    ),
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def find_images(sources: Sequence[Path | str], folders: Sequence[Path] = ()) -> list[bytes]:
    """Lists image paths in file-system encoding, source by source, sorted within each, without repeats.

    Args:
        sources: where to look.
        folders: where the images of a COCO json are looked for first.

    Raises:
        DataError: a source does not exist, or is an empty list.
    """
    found: dict[bytes, None] = {}
    for source in sources:
        found.update(dict.fromkeys(_expand(os.fspath(source), folders)))
    return list(found)


def label_path(image: bytes) -> bytes:
    """Returns the label's path: the last folder `images` becomes `labels`, the suffix `.txt`."""
    folder, name = os.path.split(image)
    return os.path.join(_mirrored(folder, b"images", b"labels"), os.path.splitext(name)[0] + b".txt")


class LabelPlaces:
    """Where the labels of images may be; made for one scan, because it remembers which folders there are."""

    def __init__(self) -> None:
        self._known: dict[bytes, list[tuple[bytes, bytes]]] = {}

    def of(self, image: bytes) -> Iterator[bytes]:
        """Yields the places, most expected first: mirrored or beside it, text before xml, any case."""
        cut = image.rfind(_SEP) + 1
        dot = image.rfind(b".", cut + 1)
        folder, stem = image[:cut], image[cut:dot] if dot > 0 else image[cut:]
        if folder not in self._known:
            self._known[folder] = list(_label_places(os.path.dirname(folder)))
        for place, suffix in self._known[folder]:
            yield place + stem + suffix


def _label_places(folder: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields folders that exist, each ending in a separator, with the suffix of labels there."""
    for suffixes, renamed in _LABELS:
        mirrors = [_mirrored(folder, one, other) for one, other in renamed]
        places = [place for place in dict.fromkeys((*mirrors, folder)) if os.path.isdir(place)]
        for suffix in suffixes:
            for place in places:
                yield os.path.join(place, b""), suffix


def _mirrored(path: bytes, folder: bytes, other: bytes) -> bytes:
    parts = path.split(_SEP)
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] == folder:
            parts[at] = other
            break
    return _SEP.join(parts)


def share_a_label(images: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yields pairs of images that differ in nothing but the suffix, so that one label file is for both."""
    stems = sorted((os.path.splitext(image), at) for at, image in enumerate(images))
    for ((stem, _), at), ((other, _), second) in itertools.pairwise(stems):
        if stem == other:
            yield images[at], images[second]


def suffix_list() -> str:
    """The suffixes of images, for a message."""
    return " ".join(sorted(IMAGE_SUFFIXES))


def _is_image(name: bytes) -> bool:
    return name[name.rfind(b".") :].lower() in _SUFFIXES and name[:2] != b"._"


def json_files(sources: Sequence[Path | str]) -> list[Path]:
    """The COCO json files among sources."""
    found: list[Path] = []
    for source in (os.fspath(source) for source in sources):
        if source.lower().endswith(".json"):
            matches = [source] if os.path.isfile(source) else sorted(glob.iglob(source, recursive=True))
            found += (Path(match) for match in matches if os.path.isfile(match))
    return list(dict.fromkeys(found))


def _expand(source: str, folders: Sequence[Path]) -> Iterable[bytes]:
    if os.path.isdir(source):
        return sorted(_walk(os.fsencode(os.path.abspath(source))))
    if os.path.isfile(source):
        if source.lower().endswith(".txt"):
            return _read_list(source)
        if source.lower().endswith(".json"):
            return listed_images(Path(source), folders)
        return [os.fsencode(os.path.abspath(source))]
    described = json_files([source])
    if described:
        return [image for path in described for image in listed_images(path, folders)]
    if glob.has_magic(source):
        found = sorted(os.fsencode(os.path.abspath(path)) for path in glob.iglob(source, recursive=True))
        return [
            image
            for path in found
            for image in (sorted(_walk(path)) if os.path.isdir(path) else [path])
            if _is_image(image)
        ]
    raise DataError("no such image folder, list file or glob.", path=source, hint="Check the path.")


def _walk(folder: bytes) -> Iterator[bytes]:
    """Images below a folder, links followed, each real folder once."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        here = os.path.join(waiting.pop(), b"")
        with suppress(OSError):  # a folder that is not ours to read
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) or (
                        entry.is_symlink() and os.path.isdir(here + entry.name)
                    ):
                        waiting.append(here + entry.name)
                    elif _is_image(entry.name):
                        yield here + entry.name


def _read_list(path: str) -> list[bytes]:
    """Images of a list file; relative entries start beside it, above it or in the working directory."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror}).", path=path, hint="Check its permissions."
        ) from None
    for mark, codec in _MARKS:
        if data.startswith(mark):
            data = data[len(mark) :]
            if codec != "utf-8":
                data = os.fsencode(data.decode(codec, "replace"))
    folder = os.path.dirname(os.path.abspath(os.fsencode(path)))
    places = (folder, os.path.dirname(folder), os.getcwdb())
    images = []
    for row in data.splitlines():
        entry = row.strip()
        if not entry or entry.startswith(b"#"):
            continue
        written = (entry, entry.replace(b"\\", b"/")) if b"\\" in entry else (entry,)  # made on Windows
        candidates = [os.path.normpath(os.path.join(place, part)) for part in written for place in places]
        images.append(
            next((candidate for candidate in candidates if os.path.isfile(candidate)), candidates[0])
        )
    if not images:
        raise DataError("the list of images is empty.", path=path, hint="Expected one image path per line.")
    return images
