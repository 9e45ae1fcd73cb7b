"""From a data set's files to its index: scanned once, and for large sets kept in a cache file.

Nothing is written beside the data: the folder may be read-only. Images that cannot be used are left out and
counted by reason; the run goes on with the rest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.data.annotation import Rules
from holdfast.data.coco_json import CocoImage, read_coco
from holdfast.data.find import find_images as find_images
from holdfast.data.find import json_files, share_a_label, suffix_list
from holdfast.data.find import label_path as label_path
from holdfast.data.index_arrays import Index as Index
from holdfast.data.index_cache import Tick, cached, digest, stamps
from holdfast.data.pool import Progress, map_chunks
from holdfast.data.problems import Problems as Problems
from holdfast.data.random import Draw, draws
from holdfast.data.scan import Packed, joined, scan, show
from holdfast.errors import DataError

CACHE_FROM = 1000  # images; fewer are scanned as fast as they are checked for changes
_PROCESSES_FROM = 4096  # images; fewer are done before processes have started
_STAMP_PROCESSES_FROM = 400_000
_CHUNK = 128
_LARGE_CHUNK = 512


def build_index(
    sources: Sequence[Path | str],
    *,
    names: Mapping[int, str],
    single_cls: bool = False,
    fraction: float = 1.0,
    min_items: int = 0,
    keypoints: tuple[int, int] | None = None,
    oriented: bool = False,
    image_folders: Sequence[Path] = (),
    workers: int = 8,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Index:
    """Scans images and labels, or opens what an earlier scan has kept.

    Args:
        sources: folders (searched to any depth), images, list files (.txt, one image per line), COCO json
            files and glob patterns.
        names: class names by index.
        single_cls: take every class for class 0.
        fraction: share of the images to take; the choice depends on their number only, and a larger share
            holds the smaller ones.
        min_items: leave out images with fewer boxes.
        keypoints: (count, numbers per point) when label rows carry keypoints.
        oriented: labels are corners of oriented boxes.
        image_folders: where the images of a COCO json are looked for first.
        workers: threads, or processes where there are many images.
        cache: folder for the indices of large data sets; None scans at each call and keeps nothing.
        progress: told how many images are scanned, and how many there are.

    Raises:
        DataError: no image found, none usable, not one label file, or objects of which none is usable.
    """
    images = find_images(sources, image_folders)
    where = ", ".join(str(source) for source in sources)
    if not images:
        raise DataError("no images found.", path=where, hint=f"Expected files ending in {suffix_list()}.")
    if fraction < 1:
        order = np.argsort(draws(0, 0, 0, Draw.FRACTION).random(len(images)), kind="stable")
        images = [images[i] for i in sorted(order[: max(round(fraction * len(images)), 1)].tolist())]
    rules = Rules(len(names), single_cls, keypoints, oriented, tuple(names[i] for i in sorted(names)))
    kept = {0: "object"} if single_cls else dict(names)

    def build(tick: Tick) -> Index:
        def report(done: int, total: int) -> None:
            tick()
            if progress is not None:
                progress(done, total)

        problems = Problems()
        entries = _with_annotations(images, sources, image_folders, rules.names, problems)
        return _build(
            entries, kept, rules, min_items, problems, where=where, workers=workers, progress=report
        )

    if cache is None or len(images) < CACHE_FROM:
        return build(lambda: None)
    described = [_file_stamp(source) for source in json_files(sources)]
    options = [sorted(names.items()), rules, fraction, min_items, [str(folder) for folder in image_folders]]
    name = digest([[os.path.abspath(source) for source in sources], *options])[:24]
    return cached(cache, name, _state(images, [*options, described], workers), build)


def _file_stamp(path: Path | str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def _with_annotations(
    images: list[bytes],
    sources: Sequence[Path | str],
    folders: Sequence[Path],
    names: Sequence[str],
    problems: Problems,
) -> list[bytes | CocoImage]:
    """Puts what COCO json files say in place of the paths they name."""
    described: dict[bytes, CocoImage | None] = {}
    for source in json_files(sources):
        for path, image in read_coco(source, folders, names, problems).items():
            known = described.get(path)
            if known is not None and image is not None:
                known.objects.extend(image.objects)
            else:
                described[path] = image
    entries = (described.get(image, image) for image in images)
    return [entry for entry in entries if entry is not None]


def _state(images: list[bytes], options: list[object], workers: int) -> str:
    """Tells one version of a data set from the next: names, times and sizes of all its files."""
    many = len(images) >= _STAMP_PROCESSES_FROM
    found = map_chunks(stamps, images, size=8 * _LARGE_CHUNK, workers=workers if many else 1, processes=many)
    return digest([np.frombuffer(b"\0".join(images), np.uint8), np.concatenate(found), *options])


def _build(
    images: list[bytes | CocoImage],
    names: dict[int, str],
    rules: Rules,
    min_items: int,
    problems: Problems,
    *,
    where: str,
    workers: int,
    progress: Progress,
) -> Index:
    many = len(images) >= _PROCESSES_FROM
    scans = map_chunks(
        partial(scan, rules=rules, min_items=min_items),
        images,
        size=_LARGE_CHUNK if many else _CHUNK,
        workers=workers,
        processes=many,
        progress=progress,
    )
    for part in scans:
        problems.add(part.problems)
    for one, other in share_a_label([image for image in images if isinstance(image, bytes)]):
        problems.note("images that share a label file", f"{show(one)} and {os.path.basename(show(other))}")
    packed = joined([part.packed for part in scans])
    if not len(packed.sizes):
        raise DataError(
            f"none of {len(images)} images can be used. {problems.worst()}",
            path=where,
            hint="Mend the data set.",
        )
    if not any(part.label_files for part in scans):
        first = packed.path_bytes[: packed.path_lengths[0]].tobytes()
        raise DataError(
            f"no label file found for any of {len(images)} images "
            f"(looked for {os.fsdecode(label_path(first))}).",
            path=where,
            hint="Put labels in a folder 'labels' that mirrors 'images' (empty file: no objects).",
        )
    lost = problems.dropped_rows - problems.counts.get("crowd region skipped", 0)
    if lost and not len(packed.boxes):
        raise DataError(
            f"none of {lost} objects can be used. {problems.worst()}",
            path=where,
            hint="Mend the labels, or the class names.",
        )
    return _index(packed, names, problems)


def _index(packed: Packed, names: dict[int, str], problems: Problems) -> Index:
    return Index(
        names=names,
        path_bytes=packed.path_bytes,
        path_offsets=_offsets(packed.path_lengths),
        sizes=packed.sizes,
        offsets=_offsets(packed.counts),
        classes=packed.classes,
        boxes=packed.boxes,
        problems=problems,
        points=packed.points,
        starts=_starts(packed.lengths, len(packed.points)),
        keypoints=packed.keypoints,
        corners=packed.corners,
    )


def _offsets(lengths: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], lengths.cumsum(dtype=np.int64)]).astype(np.int64)


def _starts(lengths: npt.NDArray[np.int32], points: int) -> npt.NDArray[np.integer]:
    if not points:
        return np.zeros(0, np.int32)
    return _offsets(lengths).astype(np.int32 if points < 2**31 else np.int64)
