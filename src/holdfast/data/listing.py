"""Which images and labels a run was made with, small enough to lie in its folder, and what has changed since.

Per image: the path below the folder common to all, the size, and a checksum of its labels. 100,000 images
take about 1 MB.
"""

from __future__ import annotations

import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from holdfast.data.index_arrays import Index

_EXAMPLES = 3
_PARTS = ("root", "paths", "sizes", "labels")


@dataclass(frozen=True)
class Listing:
    """The images of a split.

    Attributes:
        root: the folder common to all.
        paths: of each image, below it.
        sizes: (N, 2) int32, height and width in pixels.
        labels: (N,) uint32, a checksum of the labels of each image.
    """

    root: str
    paths: list[bytes]
    sizes: npt.NDArray[np.int32]
    labels: npt.NDArray[np.uint32]


def listing(index: Index) -> Listing:
    """Lists the images of a split."""
    whole = index.path_bytes.tobytes()
    ends = index.path_offsets.tolist()
    paths = [whole[first:last] for first, last in itertools.pairwise(ends)]
    root = os.path.dirname(min(paths))
    if root != os.path.dirname(max(paths)):
        root = os.path.commonpath([min(paths), max(paths)])
    root = os.path.join(root, b"")  # with the separator, which paths then lack
    below = [path[len(root) :] for path in paths]
    return Listing(os.fsdecode(root), below, np.asarray(index.sizes), _checksums(index))


def pack(splits: Mapping[str, Index]) -> bytes:
    """The listings of splits as the content of an .npz file."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for name, index in splits.items():
        one = listing(index)
        arrays[f"{name}/root"] = np.frombuffer(os.fsencode(one.root), np.uint8)
        arrays[f"{name}/paths"] = np.frombuffer(b"\0".join(one.paths), np.uint8)
        arrays[f"{name}/sizes"], arrays[f"{name}/labels"] = one.sizes, one.labels
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpack(data: bytes) -> dict[str, Listing]:
    """Reads what `pack` gave; empty where that is damaged."""
    found: dict[str, dict[str, npt.NDArray[np.generic]]] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            for key in arrays.files:
                split, _, part = key.rpartition("/")
                found.setdefault(split, {})[part] = arrays[key]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return {}
    return {
        split: Listing(
            os.fsdecode(parts["root"].tobytes()),
            parts["paths"].tobytes().split(b"\0"),
            parts["sizes"].astype(np.int32),
            parts["labels"].astype(np.uint32),
        )
        for split, parts in found.items()
        if all(part in parts for part in _PARTS)
    }


def differences(before: Listing, now: Listing) -> list[str]:
    """What has changed from one listing to another: a few words each, with counts and examples."""
    moved = not (before.root.startswith(now.root) or now.root.startswith(before.root))
    if before.root != now.root and not moved:  # an image beside the folder of the others
        before, now = _whole(before), _whole(now)
    old = {path: number for number, path in enumerate(before.paths)}
    new = {path: number for number, path in enumerate(now.paths)}
    both = [path for path in now.paths if path in old]
    was, here = [old[path] for path in both], [new[path] for path in both]
    resized = (before.sizes[was] != now.sizes[here]).any(1) if both else np.zeros(0, bool)
    labelled = before.labels[was] != now.labels[here] if both else np.zeros(0, bool)
    changes = [
        _counted("added", [path for path in now.paths if path not in old]),
        _counted("removed", [path for path in before.paths if path not in new]),
        _counted("of another size", [both[number] for number in np.flatnonzero(resized)]),
        _counted("with other labels", [both[number] for number in np.flatnonzero(labelled)]),
    ]
    return [text for text in (f"moved from {before.root} to {now.root}" if moved else "", *changes) if text]


def _whole(one: Listing) -> Listing:
    """The same with whole paths."""
    root = os.fsencode(one.root)
    return replace(one, root="", paths=[root + path for path in one.paths])


def _counted(what: str, paths: Sequence[bytes]) -> str:
    if not paths:
        return ""
    names = ", ".join(ascii(os.fsdecode(path))[1:-1] for path in paths[:_EXAMPLES])
    return f"{len(paths):,} {what} ({names}{', ...' if len(paths) > _EXAMPLES else ''})"


def _checksums(index: Index) -> npt.NDArray[np.uint32]:
    """(N,) uint32, over the classes, boxes, keypoints, corners and outlines of each image."""
    offsets = index.offsets
    parts = [(array, offsets) for array in (index.classes, index.boxes, index.keypoints, index.corners)]
    if len(index.starts):
        parts.append((index.points, index.starts[offsets].astype(np.int64)))
    sums = [0] * len(index)
    for array, starts in parts:
        if not array.size:
            continue
        row = array[:1].nbytes
        view = memoryview(array.tobytes())
        ends = (starts * row).tolist()
        sums = [
            zlib.crc32(view[first:last], total)
            for total, first, last in zip(sums, ends[:-1], ends[1:], strict=True)
        ]
    return np.array(sums, np.uint32)
