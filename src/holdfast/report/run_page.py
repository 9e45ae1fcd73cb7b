"""report.html: all there is to know about a training, on one page that needs no other file and no network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from holdfast.health.lines import duration
from holdfast.health.memory import fragments
from holdfast.health.records import Finding, size
from holdfast.health.rules import examine
from holdfast.report.gradient_plots import gradient_panels
from holdfast.report.memory_plots import memory_panels
from holdfast.report.page import card, document, lacks, listed, note, table, text, words
from holdfast.report.panels import Panel, inline
from holdfast.report.plots import result_panels
from holdfast.report.rate_plots import rate_panels
from holdfast.report.run_folder import RunFolder
from holdfast.report.run_sections import Room, data, examples, incidents, prints
from holdfast.report.speed_plots import speed_panels
from holdfast.runs import write_atomic

PAGE = "report.html"
MOST = 6_000_000  # bytes of pictures; those that come last are left out
HEADS = {"instances": "objects", "precision": "P", "recall": "R", "map50": "mAP50", "map50_95": "mAP50-95"}
FRONTS = ("Box", "Mask", "Pose")  # what the curves of several things are told apart by
CURVES = (
    ("PR_curve.png", "precision against recall"), ("F1_curve.png", "F1 against confidence"),
    ("P_curve.png", "precision against confidence"), ("R_curve.png", "recall against confidence"),
)  # fmt: skip
CONFUSION = (
    ("confusion_matrix.png", "counts"), ("confusion_matrix_normalized.png", "share of each true class"),
)  # fmt: skip
_LEVELS = {"warning": "warning", "advice": "note", "good": "good"}
_STYLE = """
nav { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 14px 0 4px; font-size: .88rem; }
a { color: var(--note); text-decoration: none; } a:hover { text-decoration: underline; }
h3 { font-size: .98rem; margin: 18px 0 6px; }
.tiles { display: grid; gap: 10px; margin: 14px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(46%, 150px), 1fr)); }
.tiles div { background: var(--card); border-radius: 6px; padding: 10px 12px; overflow-wrap: anywhere; }
.tiles b { display: block; font-size: 1.28rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .8rem; }
.charts { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 345px), 1fr));
  align-items: start; }
.charts svg { display: block; width: 100%; height: auto; }
.prints { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr));
  margin-top: 14px; }
.prints.one { grid-template-columns: minmax(0, 900px); }
.prints figure { overflow-x: auto; }
.prints img { width: 100%; min-width: 520px; height: auto; max-height: none; background: #ffffff;
  border: 1px solid var(--line); border-radius: 6px; padding: 6px; }
.plain td { white-space: normal; text-align: left; overflow-wrap: anywhere; vertical-align: top; }
.plain th { text-align: left; width: auto; }
.plain td:first-child { white-space: nowrap; color: var(--soft); }
.plain .scroll { max-height: none; }
pre { background: var(--card); border-radius: 6px; padding: 10px 12px; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .84rem; margin: 6px 0; max-height: 24rem; overflow: auto; }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin: 0 5px 0 12px;
  vertical-align: -1px; border: 1px solid var(--axis); }
summary { cursor: pointer; margin: 8px 0; }
@media (max-width: 500px) { .plain td, .plain th { padding: 5px 6px; font-size: .84rem; }
  .plain td:first-child { white-space: normal; overflow-wrap: normal; } }
