"""From a split of a data file to its index."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from holdfast.data.class_folders import build_class_index
from holdfast.data.dataset_file import DatasetFile
from holdfast.data.index import Index, build_index
from holdfast.data.scan import show
from holdfast.errors import DataError, SettingsError
from holdfast.geometry.keypoints import COCO_SIGMAS, keypoint_sigmas
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
        SettingsError: `min_items` for folders of classes.
    """
    sources = dataset.split(split)
    _refuse_other_labels(dataset, needs)
    if dataset.class_folders:
        if min_items:
            raise SettingsError("min_items counts boxes, and a classifier has none.", hint="Leave it out.")
        return build_class_index(
            sources[0],
            names=dataset.names,
            single_cls=single_cls,
            fraction=fraction,
            workers=workers,
            progress=scanned,
        )
    index = build_index(
        sources,
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
    if dataset.keypoints:
        index = replace(index, sigmas=dataset.sigmas or keypoint_sigmas(dataset.keypoints))
    noted = partial(_noted, index, split, dataset)
    if needs.mask_stride:
        return noted(
            np.diff(index.starts) == 0 if len(index.starts) else np.ones(len(index.classes), dtype=bool),
            what="outline",
            then="their box is taken for it",
            hint="Give polygons: rows of 'class x1 y1 x2 y2 x3 y3 ...', in parts of the image.",
        )
    if needs.keypoints:
        return noted(
            np.asarray((index.keypoints[..., 2] <= 0).all(axis=1)),
            what="labelled keypoint",
            then="they teach their box only",
            hint="Give rows of 'class cx cy w h', then x, y and visibility of each keypoint.",
        )
    return index


def spreads(sigmas: Sequence[float]) -> str:
    """A sentence on the spreads by which errors of keypoints are measured; empty without keypoints."""
    if not sigmas:
        return ""
    count, which = len(sigmas), ", ".join(f"{sigma:.3g}" for sigma in sigmas)
    if tuple(sigmas) == COCO_SIGMAS:
        which = "those of COCO"
    elif set(sigmas) == {1 / count}:
        which = f"1/{count} each"
    return f"{count} an object; spreads of their labels (kpt_oks_sigmas): {which}"


def _refuse_other_labels(dataset: DatasetFile, needs: Needs) -> None:
    if needs.whole and not dataset.class_folders:
        raise DataError(
            "describes objects, but the model classifies whole images.",
            path=dataset.path,
            hint="Give a folder with images in train/<class>/ and val/<class>/, or name them in data.yaml.",
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


def _noted(
    index: Index,
    split: str,
    dataset: DatasetFile,
    lacking: npt.NDArray[np.bool_],
    *,
    what: str,
    then: str,
    hint: str,
) -> Index:
    """Refuses a split of objects that all lack something; notes how many do, and the first image of one.

    Args:
        lacking: (M,) which objects lack it.
        what: its name.
        then: what is done with such an object.
        hint: what the labels should be like.
    """
    count = int(lacking.sum())
    if count and count == len(lacking):
        raise DataError(
            f"the {split} labels have no {what}s, only boxes, but the model learns them.",
            path=dataset.path,
            hint=hint,
        )
    if not count:
        return index
    first = os.fsencode(index.path(int(np.searchsorted(index.offsets, lacking.argmax(), side="right")) - 1))
    return index.with_note(
        f"{count} of {len(lacking)} {split} objects have no {what}; {then} (the first is in {show(first)})"
    )
