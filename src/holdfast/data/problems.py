"""What goes wrong with labels and images of the real world: counted by reason, with a word on what to do.

Every reason that a reader may give stands in `REMEDIES`, so that no message ends without one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

_EXAMPLES = 5

# fmt: off
REMEDIES = {
    # rows of text labels
    "not YOLO text": "Expected rows of numbers; COCO json is named in data.yaml as 'train' or 'val'.",
    "NUL bytes": "Copy or export the file again.",
    "duplicate row": "Drop the copy; it counts once.",
    "not a number": "Expected numbers only; class names belong in data.yaml.",
    "NaN or infinite": "Expected finite numbers.",
    "wrong number of columns": "Complete the row, or drop it.",
    "class is not a whole number": "Expected a class number from 0.",
    "class out of range": "Correct the class, which counts from 0, or add it to 'names' in data.yaml.",
    "sixth column ignored": "Nothing to do; drop the confidence to be rid of this line.",
    "not normalised": "Divide x by the width and y by the height of the image.",
    "no area": "Drop the row.",
    "box cut at the image border": "Nothing to do; it counts up to the border.",
    "row without keypoints": "Nothing to do; its box counts, its points count as not labelled.",
    "keypoints without visibility": "Nothing to do; they count as visible, those at 0 0 as not labelled.",
    "visibility is not 0, 1 or 2": "Expected 0 (not labelled), 1 (hidden) or 2 (visible).",
    "keypoint outside the image": "Correct the point; it counts as not labelled.",
    "upright box among oriented ones": "Nothing to do; its corners are taken.",
    # COCO json and VOC xml
    "damaged image entry": "Expected id and file_name.",
    "damaged annotation": "Expected image_id, category_id and a bbox of four numbers.",
    "annotation of no image": "Drop it, or add the image's entry.",
    "class not in data.yaml": "Name the class in data.yaml, or drop the object.",
    "crowd region skipped": "Nothing to do; it stands for many objects at once.",
    "mask not read": "Nothing to do; the box counts. Export the mask again to have its outline.",
    "object without a box": "Add its box, or drop it.",
    "keypoints do not fit kpt_shape": "Correct kpt_shape in data.yaml; the box counts.",
    "size differs from the image": "Nothing to do where the image was only resized; else annotate it anew.",
    "difficult object kept": "Nothing to do; it counts as any other.",
    "corners of a box swapped": "Nothing to do; they are put in order.",
    "not readable xml": "Export the file again.",
    "xml with a document type": "Remove the <!DOCTYPE ...> part; no label needs one.",
    "xml of another kind ignored": "Nothing to do if it is no label; VOC files start with <annotation>.",
    # images and files
    "unreadable image": "Delete it, or copy it again.",
    "image under 10 pixels": "Delete it.",
    "unreadable label file": "Check the file and its permissions.",
    "no usable row": "Mend the label file; an empty one means that the image shows no object.",
    "fewer boxes than min_items": "Lower min_items to keep such images.",
    "images that share a label file": "Rename one of them, unless both show the same.",
}
# fmt: on


class Fault(NamedTuple):
    """Something noticed in a label file.

    Attributes:
        reason: short and countable, one of `REMEDIES`.
        detail: what stood there.
        line: line number from 1; 0 for the whole file.
        refused: True when the row (or file) was not used, False when it was mended.
    """

    reason: str
    detail: str
    line: int
    refused: bool


@dataclass
class Problems:
    """What was noticed while scanning, by reason.

    Attributes:
        counts: reason -> how often.
        examples: reason -> the first few, each with file, line and what stood there.
        dropped_images: images left out.
        dropped_rows: label rows left out.
    """

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    dropped_images: int = 0
    dropped_rows: int = 0

    def note(self, reason: str, example: str) -> None:
        """Counts one occurrence."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        known = self.examples.setdefault(reason, [])
        if len(known) < _EXAMPLES:
            known.append(example)

    def note_fault(self, file: str, fault: Fault) -> None:
        """Counts a fault of a label file."""
        line = f" line {fault.line}" if fault.line else ""
        self.note(fault.reason, f"{file}{line}: {fault.reason}: {fault.detail}")
        self.dropped_rows += fault.refused

    def add(self, other: Problems) -> None:
        """Counts everything another scan noticed."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            known = self.examples.setdefault(reason, [])
            known.extend(other.examples[reason][: _EXAMPLES - len(known)])
        self.dropped_images += other.dropped_images
        self.dropped_rows += other.dropped_rows

    def lines(self) -> list[str]:
        """Returns one line per reason, most frequent first: how often, the first example, what to do."""
        ranked = sorted(self.counts.items(), key=lambda item: -item[1])
        return [
            f"{count} x {reason}, for example {self.examples[reason][0]}. {REMEDIES.get(reason, '')}".rstrip()
            for reason, count in ranked
        ]

    def worst(self) -> str:
        """Returns a sentence on the most frequent reason; empty when nothing was noticed."""
        if not self.counts:
            return ""
        reason = max(self.counts, key=lambda key: self.counts[key])
        return f"Most often: {reason} ({self.counts[reason]} times), as in {self.examples[reason][0]}."
