"""Seconds per image of a training step (forward, loss, backward, update) against the peer, in the same run.

    python benchmarks/train_step.py --peer-python PEER/bin/python

Two comparisons: each side as it is used by default on a CPU (ours in bfloat16 where the hardware has it, the
peer in float32), and float32 against float32. Same architecture (gelan-t is the peer's yolov9t: no auxiliary
branch; yolo26n is the same on both sides), same random images and boxes, SGD with Nesterov momentum on both
sides, data loading left out. A round is
`--steps` steps.
"""

from __future__ import annotations

import argparse
import functools
import sys
from typing import Any

from common import HERE, PEER_NAMES, Side, emit, interleave, machine, spread, table, usable_cores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="Python of an environment with the peer; absent: only our side")
    parser.add_argument("--models", nargs="+", default=["gelan-t", "gelan-s", "yolo26n"])
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--boxes", type=int, default=7, help="boxes per image")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="steps per round")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--profile", action="store_true", help="also list our slowest operators")
    parser.add_argument("--out", help="file to append the JSON lines to")
    options = parser.parse_args()
    emit({"what": "setup", **machine(options.threads), **vars(options)}, options.out)
    rows = []
    for model in options.models:
        rows += measure(model, options)
    header = ["model", "side", "ms/image", "range", "CPU ms/image", "ratio to peer float32", "split ms"]
    print(table(header, rows))


def measure(model: str, options: argparse.Namespace) -> list[list[str]]:
    shape = {"imgsz": options.imgsz, "batch": options.batch, "boxes": options.boxes}
    own = Side("holdfast", [sys.executable, str(HERE / "own" / "train_step.py")], threads=options.threads)
    setup = own.ask("load", model=model, **shape)
    sides = [own]
    ask: dict[str, Any] = {
        "holdfast float32": functools.partial(own.ask, "step", amp=False, steps=options.steps)
    }
    if setup["fast_bf16"]:
        ask["holdfast bfloat16"] = functools.partial(own.ask, "step", amp=True, steps=options.steps)
    if options.peer_python:
        peer = Side(
            "peer", [options.peer_python, str(HERE / "peer" / "train_step.py")], threads=options.threads
        )
        sides.append(peer)
        peer.ask("load", model=PEER_NAMES.get(model, model), **shape)
        ask["peer float32"] = functools.partial(peer.ask, "step", amp=False, steps=options.steps)
    for run in ask.values():  # warm-up
        run()
    replies = interleave(ask, rounds=options.rounds)
    if options.profile:
        for amp in {False, bool(setup["fast_bf16"])}:
            for name, ms, calls in own.ask("profile", amp=amp, steps=3)["rows"]:
                print(f"{model} {'bfloat16' if amp else 'float32'} {ms:9.2f} ms {calls:7.0f} x {name}")
    for side in sides:
        side.close()

    medians = {name: spread(r["seconds_per_image"] for r in rounds) for name, rounds in replies.items()}
    rows = []
    for name, rounds in replies.items():
        time = medians[name]
        ratio = medians["peer float32"]["median"] / time["median"] if "peer float32" in medians else None
        names = [
            key for key in rounds[0] if key in ("forward", "loss", "forward_loss", "backward", "optimizer")
        ]
        split = {key: spread(r[key] for r in rounds)["median"] for key in names}
        cpu = spread(r["cpu_per_image"] for r in rounds)
        record = {
            "cpu_seconds_per_image": cpu,
            "seconds_per_image": time,
            "split": split,
            "speed_up_over_peer_float32": ratio,
        }
        emit({"what": "train step", "model": model, "side": name, **record}, options.out)
        where = f"{1000 * time['min']:.1f} - {1000 * time['max']:.1f}"
        parts = ", ".join(f"{key} {1000 * spent:.1f}" for key, spent in split.items())
        gain = "" if ratio is None else f"{ratio:.2f}"
        rows.append(
            [model, name, f"{1000 * time['median']:.1f}", where, f"{1000 * cpu['median']:.1f}", gain, parts]
        )
    return rows


if __name__ == "__main__":
    main()
