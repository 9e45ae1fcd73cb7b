"""data.yaml: where the images are and what the classes are called.

Paths mean what users of other programs expect: `path` may be absolute, relative to the yaml, or relative to
the working directory; each of train/val/test is a folder, a list file, a glob, a COCO json, or a list of
these, looked for below `path`, beside the yaml, in the working directory, and last without its leading `../`
(some exports write one too many). The first that exists counts. A split that does not exist is an error only
when it is asked for. `images` tells where the images of a COCO json are, when it is none of the usual places.
Where `train` is a folder of class folders, of the names in `names` if there are any, images are classified.
"""

from __future__ import annotations

import glob
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.data.class_folders import class_names, class_splits, classes_in
from holdfast.data.safe_yaml import kind, read_mapping, show
from holdfast.errors import DataError, did_you_mean

SPLITS = ("train", "val", "test")
_KNOWN_KEYS = (
    *SPLITS,
    "path",
    "names",
    "nc",
    "imgsz",
    "kpt_shape",
    "flip_idx",
    "kpt_names",
    "kpt_oks_sigmas",
    "download",
    "channels",
    "images",
)


@dataclass(frozen=True)
class DatasetFile:
    """A data set description with its paths found.

    Attributes:
        path: the yaml file.
        root: folder the splits are relative to.
        names: class names by index, 0 to n - 1 without gaps.
        splits: per split the existing folders, images, list files (.txt), COCO json
            files and glob patterns, absolute.
        faults: per split named in the file but not found, the error to raise when it is asked for.
        imgsz: default input size, when the file names one.
        keypoints: (count, numbers per point) of pose data sets.
        sigmas: spread of the labels of each keypoint, of pose data sets that say so (`kpt_oks_sigmas`).
        image_folders: per split the folders in which images of a COCO json are looked for first.
        flip_idx: which keypoint each becomes in a mirror, of pose data sets that say so.
        class_folders: whether the splits are folders of classes, and images have no objects.
    """

    path: Path
    root: Path
    names: dict[int, str]
    splits: dict[str, list[Path]]
    faults: dict[str, DataError] = field(default_factory=dict)
    imgsz: int | None = None
    keypoints: tuple[int, int] | None = None
    flip_idx: tuple[int, ...] | None = None
    image_folders: dict[str, list[Path]] = field(default_factory=dict)
    class_folders: bool = False
    sigmas: tuple[float, ...] | None = None

    def split(self, name: str) -> list[Path]:
        """Returns the sources of a split.

        Raises:
            DataError: the file does not name the split, or its paths do not exist.
        """
        if name in self.splits:
            return self.splits[name]
        if name in self.faults:
            raise self.faults[name]
        have = ", ".join(self.splits) or "no split"
        what, hint = "entry", f"Add a line like '{name}: images/{name}'."
        if name == "val":
            hint += " Having no images for it, name those of 'train' once more."
        if self.path.is_dir():
            what, hint = "folder", f"Move some images of each class to '{self.path / name / '<class>'}'."
        raise DataError(f"has no '{name}' {what} (it has {have}).", path=self.path, hint=hint)


def read_dataset_file(source: Path | str) -> DatasetFile:
    """Reads a data set description.

    Args:
        source: the yaml file, or a folder that holds `data.yaml` or folders of classes (`class_folders.py`).

    Raises:
        DataError: missing or unreadable file, unsafe or broken yaml, no class names, `nc` that disagrees.
    """
    folder = Path(source).expanduser()
    if folder.is_dir() and not any(folder.glob("*.y*ml")) and (classes := class_splits(folder)):
        names = dict(enumerate(class_names(classes["train"])))
        splits = {split: [place.resolve()] for split, place in classes.items()}
        return DatasetFile(folder.resolve(), folder.resolve(), names, splits, class_folders=True)
    path = _find(folder)
    content = read_mapping(path)
    root, tried = _root(content, path)
    splits = {}
    folders: dict[str, list[Path]] = {}
    faults: dict[str, DataError] = {}
    for split in SPLITS:
        entries = content.get(split)
        if entries is None or entries == "" or entries == []:
            continue
        try:
            found = _sources(split, entries, path, tried)
            if any(source.suffix.lower() == ".json" for source in found):
                folders[split] = _image_folders(split, content.get("images"), path, tried)
            splits[split] = found
        except DataError as error:
            faults[split] = error
    if not splits and not faults:
        near = next(
            (hint for key in content if key not in _KNOWN_KEYS and (hint := did_you_mean(str(key), SPLITS))),
            "",
        )
        raise DataError(
            "names no images.",
            path=path,
            hint=f"Add lines like 'train: images/train' and 'val: images/val'.{near}",
        )
    folders_of = classes_in(splits.get("train", []))
    if folders_of and not any(content.get(key) for key in ("names", "nc")):
        names = dict(enumerate(folders_of))
    else:
        names = _names(content, path)
    keypoints = _keypoints(content, path)
    return DatasetFile(
        path,
        root,
        names,
        splits,
        faults,
        _size(content, path),
        keypoints,
        _flip_idx(content, keypoints, path),
        folders,
        class_folders=bool(folders_of) and set(folders_of) <= set(names.values()),
        sigmas=_sigmas(content, keypoints, path),
    )


