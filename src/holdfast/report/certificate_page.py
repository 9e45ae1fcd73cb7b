"""certificate.html: the verdicts of a certification on one page without any other file or address."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from holdfast.runs import write_atomic

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5a6570; --paper: #ffffff; --card: #f4f6f8;
  --line: #d9dee3; --good: #1b6e3c; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #9ba6b1; --paper: #14181c;
  --card: #1e242a; --line: #343c44; --good: #7ad39b; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 1.45rem; margin: 0 0 4px; } h2 { font-size: 1.12rem; margin: 34px 0 10px; }
p { margin: 4px 0; overflow-wrap: anywhere; } .soft { color: var(--soft); }
.good { --tone: var(--good); } .bad { --tone: var(--bad); } .tone { color: var(--tone); font-weight: 600; }
article { background: var(--card); border-left: 4px solid var(--tone); border-radius: 4px; padding: 10px 14px;
  margin: 0 0 10px; }
article h3 { font-size: 1rem; margin: 0; }
article h3 span { color: var(--tone); text-transform: uppercase; font-size: .74rem; letter-spacing: .05em;
  margin-right: 8px; }
.scroll { overflow: auto; border: 1px solid var(--line); border-radius: 4px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, table.facts td { text-align: left; }
table.facts td { white-space: normal; overflow-wrap: anywhere; } table.facts td:first-child { width: 11rem; }
tr:last-child td { border-bottom: 0; }
img { width: 100%; height: auto; border-radius: 4px; background: #ffffff; }
code { font-size: .9rem; overflow-wrap: anywhere; }
"""


def write_certificate(path: Path, content: Mapping[str, Any], picture: Path) -> Path:
    """Writes the page and returns its path.

    Args:
        content: as in certificate.json.
        picture: curves of the repeats, which the page takes in.
    """
    write_atomic(path, certificate_page(content, picture.read_bytes()).encode("utf-8", "backslashreplace"))
    return path


def certificate_page(content: Mapping[str, Any], picture: bytes) -> str:
    """The page as text; `picture` is a PNG."""
    verdicts = content["verdicts"]
    failed = [verdict for verdict in verdicts if not verdict["holds"]]
    head = (
        f"{len(failed)} of {len(verdicts)} verdicts fail" if failed else f"All {len(verdicts)} verdicts hold"
    )
    settings = content["settings"]
    title = f"Certificate: {settings.get('model', 'model')}"
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="{"bad" if failed else "good"}"><span class="tone">{head}</span></p>',
        f'<p class="soft">{_text(content["date"])}, on {_text(content["data"])}</p>',
        f"<p><code>{_text(content['command'])}</code></p>",
        "<h2>Verdicts</h2>",
        *(_card(verdict) for verdict in verdicts),
        "<h2>Repeats</h2>",
        _repeats(content["repeats"]),
        '<p class="soft">Leak: growth of the memory of the process in ten epochs, by a line through the last '
        "two thirds of its steps. Peak: at the end of a step.</p>",
        "<h2>Curves</h2>",
        f'<img alt="Curves of the repeats" src="data:image/png;base64,{base64.b64encode(picture).decode()}">',
        "<h2>Settings</h2>",
        _facts(settings),
        "<h2>Environment</h2>",
        _facts(content["environment"]),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _card(verdict: Mapping[str, Any]) -> str:
    tone, word = ("good", "holds") if verdict["holds"] else ("bad", "fails")
    return (
        f'<article class="{tone}"><h3><span>{word}</span>{_text(verdict["title"])}</h3>'
        f"<p>{_text(verdict['measured'])}</p>"
        f'<p class="soft">Asked for: {_text(verdict["limit"])}</p></article>'
    )


def _repeats(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = (
        "run",
        "seed",
        "mAP50",
        "mAP50-95",
        "steps",
        "time",
        "first loss",
        "peak",
        "leak",
        "gradient, clipped",
    )
    cells = [
        (
            row["run"], row["seed"], f"{row['mAP50']:.3f}", f"{row['mAP50-95']:.3f}", row["steps"],
            f"{row['seconds']:.0f} s", f"{row['first_loss_seconds']:.1f} s",
            f"{row['peak_bytes'] / 2**20:.0f} MiB",
            f"{row['leak_in_ten_epochs']:+.2%}", f"{row['largest_gradient_norm']:.3g}",
        )
        for row in rows
    ]  # fmt: skip
    top = "".join(f"<th>{head}</th>" for head in heads)
    lines = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in cells)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{_text(key)}</td><td>{_text(_said(value))}</td></tr>" for key, value in facts.items()
    )
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_said(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value)) or "none"
    return "none" if value is None else str(value)


def _text(value: object) -> str:
    return escape(str(value))
