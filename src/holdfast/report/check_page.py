"""check.html and labels.jpg of a check: one page without any other file or address, for wide and narrow
screens, light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np

from holdfast.data.boxes_check import SIZE_EDGES
from holdfast.data.check import Inspection
from holdfast.data.findings import Case, Finding, Split, class_counts
from holdfast.report.check_pictures import picture
from holdfast.report.label_plots import plot_labels
from holdfast.runs import write_atomic

_PICTURES = 60  # on the page in all, which keeps it to some megabytes
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5a6570; --paper: #ffffff; --card: #f4f6f8;
  --line: #d9dee3; --bar: #9cc4e4; --error: #b3261e; --warning: #8a5300; --note: #2b5f8a; --good: #1b6e3c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9ba6b1; --paper: #14181c;
  --card: #1e242a; --line: #343c44; --bar: #2c5f88; --error: #ff8a80; --warning: #f0b35a; --note: #8ec2ee;
  --good: #7ad39b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.45;
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 1.45rem; margin: 0 0 4px; } h2 { font-size: 1.12rem; margin: 34px 0 10px; }
p { margin: 4px 0; } .soft { color: var(--soft); } .path { overflow-wrap: anywhere; }
.verdict { font-size: 1.1rem; font-weight: 600; }
.error { --tone: var(--error); } .warning { --tone: var(--warning); } .note { --tone: var(--note); }
.good { --tone: var(--good); } .tone { color: var(--tone); }
article { background: var(--card); border-left: 4px solid var(--tone); border-radius: 4px; padding: 10px 14px;
  margin: 0 0 12px; }
article h3 { font-size: 1rem; margin: 0; overflow-wrap: anywhere; }
article h3 span { color: var(--tone); text-transform: uppercase; font-size: .74rem; letter-spacing: .05em;
  margin-right: 8px; }
ul { margin: 6px 0 2px; padding-left: 20px; }
li { overflow-wrap: anywhere; color: var(--soft); font-size: .88rem; }
.cases { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr));
  margin-top: 10px; align-items: start; }
.cases.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); }
figure { margin: 0; } figure div { display: flex; gap: 4px; }
figure div > * { flex: 1 1 0; min-width: 0; }
figure img { width: 100%; height: auto; max-height: 360px; object-fit: contain; display: block;
  border-radius: 3px; background: var(--line); }
figcaption { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere; margin-top: 3px; }
.scroll { overflow: auto; max-height: 30rem; border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
thead th { position: sticky; top: 0; background: var(--card); z-index: 1; }
td.bar, th + th { width: 18%; min-width: 84px; }
td.bar { background-image: linear-gradient(var(--bar), var(--bar)); background-repeat: no-repeat;
  background-position: left center; }
td.name { white-space: normal; min-width: 110px; overflow-wrap: anywhere; }
"""


def write_check(folder: Path, result: Inspection) -> Path:
    """Writes labels.jpg of the first readable split and check.html, and returns the page's path.

    Args:
        folder: an existing folder.
        result: what the check found; it must have a readable split.
    """
    index = result.splits[0].index
    plot_labels(index.classes, index.boxes, np.diff(index.offsets), index.names, folder / "labels.jpg")
    page = folder / "check.html"
    write_atomic(page, check_page(result).encode("utf-8", "backslashreplace"))
    return page


def check_page(result: Inspection) -> str:
    """The page as text."""
    source = str(result.dataset.path) if result.dataset else result.source
    tone = {0: "good", 1: "warning", 2: "error"}[result.exit_code]
    body = [
        f"<h1>{_text(_title(source))}</h1>",
        f'<p class="verdict {tone}"><span class="tone">{_text(result.verdict)}</span></p>',
        f'<p class="soft path">{_text(source)}</p>',
    ]
    if result.splits:
        body += ["<h2>Splits</h2>", _splits_table(result)]
    if result.findings:
        body += ["<h2>Findings</h2>", *_findings(result)]
    if result.splits:
        body += ["<h2>Boxes per class</h2>", _class_table(result.splits)]
        body += ["<h2>Size of boxes</h2>", _size_table(result.splits)]
        body.append('<p class="soft">Side: the square root of the share that a box has of its image.</p>')
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'\">"
        f"<title>Check of {_text(_title(source))}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _text(value: object) -> str:
    return escape(str(value))


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
    rows = [[f"<td>{_text(cell)}</td>" for cell in row] for row in zip(heads, *columns, strict=True)]
    note = '<p class="soft">Small: under 32 x 32 pixels; large: over 96 x 96, as COCO counts.</p>'
    return _table(["", *(split.name for split in result.splits)], rows) + note


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
    examples = "".join(f"<li>{_text(example)}</li>" for example in finding.examples) if not figures else ""
    listed = f"<ul>{examples}</ul>" if examples else ""
    return (
        f'<article class="{finding.level}"><h3><span>{finding.level}</span>{_text(finding.title)}</h3>'
        f"<p>{_text(finding.remedy)}</p>{listed}{shown}</article>"
    )


def _figure(case: Case, splits: Sequence[Split]) -> str:
    """A case with its pictures side by side; empty when none can be drawn."""
    by_name = {split.name: split for split in splits}
    sources = [picture(view, by_name[view.split]) for view in case.views]
    images = "".join(f'<img alt="" src="{source}">' for source in sources if source)
    caption = f"<figcaption>{_text(case.caption)}</figcaption>"
    return f"<figure><div>{images}</div>{caption}</figure>" if images else ""


def _class_table(splits: Sequence[Split]) -> str:
    names = splits[0].index.names
    counts = {split.name: class_counts(split.index).tolist() for split in splits}
    first = counts[splits[0].name]
    order = sorted(names, key=lambda number: -first[number])
    labels = [f"{names[number]} ({number})" for number in order]
    return _bars("class", labels, {name: [count[n] for n in order] for name, count in counts.items()})


def _size_table(splits: Sequence[Split]) -> str:
    edges = [0.0, *SIZE_EDGES]
    labels = [f"{low:.0%} to {high:.0%}" for low, high in pairwise(edges)]
    labels.append(f"{edges[-1]:.0%} and over")
    return _bars("side", labels, {split.name: split.facts.sides for split in splits})


def _bars(head: str, labels: Sequence[str], columns: Mapping[str, Sequence[int]]) -> str:
    """A table of counts, each cell with a bar as long as its share of the column's largest."""
    rows = []
    for place, label in enumerate(labels):
        cells = [f'<td class="name">{_text(label)}</td>']
        for counts in columns.values():
            length = 0.7 * counts[place] / max(max(counts, default=0), 1)
            cells.append(f'<td class="bar" style="background-size:{length:.1%} 72%">{counts[place]:,}</td>')
        rows.append(cells)
    return _table([head, *columns], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table from heads as text and cells as HTML, which scrolls where it does not fit."""
    top = "".join(f"<th>{_text(head)}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
