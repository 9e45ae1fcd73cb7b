"""Records as lines for people: the same while a run works and when it is followed from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.health.records import Epoch, Finding, History, Number, Window

SHORT = 3  # findings told at the end of a run


def duration(seconds: float) -> str:
    """Returns `1:02:03` or `02:03`."""
    minutes, secs = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes:02d}:{secs:02d}"


def epoch_line(epoch: Epoch, epochs: int, planned: int | None) -> str:
    """The line that stays for an epoch.

    Args:
        epoch: what is known of it.
        epochs: of the whole run.
        planned: predicted peak in bytes; None where there is none.
    """
    held = epoch.peak if epoch.peak is not None else epoch.rss
    timed = epoch.images_per_second > 0  # not where results.csv is all there is
    parts = [
        f"epoch {epoch.epoch}/{epochs}",
        _losses(epoch.losses),
        f"{epoch.images_per_second:.1f} img/s" if timed else "",
        f"data-wait {epoch.wait_share:.0%}" if timed else "",
        _memory(held, planned) if held else "",
        _skipped(epoch.skipped),
        "" if epoch.map50 is None else f"mAP50 {epoch.map50:.3f}",
        "" if epoch.map is None else f"mAP50-95 {epoch.map:.3f}",
    ]
    return "  ".join(part for part in parts if part)


def live_line(window: Window, epochs: int, planned: int | None, left: float | None, columns: int) -> str:
    """The line that is drawn over and over; on a narrow terminal the parts that matter least are left out.

    Args:
        window: the steps done last.
        epochs: of the whole run.
        planned: predicted peak in bytes; None where there is none.
        left: seconds until the end; None while unknown.
        columns: characters it may have.
    """
    parts = [  # in the order they stand, with the order in which they matter
        (0, f"epoch {window.epoch}/{epochs}"),
        (1, f"{window.done}/{window.steps}"),
        (3, _losses(window.losses) or "left out"),
        (4, f"{window.images_per_second:.1f} img/s"),
        (6, f"data-wait {window.wait_share:.0%}"),
        (7, _memory(window.memory, planned)),
        (5, _skipped(window.skipped)),
        (2, "" if left is None else f"ETA {duration(left)}"),
    ]
    shown: set[int] = set()
    room = columns + 2
    for rank, text in sorted(parts):
        if text and len(text) + 2 <= room:
            shown.add(rank)
            room -= len(text) + 2
    return "  ".join(text for rank, text in parts if rank in shown)[:columns]


def _losses(losses: Mapping[str, Number]) -> str:
    return "  ".join(f"{term} {'nan' if x is None else f'{x:.3f}'}" for term, x in losses.items())


def _memory(held: int, planned: int | None) -> str:
    """Held and planned memory: `5.91/6.40 GiB`."""
    of = "" if planned is None else f"/{planned / 2**30:.2f}"
    return f"{held / 2**30:.2f}{of} GiB"


def _skipped(images: int) -> str:
    return f"skipped {images}" if images else ""


def run_line(history: History) -> str:
    """What a run is and how far it came."""
    facts, epochs = history.facts, history.epochs
    scored = [epoch for epoch in history.validated if epoch.map is not None]
    best = max(scored, key=lambda epoch: epoch.map or 0.0, default=None)
    score = "" if best is None else f", best mAP50-95 {best.map:.3f} in epoch {best.epoch}"
    planned = max(facts.epochs, epochs[-1].epoch if epochs else 0)
    done = epochs[-1].epoch if epochs else 0
    return f"{facts.model or 'a model'}, {done} of {planned} epochs{score}"


def advice_lines(findings: Sequence[Finding]) -> list[str]:
    """Findings with their remedies, numbered by expected gain; what goes well after them."""
    lines = []
    for number, finding in enumerate((f for f in findings if f.level != "good"), 1):
        lines.append(f"{number}. {finding.text}")
        if finding.remedy:
            lines.append(f"   {finding.remedy}")
        if finding.flag:
            lines.append(f"   {finding.flag}")
    lines += [f"+  {finding.text}" for finding in findings if finding.level == "good"]
    return lines or ["nothing to say: no rule found anything, good or bad"]


def short_advice(findings: Sequence[Finding], folder: Path) -> list[str]:
    """The greatest gains on a line each, for the end of a run."""
    useful = [finding for finding in findings if finding.level != "good"]
    lines = [f"advice: {finding.line()}" for finding in useful[:SHORT]]
    return [*lines, f"more of it: holdfast advise {folder}"] if len(useful) > SHORT else lines
