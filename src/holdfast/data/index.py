"""All images and labels of a split as a handful of flat arrays.

No Python object per image: forked workers share the memory without copying it (touching a list of strings
copies its pages through reference counts), and a million images take some 100 MB. Files are scanned by
threads because the time goes into opening them. Nothing is written beside the data: the folder may be
read-only.

Images that cannot be used are left out and counted by reason; the run goes on with the rest.

Dimensions: N images, M boxes over all images, P bytes over all paths.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.data.image import IMAGE_SUFFIXES, read_size
from holdfast.data.labels import Fault, Labels, parse_labels
from holdfast.data.random import Draw, draws
from holdfast.errors import DataError

MIN_SIDE = 10  # pixels; smaller images show nothing
_CHUNK = 128
_EXAMPLES = 5


@dataclass
class Problems:
    """What was noticed while scanning, by reason.

    Attributes:
        counts: reason -> how often.
        examples: reason -> the first few, each with file, line and what stood there.
        dropped_images: images left out.
        dropped_rows: label rows left out.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    dropped_images: int = 0
    dropped_rows: int = 0

    def note(self, reason: str, example: str) -> None:
        """Counts one occurrence."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        known = self.examples.setdefault(reason, [])
        if len(known) < _EXAMPLES:
            known.append(example)

    def add(self, other: Problems) -> None:
        """Counts everything another scan noticed."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            known = self.examples.setdefault(reason, [])
            known.extend(other.examples[reason][: _EXAMPLES - len(known)])
        self.dropped_images += other.dropped_images
        self.dropped_rows += other.dropped_rows

    def lines(self) -> list[str]:
        """Returns one line per reason, most frequent first: how often, and the first example."""
        ranked = sorted(self.counts.items(), key=lambda item: -item[1])
        return [f"{count} x {reason}, for example {self.examples[reason][0]}" for reason, count in ranked]


@dataclass(frozen=True)
class Index:
    """A split: which images, how large, what is in them.

    Attributes:
        names: class names by index.
        path_bytes: (P,) uint8, all paths one after the other in the file system's encoding.
        path_offsets: (N + 1,) int64, where each path starts.
        sizes: (N, 2) int32, upright height and width in pixels.
        offsets: (N + 1,) int64, where the boxes of each image start.
        classes: (M,) int32.
        boxes: (M, 4) float32, cx cy w h in parts of the image.
        problems: what was noticed while scanning.
        backgrounds: images without any box.
    """

    names: dict[int, str]
    path_bytes: npt.NDArray[np.uint8]
    path_offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.float32]
    problems: Problems

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over paths, sizes and labels: equal only when a run would see the same data set."""
        digest = hashlib.sha256()
        arrays = (self.path_bytes, self.path_offsets, self.sizes, self.offsets, self.classes, self.boxes)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def backgrounds(self) -> int:
        """How many images have no box."""
        return int((np.diff(self.offsets) == 0).sum())

    def path(self, i: int) -> str:
        """Returns the path of an image; names that are not UTF-8 survive (surrogate escapes)."""
        return os.fsdecode(self.path_bytes[self.path_offsets[i] : self.path_offsets[i + 1]].tobytes())

    @property
    def paths(self) -> list[str]:
        """All paths, built anew at each call."""
        return [self.path(i) for i in range(len(self))]

    def labels(self, i: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Returns the classes (m,) int64 and boxes (m, 4) float32 xyxy in original pixels of an image."""
        part = slice(self.offsets[i], self.offsets[i + 1])
        height, width = self.sizes[i]
        boxes = self.boxes[part] * np.array([width, height, width, height], dtype=np.float32)
        half = boxes[:, 2:] / 2
        return self.classes[part].astype(np.int64), np.concatenate(
            [boxes[:, :2] - half, boxes[:, :2] + half], axis=1
        )


