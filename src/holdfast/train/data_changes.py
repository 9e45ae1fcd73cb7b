"""Whether a run that goes on finds the data set it began with, and if not, what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.data.index import Index
from holdfast.data.listing import differences, listing, unpack
from holdfast.data.splits import spreads
from holdfast.errors import DataError

FILE = "data.npz"  # of a run folder: the images and labels it was made with


def data_changes(
    content: Mapping[str, Any] | None,
    folder: Path | None,
    splits: Mapping[str, Index],
    names: Mapping[int, str],
) -> list[str]:
    """Returns lines on what has changed in the data set since the checkpoint; none when nothing has.

    Args:
        content: the checkpoint; None for a run that starts.
        folder: its run folder, which lists the data; None where there is none.
        splits: `train` and `val` as they are now.
        names: the classes as they are now.

    Raises:
        DataError: the number of classes has changed, so the model no longer fits.
    """
    if content is None:
        return []
    facts = content["facts"]
    lines = _class_changes(facts.get("classes", names), names)
    for now in {spreads(index.sigmas) for index in splits.values()} - {facts.get("keypoints")}:
        if "keypoints" in facts:
            lines.append(f"keypoints were {facts['keypoints']}; now {now}")
    changed = {
        name: index for name, index in splits.items() if facts.get(f"{name}_fingerprint") != index.fingerprint
    }
    known = {}
    if changed and folder is not None and (folder / FILE).is_file():
        known = unpack((folder / FILE).read_bytes())
    for name, index in changed.items():
        kind = "training" if name == "train" else "validation"
        where = f"the {kind} images are not those of the run before"
        if name in known:
            found = differences(known[name], listing(index))
            lines.append(f"{where}: {'; '.join(found) or 'the same ones in another order'}")
        else:
            before = facts.get(f"{name}_images", "?")
            lines.append(f"{where} ({before} then, {len(index)} now; no {FILE} in the run folder says which)")
    if changed:
        lines.append("the run goes on with the data as they are now, so it will not end bit-identical")
    return lines


def _class_changes(before: Mapping[int, str], now: Mapping[int, str]) -> list[str]:
    if len(before) != len(now):
        raise DataError(
            f"The run has {len(before)} classes, but the data set now has {len(now)}: it cannot be resumed.",
            hint="Start a new run from its best.pt with --weights.",
        )
    other = [f"{number} is '{now[number]}', was '{before.get(number)}'" for number in now
             if before.get(number) != now[number]]  # fmt: skip
    return [f"class names have changed: {', '.join(other[:5])}"] if other else []
