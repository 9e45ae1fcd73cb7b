"""check.html and labels.jpg of a check: one page without any other file or address, for wide and narrow
screens, light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from holdfast.data.boxes_check import SIZE_EDGES
from holdfast.data.check import Inspection
from holdfast.data.findings import Case, Finding, Split, class_counts
from holdfast.report.check_pictures import picture
from holdfast.report.label_plots import plot_labels
from holdfast.report.page import bars, card, document, table, text
from holdfast.runs import write_atomic

_PICTURES = 60  # on the page in all, which keeps it to some megabytes


def write_check(folder: Path, result: Inspection) -> Path:
    """Writes labels.jpg of the first readable split and check.html, and returns the page's path.

    Args:
        folder: an existing folder.
        result: what the check found; it must have a readable split.
    """
    index = result.splits[0].index
    plot_labels(index.classes, index.boxes, np.diff(index.offsets), index.names, folder / "labels.jpg")
    page = folder / "check.html"
    write_atomic(page, check_page(result))
    return page


def check_page(result: Inspection) -> bytes:
    """The page."""
    source = str(result.dataset.path) if result.dataset else result.source
    tone = {0: "good", 1: "warning", 2: "error"}[result.exit_code]
    body = [
        f"<h1>{text(_title(source))}</h1>",
        f'<p class="verdict {tone}"><span class="tone">{text(result.verdict)}</span></p>',
        f'<p class="soft path">{text(source)}</p>',
    ]
    if result.splits:
        body += ["<h2>Splits</h2>", _splits_table(result)]
    if result.findings:
        body += ["<h2>Findings</h2>", *_findings(result)]
    if result.splits:
        body += ["<h2>Boxes per class</h2>", _class_table(result.splits)]
        body += ["<h2>Size of boxes</h2>", _size_table(result.splits)]
        body.append('<p class="soft">Side: the square root of the share that a box has of its image.</p>')
    return document(f"Check of {_title(source)}", body)


def _title(source: str) -> str:
    """`bccd/data.yaml`: enough to tell data sets apart."""
    return "/".join(Path(source).parts[-2:])


def _splits_table(result: Inspection) -> str:
    heads = ["images", "images left out", "images without boxes", "boxes", "label rows left out",
             "small boxes", "medium boxes", "large boxes"]  # fmt: skip
    columns = []
    for split in result.splits:
        index, total = split.index, max(len(split.index.boxes), 1)
        counts = [len(index), index.problems.dropped_images, index.backgrounds, len(index.boxes),
                  index.problems.dropped_rows]  # fmt: skip
        shares = [f"{count / total:.0%}" for count in split.facts.area]
        columns.append([*(f"{count:,}" for count in counts), *shares])
    rows = [[f"<td>{text(cell)}</td>" for cell in row] for row in zip(heads, *columns, strict=True)]
    note = '<p class="soft">Small: under 32 x 32 pixels; large: over 96 x 96, as COCO counts.</p>'
    return table(["", *(split.name for split in result.splits)], rows) + note


def _findings(result: Inspection) -> list[str]:
    cards, left = [], _PICTURES
    for finding in result.findings:
        drawn = [_figure(case, result.splits) for case in finding.cases[:left]]
        left -= len(drawn)
        cards.append(_card(finding, [figure for figure in drawn if figure]))
    return cards


def _card(finding: Finding, figures: Sequence[str]) -> str:
    pairs = " pairs" if any(len(case.views) > 1 for case in finding.cases) else ""
    shown = f'<div class="cases{pairs}">{"".join(figures)}</div>' if figures else ""
    examples = "".join(f"<li>{text(example)}</li>" for example in finding.examples) if not figures else ""
    listed = f"<ul>{examples}</ul>" if examples else ""
    return card(finding.level, finding.title, finding.remedy, listed + shown)


def _figure(case: Case, splits: Sequence[Split]) -> str:
    """A case with its pictures side by side; empty when none can be drawn."""
    by_name = {split.name: split for split in splits}
    sources = [picture(view, by_name[view.split]) for view in case.views]
    images = "".join(f'<img alt="" src="{source}">' for source in sources if source)
    caption = f"<figcaption>{text(case.caption)}</figcaption>"
    return f"<figure><div>{images}</div>{caption}</figure>" if images else ""


def _class_table(splits: Sequence[Split]) -> str:
    names = splits[0].index.names
    counts = {split.name: class_counts(split.index).tolist() for split in splits}
    first = counts[splits[0].name]
    order = sorted(names, key=lambda number: -first[number])
    labels = [f"{names[number]} ({number})" for number in order]
    return bars("class", labels, {name: [count[n] for n in order] for name, count in counts.items()})


def _size_table(splits: Sequence[Split]) -> str:
    edges = [0.0, *SIZE_EDGES]
    labels = [f"{low:.0%} to {high:.0%}" for low, high in pairwise(edges)]
    labels.append(f"{edges[-1]:.0%} and over")
    return bars("side", labels, {split.name: split.facts.sides for split in splits})
