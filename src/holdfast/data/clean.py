"""A cleaned copy of a data set, in a new folder; the original is read and never written.

Images that can be used are linked (copied where links are not possible) and their labels written anew, as
the reader understood them: usable rows only, each once, boxes cut at the border. Left out are images that
cannot be read or whose labels cannot, files that are there twice in a split, pictures of an earlier split
that are in a later one too (validation and test stay whole, training gives way), and boxes drawn twice.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from holdfast.data.check import Inspection
from holdfast.data.dataset_file import DatasetFile
from holdfast.data.findings import Split
from holdfast.data.index import label_path
from holdfast.data.objects import Objects
from holdfast.errors import SettingsError

_KEPT_KEYS = ("kpt_shape", "flip_idx", "kpt_names", "kpt_oks_sigmas", "imgsz", "channels")


@dataclass(frozen=True)
class CleanCopy:
    """What was written.

    Attributes:
        path: the data file of the copy.
        images: per split how many images it has.
        left_out: per split how many images of the original it has not.
        boxes: how many boxes of images in the copy were left out because they were drawn twice.
        copied: how many images had to be copied because they cannot be linked.
    """

    path: Path
    images: dict[str, int]
    left_out: dict[str, int]
    boxes: int
    copied: int

    def lines(self) -> list[str]:
        """Sentences for the terminal."""
        images = ", ".join(f"{count:,} {split}" for split, count in self.images.items())
        left = ", ".join(f"{count:,} {split}" for split, count in self.left_out.items() if count)
        how = "copied" if self.copied else "linked (they take no space; do not edit them in place)"
        rest = f"; left out: {left}" if left else ""
        boxes = f"; {self.boxes:,} doubled boxes dropped" if self.boxes else ""
        return [f"Cleaned copy: {self.path}: {images}, images {how}{rest}{boxes}"]


def refuse_filled(folder: Path) -> None:
    """Raises a SettingsError when the folder of a copy holds something already."""
    try:
        filled = any(folder.iterdir()) if folder.is_dir() else os.path.lexists(folder)
    except OSError as error:
        raise SettingsError(f"fix={folder}: cannot be opened ({error.strerror}).") from None
    if filled:
        raise SettingsError(
            f"fix={folder} is there already, and nothing is overwritten.", hint="Name a new folder."
        )


def write_clean(result: Inspection, folder: Path) -> CleanCopy:
    """Writes a cleaned copy.

    Args:
        result: what the check found; it must have a readable split.
        folder: new, or empty.

    Raises:
        SettingsError: a folder that holds something, lies in the original or cannot be written; a split of
            which nothing would be left; or folders of classes, which have no labels.
    """
    assert result.dataset is not None
    if result.dataset.class_folders:
        raise SettingsError(
            "fix writes label files anew, and folders of classes have none.",
            hint="Delete or move the images that the check names.",
        )
    refuse_filled(folder)
    _refuse_inside(folder, result.dataset)
    chosen = {split.name: _usable_images(result, split) for split in result.splits}
    for split in result.splits:
        if not len(chosen[split.name]):
            raise SettingsError(
                f"fix={folder}: nothing would be left of {split.name}, whose images are all damaged or in a "
                "later split too.",
                hint="Divide the images between the splits first.",
            )
    copied = boxes = 0
    try:
        for split in result.splits:
            done = _write_split(split, chosen[split.name], folder)
            copied, boxes = copied + done[0], boxes + done[1]
        path = folder / "data.yaml"
        text = yaml.safe_dump(_content(result), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"fix={folder}: cannot be written ({error.strerror}: {error.filename}).",
            hint="Choose another folder; what is there now is not complete.",
        ) from None
    images = {split: len(kept) for split, kept in chosen.items()}
    left_out = {
        split.name: split.index.problems.dropped_images + len(split.index) - images[split.name]
        for split in result.splits
    }
    return CleanCopy(path, images, left_out, boxes, copied)


def label_rows(objects: Objects, height: int, width: int) -> str:
    """Objects in pixels as rows of YOLO text: corners, outline, keypoints or box, whichever says most.

    Args:
        objects: what is on the image.
        height: of the image.
        width: of the image.
    """
    extent = np.array([width, height], dtype=np.float64)
    rows = []
    for number, label in enumerate(objects.classes.tolist()):
        outline = objects.outline(number)
        if objects.corners is not None:
            values = (objects.corners[number] / extent).ravel()
        elif len(outline) and objects.keypoints is None:
            values = (outline / extent).ravel()
        else:
            low, high = objects.boxes[number].reshape(2, 2) / extent
            values = np.concatenate([(low + high) / 2, high - low])
        row = [str(label), *(f"{value:.6g}" for value in values.clip(0, 1))]
        if objects.keypoints is not None:
            for x, y, seen in objects.keypoints[number].tolist():
                row += [f"{x / width:.6g}", f"{y / height:.6g}", f"{seen:.0f}"]
        rows.append(" ".join(row) + "\n")
    return "".join(rows)


def _refuse_inside(folder: Path, dataset: DatasetFile) -> None:
    """A copy within a folder of images would become a part of the original."""
    target = folder.resolve()
    for source in (source for sources in dataset.splits.values() for source in sources if source.is_dir()):
        if target.is_relative_to(source.resolve()):
            raise SettingsError(
                f"fix={folder} lies in {source}, which belongs to the data set.",
                hint="Name a folder beside it.",
            )


def _usable_images(result: Inspection, split: Split) -> npt.NDArray[np.int64]:
    keep = np.ones(len(split.index), np.bool_)
    if result.pictures is not None:
        facts = result.pictures
        for images in (facts.damaged[split.name], facts.repeats[split.name], facts.leaked[split.name]):
            keep[list(images)] = False
    return np.flatnonzero(keep)


def _write_split(split: Split, images: Iterable[int], folder: Path) -> tuple[int, int]:
    """Writes images and labels; returns how many images were copied, and how many boxes were dropped."""
    index, doubled = split.index, np.zeros(len(split.index.boxes), np.bool_)
    doubled[split.facts.doubles[:, 1]] = True
    paths = {int(i): os.fsencode(index.path(int(i))) for i in images}
    start = os.path.commonpath([os.path.dirname(path) for path in paths.values()])
    taken: set[bytes] = set()
    copied = dropped = 0
    for i, path in paths.items():
        target = _target(os.path.relpath(path, start), os.fsencode(folder), split.name, taken)
        label = label_path(target)
        for place in (target, label):
            os.makedirs(os.path.dirname(place), exist_ok=True)
        copied += _link(path, target)
        mine = slice(int(index.offsets[i]), int(index.offsets[i + 1]))
        height, width = index.size(i)
        rows = label_rows(index.objects(i).take(~doubled[mine]), height, width)
        with open(label, "x", encoding="utf-8", newline="\n") as file:
            file.write(rows)
        dropped += int(doubled[mine].sum())
    return copied, dropped



def _target(relative: bytes, folder: bytes, split: str, taken: set[bytes]) -> bytes:
    """Where an image goes; two images that would share a label file get different names."""
    parts = [part for part in relative.split(os.fsencode(os.sep)) if part != b"images"]
    stem, suffix = os.path.splitext(os.path.join(folder, b"images", split.encode(), *parts))
    number, name = 1, stem
    while name.lower() in taken:  # file systems exist that do not tell case apart
        number += 1
        name = stem + b"-%d" % number
    taken.add(name.lower())
    return name + suffix


def _link(source: bytes, target: bytes) -> bool:
    """Links a file, or copies it where that is not possible; True when it was copied."""
    real = os.path.realpath(source)
    try:
        os.link(real, target)
        return False
    except OSError:
        shutil.copyfile(real, target)
        return True


def _content(result: Inspection) -> dict[str, Any]:
    """The data file of the copy: what the original says, with the new places."""
    assert result.dataset is not None
    raw = yaml.safe_load(result.dataset.path.read_bytes())
    kept = {key: raw[key] for key in _KEPT_KEYS if isinstance(raw, dict) and raw.get(key) is not None}
    places = {split.name: f"images/{split.name}" for split in result.splits}
    return {"path": ".", **places, "names": dict(result.splits[0].index.names), **kept}