@media print { nav { display: none; } .scroll { max-height: none; } }
"""


def write_page(run: RunFolder) -> Path:
    """Writes report.html into the folder of a run and returns its path.

    Raises:
        OSError: the disk does not take it.
    """
    path = run.path / PAGE
    write_atomic(path, run_page(run))
    return path


def run_page(run: RunFolder) -> bytes:
    """The page; what a run folder lacks is said in its place."""
    number, room = count(), Room(MOST)
    sections: list[tuple[str, list[str]]] = [
        ("Findings", _findings(run)),
        ("Plan", _plan(run)),
        ("Curves", [_charts(result_panels(run.table), number) if run.table else lacks("results.csv")]),
        ("Validation", [_classes(run), prints(run, _curves(run), room), "<h3>Confusion</h3>",
                        prints(run, CONFUSION, room)]),
        ("Examples", examples(run, room)),
        ("Data set", data(run, room)),
        ("Memory", [_charts(memory_panels(run), number), _fragments(run)]),
        ("Gradients", [_charts(gradient_panels(run), number)]),
        ("Learning rate", [_charts(rate_panels(run), number)]),
        ("Throughput", [_charts(speed_panels(run), number)]),
        ("Incidents", incidents(run)),
        ("Batches", [prints(run, [(f"train_batch{i}.jpg", f"training batch {i}") for i in range(2)], room)]),
        ("Reproduce", _reproduce(run)),
        ("Environment", _environment(run)),
    ]  # fmt: skip
    links = "".join(f'<a href="#{_anchor(head)}">{text(head)}</a>' for head, _ in sections)
    body = [*_summary(run), f"<nav>{links}</nav>"]
    for head, parts in sections:
        body += [f'<h2 id="{_anchor(head)}">{text(head)}</h2>', *parts]
    return document(f"{run.path.name}: training report", body, style=_STYLE)


def _summary(run: RunFolder) -> list[str]:
    history, facts = run.history, run.manifest
    best = max(history.validated, key=lambda epoch: epoch.map or 0.0, default=None)
    done = history.epochs[-1].epoch if history.epochs else 0
    planned = max(int(run.args.get("epochs", 0) or history.facts.epochs), done)
    metrics = run.results.get("metrics") or (dict(best.metrics) if best else {})
    peaks = [value for epoch in history.epochs for value in (epoch.peak, epoch.val_peak) if value]
    peaks = peaks or [epoch.rss for epoch in history.epochs if epoch.rss]
    speeds = sorted(epoch.images_per_second for epoch in history.settled if epoch.images_per_second)
    seconds = run.table["time"][-1] if "time" in run.table else math.nan
    found = {name.removeprefix("metrics/"): value for name, value in metrics.items() if name != "fitness"}
    both = any(not name.endswith("(B)") for name in found)  # then the letters tell something
    tiles = [
        *((name if both else name.removesuffix("(B)"), _score(found[name])) for name in reversed(found)),
        ("best epoch", "-" if best is None else str(best.epoch)),
        ("epochs", f"{done} of {planned}"),
        ("time", duration(seconds) if math.isfinite(seconds) else "-"),
        ("images/s, median", f"{speeds[len(speeds) // 2]:.1f}" if speeds else "-"),
        ("peak memory", size(max(peaks)) if peaks else "-"),
    ]
    tone, verdict = _verdict(run, done, planned)
    model = facts.get("model", run.args.get("model", "unknown model"))
    what = f"{model} on {run.args.get('data', 'unknown data')}"
    return [
        f"<h1>{text(run.path.name)}</h1>",
        f'<p class="verdict {tone}"><span class="tone">{text(verdict)}</span></p>',
        f'<p class="soft path">{text(what)}</p>',
        '<div class="tiles">'
        + "".join(f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for name, value in tiles)
        + "</div>",
    ]


def _verdict(run: RunFolder, done: int, planned: int) -> tuple[str, str]:
    if run.finished:
        early = "" if done >= planned else f" early, after {done} of {planned} epochs"
        return "good", f"Finished{early}"
    if run.end and run.end != "finished":
        return "warning", f"Ended before its time: {run.end}"
    return "warning", "Under way, or ended without a word: there is no final validation yet"


def _findings(run: RunFolder) -> list[str]:
    found = examine(run.history)
    if not found:
        return [note("No rule found anything, good or bad. Some need ten epochs.")]
    return [card(_LEVELS[finding.level], finding.text, _remedy(finding)) for finding in found]


def _remedy(finding: Finding) -> str:
    return finding.remedy + (f" ({finding.flag})" if finding.flag else "")


def _plan(run: RunFolder) -> list[str]:
    facts = run.manifest
    plan = facts.get("plan") or {}
    if not facts:
        return [lacks("manifest.json")]
    cut = "in one piece"
    if plan.get("parts", 1) > 1:
        cut = f"in {plan['parts']} micro-batches of {plan['micro_batch']}"
    asked = run.args
    rows = [
        ("batch", facts.get("asked_batch"), f"{facts.get('batch')} images per step, {cut}", ""),
        ("input size", facts.get("asked_imgsz"), f"{facts.get('imgsz')} pixels",
         f"a multiple of {facts.get('stride')}" if facts.get("imgsz") != facts.get("asked_imgsz") else ""),
        ("memory", asked.get("memory_limit") or "all that is free", _predicted(plan), ""),
        ("recompute", asked.get("ckpt"), plan.get("recompute"), ""),
        ("precision", _precision_asked(asked), *_split(facts.get("precision"))),
        ("device", asked.get("device") or "the best there is", *_split(facts.get("device"))),
        ("optimizer", asked.get("optimizer"), *_split(facts.get("optimizer"))),
        ("validation", "", f"{plan.get('val_batch')} images at a time" if plan else "", ""),
    ]  # fmt: skip
    if facts.get("ranks", 1) > 1:
        rows.append(("processes", asked.get("ranks"), facts["ranks"], facts.get("batch_norm", "")))
    cells = [[_plainly(cell) for cell in row] for row in rows]
    reasons = [*plan.get("reasons", ()), *facts.get("cache", ()), *facts.get("augmentation", ())]
    return [words(["", "asked", "decided", "why"], cells), listed(reasons)]


def _predicted(plan: Mapping[str, Any]) -> str:
    if not plan.get("peak") or not plan.get("limit"):
        return "not measured"
    return f"predicted peak {size(plan['peak'])} of {size(plan['limit'])}"


def _precision_asked(asked: Mapping[str, Any]) -> str:
    return f"16 bits, {asked.get('amp_dtype', 'auto')}" if asked.get("amp", True) else "float32"


def _split(sentence: object) -> tuple[str, str]:
    """`AdamW, lr0 0.001 (auto: 70 steps)` -> what, why."""
    told = str(sentence or "")
    what, bracket, why = told.partition(" (")
    return (what, why.rstrip(")")) if bracket and told.endswith(")") else (told, "")


def _charts(panels: Iterable[Panel], number: Iterable[int]) -> str:
    drawn = [f"<div>{inline(panel, number=at)}</div>" for panel, at in zip(panels, number, strict=False)]
    return f'<div class="charts">{"".join(drawn)}</div>'


def _fragments(run: RunFolder) -> str:
    """How much of what the allocator of a device kept could not be used."""
    shares = [share for epoch in run.history.epochs if (share := fragments(epoch)) is not None]
    if not shares:
        return ""
    return note(f"Fragmentation, 1 - peak / reserved: {shares[-1]:.0%} last, {max(shares):.0%} at most.")


def _curves(run: RunFolder) -> list[tuple[str, str]]:
    """The curves that this kind of model has; none of a classifier."""
    if any("top1" in name for name in run.results.get("metrics", {})):
        return []
    fronts = [front for front in FRONTS if (run.path / f"{front}{CURVES[0][0]}").is_file()]
    return [
        (f"{front}{name}", f"{front}: {caption}" if front else caption)
        for front in fronts or [""] for name, caption in CURVES
    ]  # fmt: skip


def _classes(run: RunFolder) -> str:
    """What was measured of each class."""
    rows = run.results.get("classes") or []
    if not rows:
        return lacks("results.json", "It comes with the validation at the end of a run.")
    keys = [key for key in rows[0] if key not in ("class", "f1") and not key.endswith("_f1")]
    by = "map50_95" if "map50_95" in keys else keys[-1]
    cells = [
        [f'<td class="name">{text(row.get("class"))}</td>',
         *(f"<td>{_cell(row.get(key))}</td>" for key in keys)]
        for row in sorted(rows, key=lambda row: row.get(by) or 0.0)
    ]  # fmt: skip
    return table(["class, worst first", *(HEADS.get(key, key.replace("_", " ")) for key in keys)], cells)


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else "-"


def _reproduce(run: RunFolder) -> list[str]:
    parts = []
    for key, about in (("reproduce", "The same training again:"), ("command", "As it was started:")):
        if run.manifest.get(key):
            parts.append(f'<p class="soft">{about}</p><pre>{text(run.manifest[key])}</pre>')
    if run.args:
        keys = words(["key", "value"], [(key, _plainly(value)) for key, value in run.args.items()])
        parts.append(f"<details><summary>All settings</summary>{keys}</details>")
    else:
        parts.append(lacks("args.yaml"))
    return parts


def _environment(run: RunFolder) -> list[str]:
    facts = run.manifest
    if not facts:
        return [lacks("manifest.json")]
    known = [
        ("Holdfast", "holdfast"), ("torch", "torch"), ("Python", "python"), ("system", "platform"),
        ("device", "device"), ("precision", "precision"), ("compiled", "compiled"), ("processes", "ranks"),
        ("model", "model"), ("weights from", "origin"), ("parameters", "parameters"),
        ("training images", "train_images"), ("fingerprint of the training images", "train_fingerprint"),
        ("validation images", "val_images"), ("fingerprint of the validation images", "val_fingerprint"),
    ]  # fmt: skip
    rows = [(name, _plainly(facts[key])) for name, key in known if facts.get(key) not in (None, "")]
    return [words(["", ""], rows)]


def _plainly(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _score(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def _anchor(head: str) -> str:
    return head.lower().replace(" ", "-")