def _find(path: Path) -> Path:
    if path.is_dir():
        inside = path / "data.yaml"
        found = [inside] if inside.is_file() else sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        if len(found) == 1:
            return found[0].resolve()
        hint = "Give the path of the yaml file."
        if classes_in([path]):
            train, val = path / "train", path / "val"
            hint = f"If its folders are classes, move them to '{train}', and some of the images to '{val}'."
        raise DataError("is a folder without a data.yaml.", path=path, hint=hint)
    if path.is_file():
        return path.resolve()
    for suffix in (".yaml", ".yml"):
        if not path.suffix and path.with_suffix(suffix).is_file():
            return path.with_suffix(suffix).resolve()
    raise DataError("no such data file.", path=path, hint=("Check --data." + _near(path)).strip())


def _near(path: Path) -> str:
    """Suggests the sibling nearest in name to the first missing part of a path."""
    missing = path
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    try:
        names = os.listdir(missing.parent)
    except OSError:
        return ""
    hint = did_you_mean(missing.name, names)
    return hint.replace("'", f"'{missing.parent}{os.sep}", 1) if hint else ""


def _name(value: object, path: Path) -> str:
    if isinstance(value, list | dict | set | tuple):
        raise DataError(
            f"names holds {show(value)}, expected one word or phrase per class.",
            path=path,
            hint="Rewrite names.",
        )
    return str(value)


def _names(content: dict[str, Any], path: Path) -> dict[int, str]:
    raw, count = content.get("names"), content.get("nc")
    if count is not None:
        try:
            count = int(count)
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"nc is {show(count)}, expected a whole number.", path=path, hint="Correct or drop nc."
            ) from None
        if not 1 <= count <= 100_000:
            raise DataError(f"nc is {count}, expected at least 1.", path=path, hint="Correct or drop nc.")
    if raw is None or raw in ([], {}, ""):
        if count is None:
            near = next(
                (hint for key in content if (hint := did_you_mean(str(key), ["names"])) and key != "names"),
                "",
            )
            raise DataError(
                "has no class names.", path=path, hint=f"Add 'names:' with one name per class.{near}"
            )
        return {index: f"class{index}" for index in range(count)}
    if isinstance(raw, list):
        names = {index: _name(name, path) for index, name in enumerate(raw)}
    elif isinstance(raw, dict):
        names = _mapped_names(raw, count, path)
    else:
        raise DataError(
            f"names is a {kind(raw)}, expected a list or 'index: name' lines.",
            path=path,
            hint="Rewrite names.",
        )
    if count is not None and count != len(names):
        raise DataError(
            f"nc is {count}, but names lists {len(names)} classes.",
            path=path,
            hint="Correct one of them, or drop nc.",
        )
    return names


def _mapped_names(raw: dict[Any, Any], count: int | None, path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for key, name in raw.items():
        try:
            index = int(key)
        except (TypeError, ValueError, OverflowError):
            index = -1
        if not 0 <= index < 100_000:
            raise DataError(
                f"names has the key {show(key)}, expected class numbers from 0 ('0: cat').",
                path=path,
                hint="Rewrite names.",
            )
        if index in names:
            raise DataError(f"names lists class {index} twice.", path=path, hint="Drop one of them.")
        names[index] = _name(name, path)
    size = max(max(names) + 1, count if count is not None and count > max(names) else 0)
    return {index: names.get(index, f"class{index}") for index in range(size)}  # gaps get a stand-in


def _size(content: dict[str, Any], path: Path) -> int | None:
    size = content.get("imgsz")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise DataError(
            f"imgsz is {show(size)}, expected a whole number of pixels.",
            path=path,
            hint="Correct or drop it.",
        )
    return size


def _keypoints(content: dict[str, Any], path: Path) -> tuple[int, int] | None:
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(value) is int for value in shape)
        or shape[0] < 1
        or shape[1] not in (2, 3)
    ):
        raise DataError(
            f"kpt_shape is {show(shape)}, expected [count, 2 or 3].", path=path, hint="Correct it."
        )
    return shape[0], shape[1]


