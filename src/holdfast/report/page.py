"""Pages without any other file or address, for wide and narrow screens, light and dark: their frame, their
look and the pieces they are made of.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

# Colours of charts stand here by the names in `panels.VARIABLES`.
STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5a6570; --paper: #ffffff; --card: #f4f6f8;
  --line: #d9dee3; --axis: #a8b0b8; --bar: #9cc4e4; --error: #b3261e; --warning: #8a5300; --note: #2b5f8a;
  --good: #1b6e3c; --blue: #0072b2; --orange: #d98e00; --green: #009e73; --pink: #c05f98; --red: #d55e00;
  --sky: #3a9fdc; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9ba6b1; --paper: #14181c;
  --card: #1e242a; --line: #343c44; --axis: #66717b; --bar: #2c5f88; --error: #ff8a80; --warning: #f0b35a;
  --note: #8ec2ee; --good: #7ad39b; --blue: #4da3dd; --orange: #f0b03c; --green: #2dbf95; --pink: #dd93c0;
  --red: #ec7a35; --sky: #8accf2; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.45;
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 1.45rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.12rem; margin: 34px 0 10px; }
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
.cases.small { grid-template-columns: repeat(auto-fill, minmax(min(47%, 170px), 1fr)); }
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


def document(title: str, body: Sequence[str], *, style: str = "") -> bytes:
    """A whole page.

    Args:
        title: as text.
        body: elements as HTML.
        style: further rules.
    """
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
        "style-src 'unsafe-inline'\">"
        f"<title>{text(title)}</title><style>{STYLE}{style}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )
    return page.encode("utf-8", "backslashreplace")


def text(value: object) -> str:
    """A value as text of the page."""
    return escape(str(value))


def data_uri(data: bytes, kind: str) -> str:
    """The address of a picture that is part of the page.

    Args:
        data: the file.
        kind: `png` or `jpeg`.
    """
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table from heads as text and cells as HTML, which scrolls where it does not fit."""
    top = "".join(f"<th>{text(head)}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bars(head: str, labels: Sequence[str], columns: Mapping[str, Sequence[int]]) -> str:
    """A table of counts, each cell with a bar as long as its share of the column's largest."""
    rows = []
    for place, label in enumerate(labels):
        cells = [f'<td class="name">{text(label)}</td>']
        for counts in columns.values():
            length = 0.7 * counts[place] / max(max(counts, default=0), 1)
            cells.append(f'<td class="bar" style="background-size:{length:.1%} 72%">{counts[place]:,}</td>')
        rows.append(cells)
    return table([head, *columns], rows)


def card(level: str, title: str, remedy: str, inside: str = "") -> str:
    """A finding: its level (`error`, `warning`, `note`, `good`), what it says, what to do, and HTML."""
    return (
        f'<article class="{level}"><h3><span>{level}</span>{text(title)}</h3>'
        f"<p>{text(remedy)}</p>{inside}</article>"
    )


def words(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of words, whose cells break, from heads and cells as text."""
    cells = [[f"<td>{text(cell)}</td>" for cell in row] for row in rows]
    return f'<div class="plain">{table(heads, cells)}</div>'


def listed(items: Iterable[object]) -> str:
    """A list; nothing without items."""
    shown = "".join(f"<li>{text(item)}</li>" for item in items)
    return f"<ul>{shown}</ul>" if shown else ""


def note(sentence: str) -> str:
    """A line of small importance."""
    return f'<p class="soft">{text(sentence)}</p>'


def lacks(what: str, more: str = "") -> str:
    """Says what the page would show if it were there."""
    return note(f"Not in this folder: {what}. {more}".strip())
