"""What the runs of a certificate must show, and whether they do. The limits are the ones stated in it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.certify.runs import Trained, differing
from holdfast.health.memory import LEAK, WINDOW

SPREAD = 0.8  # points of AP50 between the best and the worst repeat, less than
LEARNT = 10.0  # points of AP50 of the worst repeat, at least: runs that learn nothing agree on nothing
PEAK_SPREAD = 0.05  # of the highest peak, at most
FIRST_LOSS = 60.0  # seconds from the command, at most
MAP50 = "metrics/mAP50(B)"


@dataclass(frozen=True)
class Verdict:
    """One thing that was looked at.

    Attributes:
        name: a word for it.
        title: what must hold.
        measured: what was seen, for people.
        limit: what is asked for.
        holds: whether it does.
        value: the number behind it, where it is one.
    """

    name: str
    title: str
    measured: str
    limit: str
    holds: bool
    value: float | None = None


def of_repeats(runs: Sequence[Trained], *, epochs: int, same_seed: bool) -> list[Verdict]:
    """Verdicts on undisturbed runs.

    Args:
        runs: they have all come to their end.
        epochs: of each.
        same_seed: they must then end equal to the last bit.
    """
    scores = [100 * run.metric(MAP50) for run in runs]
    spread = max(scores) - min(scores)
    peaks = [run.peak for run in runs]
    apart = (max(peaks) - min(peaks)) / max(max(peaks), 1)
    first = max(run.first_loss or math.inf for run in runs)
    leaks = [run.leak(steps_per_epoch=run.measures["steps"] / epochs) for run in runs]
    bad = sum(len(run.measures["bad_steps"]) for run in runs)
    still = sum(len(run.measures["still_steps"]) for run in runs)
    steps = sum(run.measures["steps"] for run in runs)
    found = [
        Verdict(
            "convergence", "Repeats end at the same mAP50",
            f"{spread:.2f} points between {min(scores):.1f} and {max(scores):.1f}",
            f"below {SPREAD} points, and all above {LEARNT:.0f}",
            spread < SPREAD and min(scores) >= LEARNT, spread,
        ),
        Verdict(
            "gradients", "Every gradient is finite, and none is zero everywhere",
            f"{bad} of {steps} steps with NaN or Inf, {still} with zeros only", "none",
            not bad and not still, bad + still,
        ),
        Verdict(
            "peak_memory", "Repeats need the same memory",
            f"{apart:.1%} between {min(peaks) / 2**20:.0f} and {max(peaks) / 2**20:.0f} MiB",
            f"up to {PEAK_SPREAD:.0%}", apart <= PEAK_SPREAD, apart,
        ),
        Verdict(
            "first_loss", "The first loss comes soon after the command", f"{first:.1f} s at the longest",
            f"up to {FIRST_LOSS:.0f} s", first <= FIRST_LOSS, first,
        ),
    ]  # fmt: skip
    if epochs >= WINDOW:  # for memory to have settled
        found.append(
            Verdict(
                "leak", "Memory does not grow",
                f"{max(leaks):+.2%} in ten epochs at most", f"up to {LEAK:.0%}",
                max(leaks) <= LEAK, max(leaks),
            )
        )  # fmt: skip
    if same_seed:
        odd = sorted({name for run in runs[1:] for name in differing(runs[0].folder, run.folder)})
        found.append(
            Verdict(
                "exactness",
                "One seed gives one result",
                _bits(odd),
                "equal to the last bit",
                not odd,
                len(odd),
            )
        )
    return found


def of_fault(name: str, title: str, run: Trained, reference: Trained, *, exact: bool, told: str) -> Verdict:
    """The verdict on a run with a fault.

    Args:
        reference: the same run without it.
        exact: they must end equal to the last bit.
        told: what the run must have said; empty asks for nothing.
    """
    done = run.code == 0 and bool(run.results)
    odd = differing(run.folder, reference.folder) if exact and done else []
    heard = told in run.said
    batch, usual = _batch(run.folder), _batch(reference.folder)
    if not done:
        measured = f"the run ended with exit code {run.code}"
    elif not heard:
        measured = f"the run came to its end and did not say '{told}'"
    elif batch != usual:
        measured = f"the batch became {batch} instead of {usual}"
    else:
        measured = "the run came to its end" + (
            f"; {_bits(odd)}" if exact else ", said so, and kept its batch"
        )
    limit = (
        "ends equal to an undisturbed run, to the last bit"
        if exact
        else "ends, with the batch it was asked for"
    )
    holds = done and heard and not odd and batch == usual
    return Verdict(name, title, measured, limit, holds, len(odd) if exact else None)


def _bits(odd: Sequence[str]) -> str:
    return (
        f"{len(odd)} tensors differ, such as {odd[0]}" if odd else "weights, average and optimizer are equal"
    )


def _batch(folder: Path) -> int:
    path = folder / "manifest.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["batch"]) if path.is_file() else 0
