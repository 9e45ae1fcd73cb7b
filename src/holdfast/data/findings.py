"""What can be wrong with a data set, and what to do about it: one function per subject.

Three levels. An error means that training cannot start. A warning means that it can, but something was left
out, mended or is probably wrong. A note is a fact that explains results later and needs no action.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.data.boxes_check import DOUBLE_IOU, LONG_ASPECT, SPECK, WHOLE_SHARE, BoxFacts
from holdfast.data.index import Index
from holdfast.data.problems import REMEDIES

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

EXAMPLES = 5
CASES = 6  # pictures kept per finding
FEW_IMAGES = 20
CROWD = 300  # boxes; more than a detector answers by default
RARE = 100  # times fewer boxes than the most frequent class
_MANY_SPECKS = 0.1  # share of the boxes

# Mended without a loss: no reason to stop a pipeline.
_HARMLESS = frozenset((
    "duplicate row", "sixth column ignored", "box cut at the image border", "row without keypoints",
    "keypoints without visibility", "upright box among oriented ones", "crowd region skipped",
    "mask not read", "difficult object kept", "corners of a box swapped", "xml of another kind ignored",
))  # fmt: skip


class View(NamedTuple):
    """An image to look at, with the numbers of the boxes in question within its split."""

    split: str
    image: int
    boxes: tuple[int, ...] = ()

    def path(self, splits: Sequence[Split]) -> str:
        """The file."""
        return next(split for split in splits if split.name == self.split).index.path(self.image)


class Case(NamedTuple):
    """One picture of the report, or several side by side."""

    views: tuple[View, ...]
    caption: str


@dataclass(frozen=True)
class Finding:
    """Something to know about a data set.

    Attributes:
        level: how bad it is.
        kind: what was found, in the singular, as in "12 x class out of range".
        counts: how often, by split.
        examples: the first few or the worst, each with its place.
        remedy: what to do.
        cases: pictures that show it, worst first.
        mendable: a cleaned copy is free of it.
    """

    level: Level
    kind: str
    counts: dict[str, int]
    examples: list[str] = field(default_factory=list)
    remedy: str = ""
    cases: list[Case] = field(default_factory=list)
    mendable: bool = False

    @property
    def count(self) -> int:
        """How often in all splits together."""
        return sum(self.counts.values())

    @property
    def title(self) -> str:
        """`12 x class out of range (train 10, val 2)`; the message alone for an error."""
        if self.level == "error":
            return self.kind
        where = ", ".join(f"{split} {count:,}" for split, count in self.counts.items())
        if len(self.counts) == 1:
            where = next(iter(self.counts))
        return f"{self.count:,} x {self.kind}" + (f" ({where})" if where != "all" else "")


@dataclass(frozen=True)
class Split:
    """A split that can be read, and what is known about its boxes."""

    name: str
    index: Index
    facts: BoxFacts


Show = Callable[[str], str]  # a path as it should be printed


def problem_findings(splits: Sequence[Split], show: Show) -> list[Finding]:
    """What was noticed while scanning images and label files, reason by reason."""
    reasons = dict.fromkeys(reason for split in splits for reason in split.index.problems.counts)
    found = []
    for reason in reasons:
        have = [split for split in splits if reason in split.index.problems.counts]
        counts = {split.name: split.index.problems.counts[reason] for split in have}
        examples = [show(text) for split in have for text in split.index.problems.examples[reason]]
        remedy = REMEDIES[reason]
        if reason == "class out of range" and not any((split.index.classes == 0).any() for split in splits):
            remedy = f"No usable row has class 0: do the labels count from 1? {remedy}"
        level: Level = "note" if reason in _HARMLESS else "warning"
        found.append(Finding(level, reason, counts, examples[:EXAMPLES], remedy, mendable=True))
    return sorted(found, key=lambda finding: -finding.count)


def class_findings(splits: Sequence[Split]) -> list[Finding]:
    """Classes that are missing, in one split only, or rare."""
    names = splits[0].index.names
    counts = {split.name: class_counts(split.index) for split in splits}
    train = counts.get("train")
    total = np.sum(list(counts.values()), axis=0)
    found = []

    def add(level: Level, kind: str, where: Mapping[str, npt.NDArray[np.int64]], remedy: str) -> None:
        chosen = {split: numbers for split, numbers in where.items() if len(numbers)}
        examples = [
            f"class {number} ({names[number]}): " + ", ".join(f"{s} {c[number]:,}" for s, c in counts.items())
            for number in dict.fromkeys(int(n) for numbers in chosen.values() for n in numbers)
        ]
        if chosen:
            sizes = {split: len(numbers) for split, numbers in chosen.items()}
            found.append(Finding(level, kind, sizes, examples[:EXAMPLES], remedy))

    if train is not None:
        later = {split: count for split, count in counts.items() if split != "train"}
        unseen = {split: np.flatnonzero((count > 0) & (train == 0)) for split, count in later.items()}
        add("warning", "class that is measured but never trained", unseen,
            "Move images with these classes to train, or drop the classes.")  # fmt: skip
        blind = {split: np.flatnonzero((count == 0) & (train > 0)) for split, count in later.items()}
        add("note", "class that is trained but never measured", blind,
            "Its AP will be missing; move some images with it over.")  # fmt: skip
        present = train[train > 0]
        rare = np.flatnonzero((train > 0) & (train * RARE < present.max(initial=0)))
        add("note", f"class with under 1/{RARE} of the boxes of the most frequent one", {"train": rare},
            "Expect low recall on it; more examples help most.")  # fmt: skip
    add("note", "class without a box in any split", {"all": np.flatnonzero(total == 0)},
        "Fine if the names come from a larger data set; else look at the class numbers.")  # fmt: skip
    return found


def class_counts(index: Index) -> npt.NDArray[np.int64]:
    """Boxes of each class, in the order of `index.names`."""
    return np.bincount(index.classes, minlength=len(index.names)).astype(np.int64)


def image_findings(splits: Sequence[Split], show: Show) -> list[Finding]:
    """Splits with few images, many images without boxes, or crowded ones."""
    found = []
    few = [split for split in splits if len(split.index) < FEW_IMAGES]
    if few:
        kind = f"split of under {FEW_IMAGES} images"
        examples = [f"{split.name}: {len(split.index)}" for split in few]
        remedy = "What so few images teach or measure varies by chance; collect more if you can."
        found.append(Finding("note", kind, {split.name: 1 for split in few}, examples, remedy))
    empty = {
        split.name: split.index.backgrounds
        for split in splits
        if 2 * split.index.backgrounds > len(split.index)
    }
    if empty:
        examples = [
            show(split.index.path(int(i)))
            for split in splits
            if split.name in empty
            for i in np.flatnonzero(np.diff(split.index.offsets) == 0)[:EXAMPLES]
        ]
        remedy = "They count as backgrounds. Are label files missing? 5-10 % of backgrounds is plenty."
        kind = "image without a box, more than half of its split"
        found.append(Finding("warning", kind, empty, examples[:EXAMPLES], remedy))
    crowds = [
        (int(count), split, int(i))
        for split in splits
        for i, count in enumerate(np.diff(split.index.offsets))
        if count > CROWD
    ]
    if crowds:
        crowds.sort(key=lambda crowd: -crowd[0])
        examples = [f"{show(split.index.path(i))}: {count:,} boxes" for count, split, i in crowds[:EXAMPLES]]
        remedy = f"Validate and predict with --max-det above {CROWD}, or cut the images into tiles."
        counts = {split.name: sum(crowd[1] is split for crowd in crowds) for split in splits}
        cases = [
            Case((View(split.name, i),), f"{show(split.index.path(i))}: {count:,} boxes")
            for count, split, i in crowds[:2]
        ]
        kind = f"image with more than {CROWD} boxes"
        found.append(Finding("note", kind, _positive(counts), examples, remedy, cases))
    return found


def box_findings(splits: Sequence[Split], show: Show, *, imgsz: int) -> list[Finding]:
    """Boxes that are doubled, cover everything, or have an extreme form."""
    boxes = sum(len(split.index.boxes) for split in splits)
    specks = sum(len(split.facts.specks) for split in splits)
    many = specks > _MANY_SPECKS * boxes
    rules: list[tuple[Level, str, Callable[[BoxFacts], npt.NDArray[np.int64]], _Order, str]] = [
        ("warning", f"box drawn twice (same class, IoU above {DOUBLE_IOU:g})",
         lambda facts: facts.doubles, _none, "Delete one of each pair."),
        ("warning", f"object with two classes (IoU above {DOUBLE_IOU:g})",
         lambda facts: facts.rivals, _none, "Decide on one class, unless both are meant."),
        ("warning" if many else "note", f"box under {SPECK:g} pixels at imgsz {imgsz}",
         lambda facts: facts.specks, _small, "Train at a larger --imgsz, or cut the images into tiles."),
        ("note", f"box that covers over {WHOLE_SHARE:.0%} of its image",
         lambda facts: facts.whole, _large, "Right for close-ups; else the box is a slip of the hand."),
        ("note", f"box more than {LONG_ASPECT:g} times as long as wide",
         lambda facts: facts.long, _long, "Right for poles and lines; else a slip of the hand."),
    ]  # fmt: skip
    found = []
    for level, kind, choose, order, remedy in rules:
        numbers = {split.name: choose(split.facts) for split in splits}
        counts = _positive({name: len(rows) for name, rows in numbers.items()})
        if counts:
            cases = [
                case for split in splits for case in _box_cases(split, numbers[split.name], order, show)
            ]
            examples = [case.caption for case in cases[:EXAMPLES]]
            mendable = choose(splits[0].facts) is splits[0].facts.doubles
            found.append(Finding(level, kind, counts, examples, remedy, cases[:CASES], mendable))
    return found


_Order = Callable[[Index, npt.NDArray[np.int64]], npt.NDArray[np.float64]]


def _none(index: Index, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.zeros(len(numbers))


def _small(index: Index, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(index.boxes[numbers, 2:].min(axis=1), dtype=np.float64)


def _large(index: Index, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    sides = index.boxes[numbers, 2:].astype(np.float64)
    return -sides[:, 0] * sides[:, 1]


def _long(index: Index, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    sides = index.boxes[numbers, 2:].astype(np.float64)
    return np.minimum(sides[:, 0] / sides[:, 1], sides[:, 1] / sides[:, 0])


def _box_cases(split: Split, numbers: npt.NDArray[np.int64], order: _Order, show: Show) -> Iterable[Case]:
    """Images that hold the boxes in question, worst first, each image once."""
    flat = numbers if numbers.ndim == 2 else numbers[:, None]
    ranked = flat[np.argsort(order(split.index, flat[:, 0]), kind="stable")]
    images: dict[int, list[int]] = {}
    for row in ranked.tolist():
        image = int(split.facts.image[row[0]])
        if image in images or len(images) < CASES:
            images.setdefault(image, []).extend(row)
    for image, boxes in images.items():
        unique = tuple(dict.fromkeys(boxes))
        yield Case((View(split.name, image, unique),), _box_caption(split, image, unique, show))


def _box_caption(split: Split, image: int, boxes: tuple[int, ...], show: Show) -> str:
    index, box = split.index, boxes[0]
    height, width = index.sizes[image]
    sides = f"{index.boxes[box, 2] * width:.3g} x {index.boxes[box, 3] * height:.3g} pixels"
    classes = " and ".join(dict.fromkeys(index.names[int(index.classes[number])] for number in boxes[:2]))
    more = f", {len(boxes)} boxes" if len(boxes) > 2 else ""
    return f"{show(index.path(image))}: {classes}, {sides}{more}"


def _positive(counts: Mapping[str, int]) -> dict[str, int]:
    return {split: count for split, count in counts.items() if count}
