"""Rules on speed: a run that became slow, and one that waits for its data."""

from __future__ import annotations

import statistics

from holdfast.health.records import Finding, History

COLLAPSED = 0.5  # of its own median speed
EARLIER = 3  # settled epochs before that, at least
LAST = 2  # epochs in a row
DATA_BOUND = 0.2  # share of the time spent waiting for data from which a run is told what to do
WINDOWS = 20  # windows of steps, at least, before those of one epoch are compared
LAST_WINDOWS = 6


def collapse(history: History) -> list[Finding]:
    """Epochs, or the last minutes of one, at less than half of the run's own median speed."""
    rows = [(epoch.images_per_second, epoch.wait_share) for epoch in history.settled]
    lasting, earlier, unit = LAST, EARLIER, "epochs"
    if len(rows) < EARLIER + LAST and len(history.windows) >= WINDOWS:
        rows = [(window.images_per_second, window.wait_share) for window in history.windows]
        lasting, earlier, unit = LAST_WINDOWS, WINDOWS - LAST_WINDOWS, "half minutes"
    if len(rows) < earlier + lasting:
        return []
    usual = statistics.median(speed for speed, _ in rows[:-lasting])
    last = rows[-lasting:]
    now = max(speed for speed, _ in last)
    if usual <= 0 or now >= COLLAPSED * usual:
        return []
    waited = statistics.median(wait for _, wait in rows[:-lasting])
    waits = statistics.median(wait for _, wait in last)
    by_data = waits > waited + 0.1
    remedy = (
        "the wait for images grew: look at the disk or network they come from, or keep them decoded"
        if by_data
        else "the steps themselves are slower: look for other programs on the device, its temperature, and "
        "memory that ran out"
    )
    return [
        Finding(
            rule="throughput-collapse",
            level="warning",
            text=f"throughput fell to {now:.1f} from {usual:.1f} images/s for {lasting} {unit}; data-wait "
            f"{waits:.0%}, before {waited:.0%}",
            evidence={"now": now, "usual": usual, "wait_share": waits, "wait_share_before": waited},
            remedy=remedy,
            flag="--cache ram" if by_data and history.facts.cache != "ram" else "",
            gain=80,
            epoch=history.epochs[-1].epoch if history.epochs else history.windows[-1].epoch,
        )
    ]


def data_wait(history: History) -> list[Finding]:
    """A run of which much is spent waiting for images."""
    facts = history.facts
    if len(history.epochs) < 2 and facts.epochs != 1:  # the first epoch fills caches
        return []
    wait = statistics.median(epoch.wait_share for epoch in history.settled)
    if wait < DATA_BOUND:
        return []
    flags, knobs = [], []
    if facts.threads < facts.cores:
        knobs.append(f"more workers (now {facts.threads}, there are {facts.cores} cores)")
        flags.append(f"--workers {facts.cores}")
    if facts.cache != "ram":
        knobs.append(f"cache=ram (now {facts.cache})")
        flags.append("--cache ram")
    knob = " or ".join(knobs) or "a machine with more cores for each device, or a smaller imgsz"
    return [
        Finding(
            rule="data-wait",
            level="warning",
            text=f"data-bound: {wait:.0%} of an epoch is spent waiting for images",
            evidence={
                "wait_share": wait,
                "workers": facts.threads,
                "cores": facts.cores,
                "cache": facts.cache,
            },
            remedy=f"{knob} would shorten it",
            flag=" ".join(flags),
            gain=min(70 + round(20 * wait), 89),
            epoch=history.epochs[-1].epoch,
        )
    ]
