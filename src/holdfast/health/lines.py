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
        *_scores(epoch),
    ]
    return "  ".join(part for part in parts if part)


def live_parts(
    window: Window,
    *,
    epochs: int,
    planned: int | None,
    left: tuple[float, float] | None = None,
    scored: Epoch | None = None,
    stage: str = "",
) -> list[list[tuple[int, str]]]:
    """What is drawn while an epoch is under way: lines of (rank, text), the lowest rank matters most.

    Args:
        window: the steps done last.
        epochs: of the whole run.
        planned: predicted peak in bytes; None where there is none.
        left: seconds until the end of the epoch and of the run; None while unknown.
        scored: the latest epoch that was validated.
        stage: what goes on instead of training.
    """
    going = window.images_per_second > 0 and not stage
    count = f"{window.done:>{len(str(window.steps))}}/{window.steps}"
    losses = [(10 + n, _loss(*term)) for n, term in enumerate(window.losses.items())]
    return [
        [
            (0, f"epoch {window.epoch}/{epochs}"),
            (1, count if window.steps else ""),
            (30, stage or (f"{window.images_per_second:.1f} img/s" if going else "")),
            (2, f"{duration(left[0])} left" if left and going else ""),
        ],
        [
            *(losses or [(10, "left out" if window.done else "")]),
            (33, "" if window.rate is None else f"lr {window.rate:.3g}"),
            (32, f"data-wait {window.wait_share:.0%}" if going else ""),
            (34, _memory(window.memory, planned) if window.memory else ""),
        ],
        [
            (3, f"ETA {duration(left[1])}" if left else ""),
            (31, _skipped(window.skipped)),
            *(() if scored is None else ((36 - n, text) for n, text in enumerate(_scores(scored)))),
            (37, "" if scored is None else f"in epoch {scored.epoch}"),
        ],
    ]


def live_line(lines: Sequence[Sequence[tuple[int, str]]]) -> str:
    """`live_parts` in one plain line, for where nothing can be drawn."""
    return "  ".join(text for line in lines for _, text in line if text)


def _scores(epoch: Epoch) -> list[str]:
    """What its validation found, in short."""
    named = (("mAP50", epoch.map50), ("mAP50-95", epoch.map), ("top-1", epoch.top1))
    return [f"{name} {value:.3f}" for name, value in named if value is not None]


def _loss(term: str, value: Number) -> str:
    return f"{term} {'nan' if value is None else f'{value:.3f}'}"


def _losses(losses: Mapping[str, Number]) -> str:
    return "  ".join(_loss(*term) for term in losses.items())


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
