"""What recomputing activations saves in memory and costs in time, level by level.

    python benchmarks/recompute.py
    python benchmarks/recompute.py --cells yolov9-c:640:2 --amp

Every level lives in a process of its own and they take turns. Of each is told: tensors alive after forward
and the most alive at any time of a step (gradients of weights included), both counted per image; how much
its resident memory grew at the peak of its first step; processor and clock time of a step.
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

from common import HERE, Side, emit, interleave, machine, spread, table, usable_cores

LEVELS = ("none", "norm", "stages")
CELLS = ["yolov9-s:640:4", "yolov9-c:640:2", "yolo26n:640:4", "yolo26x:640:1"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=CELLS, help="model:imgsz:batch")
    parser.add_argument("--amp", action="store_true", help="bfloat16 instead of float32")
    parser.add_argument("--boxes", type=int, default=7, help="boxes per image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", help="file to append the JSON lines to")
    options = parser.parse_args()
    emit({"what": "setup", **machine(options.threads), **vars(options)}, options.out)
    rows = []
    for cell in options.cells:
        rows += measure(cell, options)
    header = ["cell", "level", "kept MiB/image", "most MiB/image", "resident MiB/image", "CPU time", "time"]
    print(table(header, rows))


def measure(cell: str, options: argparse.Namespace) -> list[list[str]]:
    model, imgsz, batch = cell.split(":")
    command = [sys.executable, str(HERE / "own" / "train_step.py")]
    sides = {level: Side(level, command, threads=options.threads) for level in LEVELS}
    found: dict[str, dict[str, Any]] = {}
    for level, side in sides.items():
        side.ask("load", model=model, imgsz=int(imgsz), batch=int(batch), boxes=options.boxes)
        side.ask("recompute", level=level)
        found[level] = side.ask("peak", amp=options.amp) | side.ask("alive", amp=options.amp)
    step = {"do": "step", "amp": options.amp, "steps": 1}
    asks = {level: functools.partial(side.ask, **step) for level, side in sides.items()}
    replies = interleave(asks, rounds=options.rounds)
    for side in sides.values():
        side.close()
    for level, facts in found.items():
        facts["resident_mib"] = (facts["peak_mib"] - facts["before_mib"]) / int(batch)
        for key in ("cpu_per_image", "seconds_per_image"):
            facts[key] = spread(reply[key] for reply in replies[level])
        emit({"what": "cell", "cell": cell, "amp": options.amp, "level": level, **facts}, options.out)
    return [
        [
            cell + (" bf16" if options.amp else " fp32"),
            level,
            *(_share(facts[key], found["none"][key]) for key in ("kept_mib", "most_mib", "resident_mib")),
            *(
                f"x{facts[key]['median'] / found['none'][key]['median']:.2f}"
                for key in ("cpu_per_image", "seconds_per_image")
            ),
        ]
        for level, facts in found.items()
    ]


def _share(value: float, whole: float) -> str:
    return f"{value:.0f} ({value / whole:.2f})"


if __name__ == "__main__":
    main()
