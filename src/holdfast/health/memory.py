"""Rules on memory: leaks, fragmentation, a full device that has nothing to do, an idle rest of a busy one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from holdfast.health.records import Epoch, Finding, History, size

LEAK = 0.03  # growth of a window of a leak, more than
WINDOW = 10  # epochs
WINDOWS = 3  # in a row
FRAGMENTED = 0.25  # share of what the allocator holds that it cannot hand out, from which it is worth a word
CROWDED = 0.6  # and only where it holds this share of the device
FULL, IDLE = 0.95, 0.3  # more memory than this and less work than this: bound by data
ROOMY, BUSY = 0.7, 0.9  # less memory than this and more work than this: bound by computing


def leak(history: History) -> list[Finding]:
    """Memory of the host or the device that grows by more than 3 % in three windows of 10 epochs in a row."""
    found = []
    for where, values in (
        ("host", [epoch.rss for epoch in history.epochs]),
        ("device", [epoch.allocated or 0 for epoch in history.epochs]),
    ):
        growth = [growth_of(part) for part in windows(values)]
        runs = [
            start
            for start in range(len(growth) - WINDOWS + 1)
            if all(value > LEAK for value in growth[start : start + WINDOWS])
        ]
        if not runs:
            continue
        start, stop = runs[-1] * WINDOW, (runs[-1] + WINDOWS) * WINDOW
        first, last = history.epochs[start].epoch, history.epochs[stop - 1].epoch
        shares = growth[runs[-1] : runs[-1] + WINDOWS]
        each = (values[stop - 1] - values[start]) / (stop - start - 1)
        flag = "--cache off" if where == "host" and history.facts.cache == "ram" else ""
        flag = flag or ("--workers 0" if where == "host" else "--multi-scale 0")
        found.append(
            Finding(
                rule=f"leak-{where}",
                level="warning",
                text=f"memory leak: {where} memory grew from {size(values[start])} to "
                f"{size(values[stop - 1])} in epochs {first} to {last}, {size(each)} an epoch, by "
                f"{', '.join(f'{share:.1%}' for share in shares)} in ten each",
                evidence={"from": values[start], "to": values[stop - 1], "per_epoch": each, "growth": shares},
                remedy="a stop and --resume gives the memory back; to find out who holds it, run some epochs "
                "with less",
                flag=flag,
                gain=90,
                epoch=last,
            )
        )
    return found


def windows(values: Sequence[int]) -> list[Sequence[int]]:
    """Whole windows of ten values, one after another."""
    return [values[start : start + WINDOW] for start in range(0, len(values) - WINDOW + 1, WINDOW)]


def growth_of(values: Sequence[int]) -> float:
    """Growth over a window as a share of its start, by a line through it, so that one odd value does
    little.
    """
    slope, base = statistics.linear_regression(range(len(values)), values)
    return slope * len(values) / base if base > 0 else 0.0


def fragmentation(history: History) -> list[Finding]:
    """An allocator that holds much more than was in use at the peak, on a device that is getting full."""
    last = history.epochs[-3:]
    shares = [share for epoch in last if (share := fragments(epoch)) is not None]
    full = [
        epoch.reserved / epoch.capacity
        for epoch in last
        if epoch.reserved is not None and epoch.capacity is not None
    ]
    if len(shares) < 3 or min(shares) <= FRAGMENTED or min(full, default=0.0) < CROWDED:
        return []
    return [
        Finding(
            rule="fragmentation",
            level="advice",
            text=f"fragmented memory: {statistics.median(shares):.0%} of the {size(last[-1].reserved or 0)} "
            "that the allocator holds was not in use even at the peak",
            evidence={"fragmentation": shares, "reserved_share": full},
            remedy="set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True, or keep input sizes equal",
            flag="--multi-scale 0",
            gain=20,
            epoch=last[-1].epoch,
        )
    ]


def fragments(epoch: Epoch) -> float | None:
    """1 - allocated / reserved, at the peak; None where the device does not tell."""
    if not epoch.reserved or epoch.peak is None:
        return None
    return max(1 - epoch.peak / epoch.reserved, 0.0)


def share_held(history: History, epoch: Epoch) -> float | None:
    """Share of the memory the run may hold that it held; None where that is unknown."""
    held = max(epoch.reserved or 0, epoch.peak or 0, 0 if epoch.reserved is not None else epoch.rss)
    most = history.facts.limit or epoch.capacity
    return held / most if held and most else None


def pressure(history: History) -> list[Finding]:
    """Nearly all memory held, and hardly any work done: the device waits for data."""
    memory, work = _typical(history)
    if memory is None or work is None or not (memory > FULL and work < IDLE):
        return []
    facts = history.facts
    wait = statistics.median(epoch.wait_share for epoch in history.settled)
    return [
        Finding(
            rule="memory-full-device-idle",
            level="advice",
            text=f"data-bound: {memory:.0%} of the memory is held, but the device works only {work:.0%} of "
            "the time",
            evidence={"memory": memory, "utilisation": work, "wait_share": wait, "workers": facts.threads},
            remedy="let more workers make images, or keep decoded images",
            flag=f"--workers {facts.cores}" if facts.threads < facts.cores else "--cache ram",
            gain=65,
            epoch=history.epochs[-1].epoch,
        )
    ]


def spare(history: History) -> list[Finding]:
    """Memory left and a device at work all the time: computing is the limit."""
    memory, work = _typical(history)
    if memory is None or work is None or not (memory < ROOMY and work > BUSY):
        return []
    facts = history.facts
    if facts.precision.startswith("float32"):
        bfloat = "try 16-bit numbers, which halve what a step moves"
        remedy, flag = bfloat, "--amp --amp-dtype bfloat16"
    elif facts.recompute != "none":
        remedy, flag = "there is room to keep activations instead of making them again", "--ckpt off"
    else:
        return []
    return [
        Finding(
            rule="compute-bound",
            level="advice",
            text=f"compute-bound: the device works {work:.0%} of the time, and only {memory:.0%} of the "
            f"memory is held, in {facts.precision.split(',')[0]}",
            evidence={"memory": memory, "utilisation": work, "precision": facts.precision},
            remedy=remedy,
            flag=flag,
            gain=30,
            epoch=history.epochs[-1].epoch,
        )
    ]


def _typical(history: History) -> tuple[float | None, float | None]:
    """Medians over the last settled epochs: share of memory held, share of the time at work."""
    last = history.settled[-5:]
    memory = [share for epoch in last if (share := share_held(history, epoch)) is not None]
    work = [epoch.utilisation for epoch in last if epoch.utilisation is not None]
    return statistics.median(memory) if memory else None, statistics.median(work) if work else None
