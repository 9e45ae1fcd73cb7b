"""Data sets for classifiers: one folder per class, in one folder per split.

`root/train/<class>/*.jpg` and `root/val/<class>/*.jpg`, as ImageNet is kept, or where a data.yaml says they
are. Class numbers follow the sorted names of the folders in `train`, or `names` in data.yaml. An image is one
object of its class, as large as itself.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from holdfast.data.find import find_images, label_path
from holdfast.data.image import IMAGE_SUFFIXES
from holdfast.data.index_arrays import Index
from holdfast.data.pool import Progress, map_chunks
from holdfast.data.problems import Problems
from holdfast.data.random import Draw, draws
from holdfast.data.scan import usable_size
from holdfast.errors import DataError

SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_CHUNK = 128

Size = tuple[int, int]


def class_splits(root: Path) -> dict[str, Path]:
    """The folders of the splits of a data set of class folders; none where `root` is no such data set."""
    found: dict[str, Path] = {}
    for split, names in SPLITS.items():
        for name in names:
            if split not in found and class_names(root / name):
                found[split] = root / name
    return found if "train" in found else {}


def class_names(split: Path) -> list[str]:
    """Names of the classes, sorted: the folders in that of a split; none where it holds labels of boxes."""
    if not split.is_dir():
        return []
    names = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and entry.name[:1] != ".")
    return [] if set(names) & {"images", "labels"} else names


def classes_in(sources: Sequence[Path]) -> list[str]:
    """Names of the classes where the sources of a split are one folder of class folders, else none.

    Images that lie beside the folders, or have a label file, are those of a detector.
    """
    if len(sources) != 1 or not sources[0].is_dir():
        return []
    with os.scandir(sources[0]) as entries:  # ends at the first image of a million
        if any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in entries):
            return []
    names = class_names(sources[0])
    images = find_images([sources[0] / names[0]]) if names else []
    return names if images and not os.path.isfile(label_path(images[0])) else []


def build_class_index(
    split: Path,
    *,
    names: dict[int, str],
    single_cls: bool = False,
    fraction: float = 1.0,
    workers: int = 8,
    progress: Progress | None = None,
) -> Index:
    """Lists the images of a split.

    Args:
        split: its folder.
        names: class names by number.
        single_cls: take every class for class 0.
        fraction: share of the images to take, the same ones each time.
        workers: threads.
        progress: told how many images are looked at, and how many there are.

    Raises:
        DataError: a folder that names no class, or no image that can be used.
    """
    numbers = {name: 0 if single_cls else number for number, name in names.items()}
    images: list[tuple[bytes, int]] = []
    for name in class_names(split):
        if name not in numbers:
            raise DataError(
                f"is no class of the training images ({', '.join(list(numbers)[:8])}).",
                path=split / name,
                hint="Class folders must have the same names in each split.",
            )
        images += [(image, numbers[name]) for image in find_images([split / name])]
    if fraction < 1:
        order = np.argsort(draws(0, 0, 0, Draw.FRACTION).random(len(images)), kind="stable")
        images = [images[at] for at in sorted(order[: max(round(fraction * len(images)), 1)].tolist())]
    problems = Problems()
    sizes: list[Size | None] = []
    paths = [image for image, _ in images]
    for found, faults in map_chunks(
        _sizes, paths, size=_CHUNK, workers=workers, processes=False, progress=progress
    ):
        sizes += found
        problems.add(faults)
    usable = [(image, label, size) for (image, label), size in zip(images, sizes, strict=True) if size]
    if not usable:
        raise DataError(
            f"none of {len(images)} images can be used. {problems.worst()}".rstrip(),
            path=split,
            hint="Put images into one folder per class.",
        )
    paths = [image for image, _, _ in usable]
    count = len(usable)
    return Index(
        names={0: "object"} if single_cls else dict(names),
        path_bytes=np.frombuffer(b"".join(paths), np.uint8),
        path_offsets=np.cumsum([0, *map(len, paths)], dtype=np.int64),
        sizes=np.array([size for _, _, size in usable], np.int32),
        offsets=np.arange(count + 1, dtype=np.int64),
        classes=np.array([label for _, label, _ in usable], np.int32),
        boxes=np.tile(np.array([0.5, 0.5, 1.0, 1.0], np.float32), (count, 1)),
        problems=problems,
    )


def _sizes(images: Sequence[bytes]) -> tuple[list[Size | None], Problems]:
    """Upright sizes of images, None for those that cannot be used."""
    problems = Problems()
    return [usable_size(image, problems) for image in images], problems