def build_index(
    sources: Sequence[Path | str],
    *,
    names: Mapping[int, str],
    single_cls: bool = False,
    fraction: float = 1.0,
    min_items: int = 0,
    keypoints: tuple[int, int] | None = None,
    workers: int = 8,
) -> Index:
    """Scans images and labels.

    Args:
        sources: folders (searched to any depth), images, list files (.txt, one image per line) and glob
            patterns.
        names: class names by index.
        single_cls: take every class for class 0.
        fraction: share of the images to take; the choice depends on their number only, and a larger share
            holds the smaller ones.
        min_items: leave out images with fewer boxes.
        keypoints: (count, numbers per point) when label rows carry keypoints.
        workers: threads.

    Raises:
        DataError: no image found, none usable, or not one label file.
    """
    images = find_images(sources)
    where = ", ".join(str(source) for source in sources)
    if not images:
        raise DataError("no images found.", path=where, hint=f"Expected files ending in {_suffix_list()}.")
    if fraction < 1:
        order = np.argsort(draws(0, 0, 0, Draw.FRACTION).random(len(images)), kind="stable")
        images = [images[i] for i in sorted(order[: max(round(fraction * len(images)), 1)].tolist())]
    chunks = [images[at : at + _CHUNK] for at in range(0, len(images), _CHUNK)]

    def scan(chunk: list[bytes]) -> _Scan:
        return _scan(chunk, len(names), single_cls, min_items, keypoints)

    if workers > 1 and len(chunks) > 1:
        with ThreadPoolExecutor(workers, thread_name_prefix="holdfast-scan") as pool:
            scans = list(pool.map(scan, chunks))
    else:
        scans = [scan(chunk) for chunk in chunks]
    problems = Problems()
    for part in scans:
        problems.add(part.problems)
    if not any(part.paths for part in scans):
        raise DataError(
            f"none of {len(images)} images can be used. {_worst(problems)}",
            path=where,
            hint="Mend the data set.",
        )
    if not any(part.label_files for part in scans):
        expected = os.fsdecode(label_path(next(part.paths[0] for part in scans if part.paths)))
        raise DataError(
            f"no label file found for any of {len(images)} images (looked for {expected}).",
            path=where,
            hint="Put labels in a folder 'labels' that mirrors 'images' (empty file: no objects).",
        )
    kept = {0: "object"} if single_cls else dict(names)
    return _pack(scans, kept, problems)


def find_images(sources: Sequence[Path | str]) -> list[bytes]:
    """Lists image paths in file-system encoding, source by source, sorted within each, without repeats."""
    found: dict[bytes, None] = {}
    for source in sources:
        for path in _expand(os.fspath(source)):
            found[path] = None
    return list(found)


def label_path(image: bytes) -> bytes:
    """Returns the label's path: the last folder `images` becomes `labels`, the suffix `.txt`."""
    folder, name = os.path.split(image)
    parts = folder.split(os.fsencode(os.sep))
    for at in range(len(parts) - 1, -1, -1):
        if parts[at] == b"images":
            parts[at] = b"labels"
            break
    return os.path.join(os.fsencode(os.sep).join(parts), os.path.splitext(name)[0] + b".txt")


def _is_image(name: bytes) -> bool:
    dot = name.rfind(b".")
    return (
        dot >= 0
        and name[dot:].lower().decode("ascii", "replace") in IMAGE_SUFFIXES
        and not name.startswith(b"._")
    )


def _suffix_list() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))


def _expand(source: str) -> Iterable[bytes]:
    if os.path.isdir(source):
        return sorted(_walk(os.fsencode(os.path.abspath(source))))
    if os.path.isfile(source):
        if source.lower().endswith(".txt"):
            return _read_list(source)
        return [os.fsencode(os.path.abspath(source))]
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
    for here, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        yield from (os.path.join(here, name) for name in files if _is_image(name))


