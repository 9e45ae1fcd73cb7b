"""From a split of a data file to its index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from holdfast.data.class_folders import build_class_index
from holdfast.data.dataset_file import DatasetFile
from holdfast.data.index import Index, build_index
from holdfast.errors import DataError
from holdfast.geometry.targets import BOXES, Needs


def split_index(
    dataset: DatasetFile,
    split: str,
    *,
    needs: Needs = BOXES,
    single_cls: bool,
    fraction: float = 1.0,
    min_items: int = 0,
    workers: int,
    cache: Path | None = None,
    scanned: Callable[[int, int], None] | None = None,
) -> Index:
    """Builds the index of one split; arguments as in `build_index`.

    Args:
        needs: what the labels must hold, of the model that they are for.

    Raises:
        DataError: the data file has no such split, it holds no usable image, or the labels lack what is
            needed.
    """
    if not dataset.splits.get(split):
        known = ", ".join(name for name, sources in dataset.splits.items() if sources)
        raise DataError(
            f"names no '{split}' images (it has: {known}).",
            path=dataset.path,
            hint=f"Add a line such as '{split}: images/{split}'.",
        )
    _refuse_other_labels(dataset, needs)
    if dataset.class_folders:
        return build_class_index(
            dataset.splits[split][0],
            names={0: "object"} if single_cls else dataset.names,
            fraction=fraction,
            workers=workers,
            progress=scanned,
        )
    index = build_index(
        dataset.splits[split],
        names=dataset.names,
        single_cls=single_cls,
        fraction=fraction,
        min_items=min_items,
        keypoints=dataset.keypoints,
        oriented=needs.rotated,
        image_folders=dataset.image_folders.get(split, ()),
        workers=workers,
        cache=cache,
        progress=scanned,
    )
    return _with_outlines(index, split, dataset) if needs.mask_stride else index


def _refuse_other_labels(dataset: DatasetFile, needs: Needs) -> None:
    if needs.whole and not dataset.class_folders:
        raise DataError(
            "describes objects, but the model classifies whole images.",
            path=dataset.path,
            hint="Give a folder with images in train/<class>/ and val/<class>/.",
        )
    if dataset.class_folders and not needs.whole:
        raise DataError(
            "has one folder per class and no boxes, but the model finds objects.",
            path=dataset.path,
            hint="Take a model that classifies, such as yolo26n-cls, or a data.yaml with labels.",
        )
    if needs.keypoints and dataset.keypoints is None:
        raise DataError(
            "has no kpt_shape, but the model finds keypoints.",
            path=dataset.path,
            hint="Add a line such as 'kpt_shape: [17, 3]', and keypoints to the label rows.",
        )


def _with_outlines(index: Index, split: str, dataset: DatasetFile) -> Index:
    lacking = int((np.diff(index.starts) == 0).sum()) if len(index.starts) else len(index.classes)
    if lacking and lacking == len(index.classes):
        raise DataError(
            f"the {split} labels have no outlines, only boxes, but the model finds masks.",
            path=dataset.path,
            hint="Give polygons: rows of 'class x1 y1 x2 y2 x3 y3 ...', in parts of the image.",
        )
    if not lacking:
        return index
    return index.with_note(
        f"{lacking} of {len(index.classes)} {split} objects have no outline; their box is taken for it"
    )
