"""Rules on gradients: steps that were not finite, norms that run away, parts that learn nothing."""

from __future__ import annotations

import statistics
from collections import Counter

from holdfast.health.records import Event, Finding, History

EARLIER = 5  # epochs that a norm is compared with, at least
RUNAWAY = 20.0  # times its median before, the norm of all gradients
RUNAWAY_LAYER = 100.0  # the same of one part
VANISHED = 1e-4  # of its median before
LAST = 3  # epochs in a row that show it


def is_non_finite(event: Event) -> bool:
    """Whether an event is about a step whose loss or gradient was not finite."""
    return bool(event.facts.get("layers")) or "not finite" in str(event.facts.get("reason", ""))


def non_finite(history: History) -> list[Finding]:
    """Steps whose loss or gradient was NaN or infinite, with the layers and the steps."""
    events = [event for event in history.events if is_non_finite(event)]
    lost = [epoch.epoch for epoch in history.epochs if epoch.losses and epoch.loss is None]
    if not events and not lost:
        return []
    layers = Counter(layer for event in events for layer in event.facts.get("layers", ()))
    images = sorted({str(path) for event in events for path in event.facts.get("images", ())})
    steps = sorted({event.step for event in events})
    named = ", ".join(name for name, _ in layers.most_common(3))
    text = f"not finite: loss or gradient of {len(steps)} steps was NaN or infinite"
    if steps:
        text += f", first at step {steps[0]}" + (f" in {named}" if named else "")
    else:
        text = f"not finite: the loss of epoch {lost[0]} is NaN or infinite"
    facts = history.facts
    half = facts.precision.startswith("float16")
    remedy = "look at quarantine.csv for the images at fault" if images else "compute with a wider range"
    if not images and not half:
        remedy = "take smaller steps"
    flag = "--amp-dtype bfloat16" if half else "" if images else f"--lr0 {facts.lr0 / 2:g}"
    if facts.optimizer == "auto" and flag.startswith("--lr0"):
        flag = f"--optimizer SGD {flag}"
    return [
        Finding(
            rule="non-finite",
            level="warning",
            text=text,
            evidence={
                "steps": steps[:100],
                "count": len(steps),
                "layers": dict(layers.most_common(20)),
                "images": images[:20],
                "epochs": lost,
            },
            remedy=remedy,
            flag=flag,
            gain=100,
            epoch=max([event.epoch for event in events] + lost),
        )
    ]


def runaway(history: History) -> list[Finding]:
    """A gradient norm far above what it was: training is about to diverge."""
    norms = [(epoch.epoch, epoch.norm) for epoch in history.epochs if epoch.norm is not None]
    if len(norms) < EARLIER + LAST:
        return []
    usual = statistics.median(norm for _, norm in norms[:-LAST])
    last = [norm for _, norm in norms[-LAST:]]
    if usual <= 0 or min(last) <= RUNAWAY * usual:
        return []
    facts = history.facts
    lower = f"--lr0 {facts.lr0 / 3:.1g}"
    return [
        Finding(
            rule="gradient-runaway",
            level="warning",
            text=f"exploding gradients: their norm was {usual:.3g} and has been above {min(last):.3g} for "
            f"{LAST} epochs",
            evidence={"usual": usual, "last": last},
            remedy="take smaller steps, and warm up longer",
            flag=lower if facts.optimizer != "auto" else f"--optimizer SGD {lower}",
            gain=88,
            epoch=norms[-1][0],
        )
    ]


def layers(history: History) -> list[Finding]:
    """Parts of the model whose gradient has gone, never was there, or has grown out of all proportion."""
    rows = [epoch for epoch in history.epochs if epoch.layers]
    if len(rows) < LAST:
        return []
    before, last = rows[:-LAST], rows[-LAST:]
    gone, grown = {}, {}
    for name in last[-1].layers:
        now = [value for row in last if (value := row.layers.get(name)) is not None]
        then = [value for row in before if (value := row.layers.get(name)) is not None]
        usual = statistics.median(then) if len(then) >= EARLIER else None
        if len(now) == LAST and max(now) <= VANISHED * (usual or 0.0):
            gone[name] = max(now)
        elif usual and min(now, default=0.0) > RUNAWAY_LAYER * usual:
            grown[name] = min(now) / usual
    found = []
    if gone:
        found.append(
            Finding(
                rule="gradient-vanished",
                level="warning",
                text=f"vanishing gradients: {_names(list(gone))} got next to none for {LAST} epochs",
                evidence={"layers": gone},
                remedy="check that the labels hold objects for it, and start from trained weights",
                flag="--weights",
                gain=45,
                epoch=last[-1].epoch,
            )
        )
    if grown:
        worst = max(grown, key=lambda name: grown[name])
        found.append(
            Finding(
                rule="gradient-grown",
                level="warning",
                text=f"exploding gradients: those of {_names(list(grown))} have been up to "
                f"{grown[worst]:.0f} times their usual for {LAST} epochs",
                evidence={"layers": grown},
                remedy="take smaller steps",
                flag=f"--lr0 {history.facts.lr0 / 3:.1g}",
                gain=86,
                epoch=last[-1].epoch,
            )
        )
    return found


def _names(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
