"""From a split of a data file to its index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from holdfast.data.dataset_file import DatasetFile
from holdfast.data.index import Index, build_index
from holdfast.errors import DataError


def split_index(
    dataset: DatasetFile,
    split: str,
    *,
    single_cls: bool,
    fraction: float = 1.0,
    min_items: int = 0,
    workers: int,
    cache: Path | None = None,
    scanned: Callable[[int, int], None] | None = None,
) -> Index:
    """Builds the index of one split; arguments as in `build_index`.

    Raises:
        DataError: the data file has no such split, or it holds no usable image.
    """
    if not dataset.splits.get(split):
        known = ", ".join(name for name, sources in dataset.splits.items() if sources)
        raise DataError(
            f"names no '{split}' images (it has: {known}).",
            path=dataset.path,
            hint=f"Add a line such as '{split}: images/{split}'.",
        )
    return build_index(
        dataset.splits[split],
        names=dataset.names,
        single_cls=single_cls,
        fraction=fraction,
        min_items=min_items,
        keypoints=dataset.keypoints,
        image_folders=dataset.image_folders.get(split, ()),
        workers=workers,
        cache=cache,
        progress=scanned,
    )