def _read_list(path: str) -> list[bytes]:
    """Images of a list file; relative entries start beside it, above it or in the working directory."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:3] == b"\xef\xbb\xbf":
        data = data[3:]
    folder = os.path.dirname(os.path.abspath(os.fsencode(path)))
    images = []
    for row in data.splitlines():
        entry = row.strip()
        if not entry or entry.startswith(b"#"):
            continue
        places = (folder, os.path.dirname(folder), os.getcwdb())
        candidates = [os.path.normpath(os.path.join(place, entry)) for place in places]
        images.append(
            next((candidate for candidate in candidates if os.path.isfile(candidate)), candidates[0])
        )
    if not images:
        raise DataError("the list of images is empty.", path=path, hint="Expected one image path per line.")
    return images


class _Scan(NamedTuple):
    paths: list[bytes]
    sizes: list[tuple[int, int]]
    labels: list[Labels]
    label_files: int
    problems: Problems


def _scan(
    chunk: list[bytes], classes: int, single_cls: bool, min_items: int, keypoints: tuple[int, int] | None
) -> _Scan:
    scan = _Scan([], [], [], 0, Problems())
    problems, label_files = scan.problems, 0
    for image in chunk:
        try:
            size = read_size(os.fsdecode(image))
        except DataError as error:
            problems.note("unreadable image", str(error))
            problems.dropped_images += 1
            continue
        if min(size) < MIN_SIDE:
            problems.note("image under 10 pixels", f"{_show(image)}: {size[1]} x {size[0]} pixels")
            problems.dropped_images += 1
            continue
        data, file = _label_bytes(image, problems)
        if data is None:
            problems.dropped_images += 1
            continue
        labels = parse_labels(data, classes=classes, single_class=single_cls, keypoints=keypoints)
        label_files += file is not None
        for fault in labels.faults:
            problems.note(fault.reason, _describe(file, fault))
            problems.dropped_rows += fault.refused
        if labels.rows and not len(labels.boxes):
            # Objects are there but not known: as a background the image would teach the opposite.
            problems.note(
                "no usable row", f"{_show(file or image)}: {labels.rows} rows, none usable; image left out"
            )
            problems.dropped_images += 1
            continue
        if len(labels.boxes) < min_items:
            problems.note("fewer boxes than min_items", f"{_show(image)}: {len(labels.boxes)} boxes")
            problems.dropped_images += 1
            continue
        scan.paths.append(image)
        scan.sizes.append(size)
        scan.labels.append(labels)
    return scan._replace(label_files=label_files)


def _label_bytes(image: bytes, problems: Problems) -> tuple[bytes | None, bytes | None]:
    """Returns content and path of the label file; content is None when the file is there but unreadable."""
    expected = label_path(image)
    for path in dict.fromkeys((expected, os.path.splitext(image)[0] + b".txt")):
        if not os.path.lexists(path):
            continue
        try:
            with open(path, "rb", buffering=0) as file:
                return file.read(), path
        except OSError as error:
            reason = "is a folder" if os.path.isdir(path) else error.strerror
            problems.note("unreadable label file", f"{_show(path)}: {reason}; image left out")
            return None, path
    return b"", None


def _describe(file: bytes | None, fault: Fault) -> str:
    line = f" line {fault.line}" if fault.line else ""
    return f"{_show(file or b'')}{line}: {fault.reason}: {fault.detail}"


def _show(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _worst(problems: Problems) -> str:
    if not problems.counts:
        return ""
    reason = max(problems.counts, key=lambda key: problems.counts[key])
    return f"Most often: {reason} ({problems.counts[reason]} times), as in {problems.examples[reason][0]}"


def _pack(scans: list[_Scan], names: dict[int, str], problems: Problems) -> Index:
    paths = [path for scan in scans for path in scan.paths]
    labels = [label for scan in scans for label in scan.labels]
    lengths = np.array([len(path) for path in paths], dtype=np.int64)
    counts = np.array([len(label.classes) for label in labels], dtype=np.int64)
    return Index(
        names=names,
        path_bytes=np.frombuffer(b"".join(paths), dtype=np.uint8),
        path_offsets=np.concatenate([[0], lengths.cumsum()]).astype(np.int64),
        sizes=np.array([size for scan in scans for size in scan.sizes], dtype=np.int32).reshape(-1, 2),
        offsets=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        classes=np.concatenate([label.classes for label in labels]),
        boxes=np.concatenate([label.boxes for label in labels]),
        problems=problems,
    )