def _flip_idx(
    content: dict[str, Any], keypoints: tuple[int, int] | None, path: Path
) -> tuple[int, ...] | None:
    order = content.get("flip_idx")
    if order is None or order == [] or keypoints is None:
        return None
    if (
        not isinstance(order, list)
        or not all(type(value) is int for value in order)
        or sorted(order) != list(range(keypoints[0]))
        or any(order[order[at]] != at for at in range(keypoints[0]))
    ):
        raise DataError(
            f"flip_idx is {show(order)}, expected each of {keypoints[0]} keypoints once, in pairs.",
            path=path,
            hint="Give for every keypoint the number of the one it becomes in a mirror.",
        )
    return tuple(order)


def _sigmas(
    content: dict[str, Any], keypoints: tuple[int, int] | None, path: Path
) -> tuple[float, ...] | None:
    given = content.get("kpt_oks_sigmas")
    if given is None or given == [] or keypoints is None:
        return None
    if (
        not isinstance(given, list)
        or len(given) != keypoints[0]
        or not all(type(value) in (int, float) and 0 < value < math.inf for value in given)
    ):
        raise DataError(
            f"kpt_oks_sigmas is {show(given)}, expected a positive number for each of {keypoints[0]}.",
            path=path,
            hint="Give how far labels of each keypoint lie apart, as a share of the object's size (0.05).",
        )
    return tuple(map(float, given))


def _root(content: dict[str, Any], path: Path) -> tuple[Path, list[Path]]:
    """Returns the folder that `path` names (its first reading when none exists), and all places to look."""
    given = content.get("path")
    beside, here = path.parent, Path.cwd()
    if given is None or given == "":
        return beside, [beside, here]
    if not isinstance(given, str):
        raise DataError(f"path is {show(given)}, expected a folder.", path=path, hint="Correct or drop path.")
    try:
        folder = Path(given).expanduser()
        bases = [Path(os.path.normpath(base / folder)) for base in (beside, here)]  # absolute stays itself
        root = next((base for base in bases if base.is_dir()), bases[0])
    except (OSError, ValueError, RuntimeError) as error:
        raise _impossible(f"path: {given[:80]!r}", error, path) from None
    return root, list(dict.fromkeys([root, *bases, beside, here]))


def _sources(split: str, entries: object, path: Path, places: list[Path]) -> list[Path]:
    listed = entries if isinstance(entries, list) else [entries]
    sources: list[Path] = []
    for entry in listed:
        if not isinstance(entry, str) or not entry.strip():
            raise DataError(
                f"{split} holds {show(entry)}, expected a folder, a list file, a COCO json or a glob.",
                path=path,
                hint="Correct it.",
            )
        try:
            sources.append(_locate(split, entry.strip(), path, places))
        except (OSError, ValueError, RuntimeError) as error:  # a NUL, a name too long, an unknown ~user
            raise _impossible(f"{split}: {entry[:80]!r}", error, path) from None
    return sources


def _image_folders(split: str, given: object, path: Path, places: list[Path]) -> list[Path]:
    """Folders of the images of a COCO json: `images: folder`, or per split `images: {train: folder}`."""
    entries = given.get(split) if isinstance(given, dict) else given
    if entries is None or entries == "" or entries == []:
        return []
    return _sources("images", entries, path, places)


def _one_line(text: str) -> str:
    """A path as it fits into a message."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[:300])


def _impossible(what: str, error: Exception, path: Path) -> DataError:
    return DataError(f"{what} is not a possible path ({error}).", path=path, hint="Correct it.")


def _locate(split: str, entry: str, path: Path, places: list[Path]) -> Path:
    wanted = Path(
        entry.replace("\\", "/") if os.sep == "/" and not Path(entry).exists() else entry
    ).expanduser()
    shorter = Path(*[part for part in wanted.parts if part != ".."]) if ".." in wanted.parts else None
    tries = [(place, wanted) for place in places]
    if shorter is not None and not wanted.is_absolute():
        tries += [(place, shorter) for place in places]
    candidates = list(dict.fromkeys(Path(os.path.normpath(place / part)) for place, part in tries))
    for candidate in candidates:
        if candidate.exists():
            return candidate
    for place, part in tries if glob.has_magic(str(wanted)) else ():
        pattern = os.path.normpath(os.path.join(glob.escape(str(place)), part))
        if next(glob.iglob(pattern, recursive=True), None) is not None:
            return Path(pattern)
    looked = ", ".join(_one_line(str(candidate)) for candidate in candidates[:3])
    raise DataError(
        f"{split}: {_one_line(repr(entry))} does not exist (looked for {looked}).",
        path=path,
        hint=("Correct 'path' or the entry." + _one_line(_near(candidates[0]))).strip(),
    )
