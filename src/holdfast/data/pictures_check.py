"""What only the pixels of a data set tell: damaged images, duplicates, and pictures in several splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from holdfast.data.dataset_file import SPLITS
from holdfast.data.duplicates import Pair, Progress, find_leaks, find_pairs, fingerprint
from holdfast.data.findings import CASES, EXAMPLES, Case, Finding, Level, Show, Split, View

Match = tuple[View, View, Pair]


@dataclass(frozen=True)
class PictureFacts:
    """What was seen.

    Attributes:
        damaged: per split its images that cannot be decoded, and why.
        repeats: per split its images whose file is there before in the same split, byte by byte.
        again: pairs of such images, the earlier first.
        alike: pairs of one split whose pixels nearly agree.
        leaks: pairs from different splits, the same file or alike; the worst first.
        leaked: per split its images whose picture is in a later split too.
    """

    damaged: dict[str, dict[int, str]]
    repeats: dict[str, list[int]]
    again: list[Match]
    alike: list[Match]
    leaks: list[Match]
    leaked: dict[str, list[int]]


def look_at_pictures(
    splits: Sequence[Split], *, workers: int = 8, progress: Progress = lambda done, total: None
) -> PictureFacts:
    """Opens every image of all splits once.

    Args:
        splits: in the order train, val, test.
        workers: threads.
        progress: is told how many images were opened, and how many there are.
    """
    starts = np.cumsum([0, *(len(split.index) for split in splits)])
    order = [SPLITS.index(split.name) for split in splits]
    split_of = np.repeat(order, np.diff(starts)).tolist()
    start_of = dict(zip(order, starts.tolist(), strict=False))
    paths = [path for split in splits for path in split.index.paths]
    sizes = np.concatenate([split.index.sizes for split in splits])
    prints = fingerprint(paths, sizes, workers=workers, progress=progress)
    pairs = find_pairs(prints)
    leaks = find_leaks(pairs, split_of, prints)

    def view(position: int) -> View:
        return View(SPLITS[split_of[position]], position - start_of[split_of[position]])

    def match(pair: Pair) -> Match:
        return view(pair.first), view(pair.second), pair

    facts = PictureFacts(
        damaged={split.name: {} for split in splits},
        repeats={split.name: [] for split in splits},
        again=[],
        alike=[match(pair) for pair in pairs
               if not pair.same_file and split_of[pair.first] == split_of[pair.second]],
        leaks=[match(pair) for pair in leaks.pairs],
        leaked={split.name: [] for split in splits},
    )  # fmt: skip
    for position, reason in prints.damaged.items():
        facts.damaged[view(position).split][view(position).image] = reason
    for position in sorted(leaks.earlier):
        facts.leaked[view(position).split].append(view(position).image)
    first: dict[tuple[int, bytes], int] = {}
    for position, digest in enumerate(prints.digests):
        if position in prints.damaged:
            continue
        before = first.setdefault((split_of[position], digest.tobytes()), position)
        if before != position:
            facts.repeats[view(position).split].append(view(position).image)
            facts.again.append(match(Pair(before, position, 0, True)))
    return facts


def picture_findings(facts: PictureFacts, splits: Sequence[Split], show: Show) -> list[Finding]:
    """Lists what was seen, the most harmful first."""
    found = []

    def add(level: Level, kind: str, counts: dict[str, int], matches: list[Match], remedy: str) -> None:
        cases = [Case((left, right), _caption(left, right, pair, splits, show))
                 for left, right, pair in matches[:CASES]]  # fmt: skip
        examples = [case.caption for case in cases[:EXAMPLES]]
        counts = {split: count for split, count in counts.items() if count}
        if counts:
            found.append(Finding(level, kind, counts, examples, remedy, cases, level == "warning"))

    damaged = {split: len(images) for split, images in facts.damaged.items() if images}
    if damaged:
        reasons = [show(reason) for images in facts.damaged.values() for reason in images.values()]
        remedy = "Copy these files again or delete them; a run would skip them one by one."
        found.append(Finding("warning", "damaged image", damaged, reasons[:EXAMPLES], remedy, [], True))
    for later in SPLITS[1:]:
        matches = [match for match in facts.leaks if match[1].split == later]
        for earlier in dict.fromkeys(left.split for left, _, _ in matches):
            both = [match for match in matches if match[0].split == earlier]
            leaked = len({right.image for _, right, _ in both})
            remedy = f"Delete one of each pair, or numbers on {later} look better than they are."
            if all(left.path(splits) == right.path(splits) for left, right, _ in both):
                remedy = f"Give {later} images of its own, or its numbers only tell what was learnt by heart."
            add("warning", f"picture of {later} that is in {earlier} too", {later: leaked}, both, remedy)
    repeats = {split: len(images) for split, images in facts.repeats.items()}
    add("warning", "file that is there twice", repeats, facts.again, "Delete the copies.")
    alike = {split.name: sum(left.split == split.name for left, _, _ in facts.alike) for split in splits}
    remedy = "Fine for frames of a video or bursts; each picture counts as often as it is there."
    add("note", "pair of pictures that nearly agree", alike, facts.alike, remedy)
    return found


def _caption(left: View, right: View, pair: Pair, splits: Sequence[Split], show: Show) -> str:
    one, other = left.path(splits), right.path(splits)
    if one == other:
        return f"{show(one)} is in both"
    how = "same bytes" if pair.same_file else f"{pair.bits} of 64 bits differ" if pair.bits else "same look"
    return f"{show(one)} and {show(other)} ({how})"
