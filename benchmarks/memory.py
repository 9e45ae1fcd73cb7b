"""Training a batch under memory limits: measured peak, predicted peak, speed, plan; each cell a new process.

    python benchmarks/memory.py --device 0 --peer-python PEER/bin/python   # plays smaller cards
    python benchmarks/memory.py --device cpu --models yolov9-s --limits 0 6 --steps 20

The first command does all models and limits, and the peer, in an environment of its own, beside each. On a
CUDA device the allocator is forbidden to take more than the limit (a fraction of the card), so a cell that
finished has kept it. On a CPU the limit is the setting `memory_limit`, and the peak is the resident memory
that the kernel counted during the steps. A limit of 0 means none. Limits are GB (10^9 bytes) on a CPU, GiB on
a CUDA device, as cards are sold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from common import HERE, MARK, PEER_NAMES, emit, machine, table, usable_cores

MODELS = ["yolov9-s", "yolov9-c", "yolov9-e", "yolo26n", "yolo26x"]
PEERS = {**PEER_NAMES, "yolov9-s": "yolov9s", "yolov9-c": "yolov9c", "yolov9-e": "yolov9e"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="0", help="number of a CUDA device, or cpu")
    parser.add_argument("--peer-python", help="Python of an environment with the peer; absent: only our side")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--limits", nargs="+", type=float, default=[0, 24, 16, 8, 4])
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--boxes", type=int, default=20, help="boxes per image")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of a cell, after one")
    parser.add_argument("--out", help="file to append the JSON lines to")
    options = parser.parse_args()
    unit = 10**9 if options.device == "cpu" else 2**30
    setup = {**machine(usable_cores()), "card": card(options.device), **vars(options)}
    emit({"what": "setup", **setup}, options.out)
    rows = []
    for model in options.models:
        free = None
        for limit in options.limits:
            shape = {key: getattr(options, key) for key in ("imgsz", "batch", "boxes", "steps", "device")}
            request = {"model": model, "limit": int(limit * unit) or None, **shape}
            own = run([sys.executable, str(HERE / "own" / "memory.py")], request)
            peer: dict[str, Any] = {}
            if options.peer_python:
                theirs = {**request, "model": PEERS.get(model, model)}
                peer = run([options.peer_python, str(HERE / "peer" / "memory.py")], theirs)
            if not limit:
                free = own.get("images_per_second")
            emit({"what": "memory", **request, "own": own, "peer": peer}, options.out)
            rows.append(row(model, limit, own, peer, free, unit))
    header = ["model", "limit", "peak", "predicted", "off", "images/s", "of free", "plan", "peer peak"]
    print(table([*header, "peer images/s"], rows))


def run(command: list[str], request: dict[str, Any]) -> dict[str, Any]:
    """Runs a cell in a process of its own; a process that dies is a result too."""
    done = subprocess.run([*command, json.dumps(request)], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            reply: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return reply
    print(done.stderr[-2000:], file=sys.stderr)
    return {"failure": f"ended with code {done.returncode}"}


def row(
    model: str, limit: float, own: dict[str, Any], peer: dict[str, Any], free: float | None, unit: int
) -> list[str]:
    """One line of the table; sizes in the unit of the limits."""
    cells = [model, f"{limit:g}" if limit else "none"]
    if "failure" in own:
        cells += [own["failure"], "", "", "", "", ""]
    else:
        plan, peak, speed = own["plan"], own["peak"], own["images_per_second"]
        guess = plan["peak"]
        cells += [f"{peak / unit:.2f}", "" if guess is None else f"{guess / unit:.2f}"]
        cells += ["" if guess is None else f"{100 * (guess - peak) / peak:+.0f} %", f"{speed:.3g}"]
        cells += [f"{100 * speed / free:.0f} %" if free else ""]
        cells += [f"{plan['parts']} x {plan['micro_batch']}, {plan['recompute']}"]
    if "failure" in peer or not peer:
        return [*cells, peer.get("failure", ""), ""]
    return [*cells, f"{peer['peak'] / unit:.2f}" if peer["peak"] else "", f"{peer['images_per_second']:.3g}"]


def card(device: str) -> str:
    """Name of a CUDA device; empty for a CPU."""
    if device == "cpu":
        return ""
    import torch

    return str(torch.cuda.get_device_name(int(device)))


if __name__ == "__main__":
    main()
