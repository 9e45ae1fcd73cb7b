"""Trains under the supervisor until two hours of processor time are spent, and watches the memory.

Every half minute the memory of all processes of the run is written down: what they allocated (`anonymous`:
resident memory without the pages of files, which processes share with whoever else has loaded torch), and all
of it (`rss`). Then the run is stopped by SIGTERM, as a user would, and judged: allocated memory that grew by
less than 1 % between the second tenth of the time (the first is warm-up) and the last, no restart, and a
clean ending (exit code 143). Prints JSON lines and a summary. Exit code 1 when the run does not hold.

    python benchmarks/soak.py --data data.yaml --cpu-hours 2
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from common import machine

SUPERVISED_STOP = 128 + signal.SIGTERM


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--cpu-hours", type=float, default=2.0)
    parser.add_argument("--model", default="yolov9-t")
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="computing threads of the run")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two looks")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        return soak(Path(name), asked)


def soak(project: Path, asked: argparse.Namespace) -> int:
    """Runs the training in `project`, and returns the exit code."""
    keys = {
        "model": asked.model, "data": asked.data, "imgsz": asked.imgsz, "batch": asked.batch,
        "workers": asked.workers, "epochs": 1_000_000, "patience": 0, "save_every": "60s", "supervise": True,
        "device": "cpu", "project": project, "name": "soak",
    }  # fmt: skip
    words = [sys.executable, "-m", "holdfast", "train", *(f"{key}={value}" for key, value in keys.items())]
    threads = str(asked.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with (project / "out.log").open("w") as log:
        run = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment)
        looks: list[dict[str, float]] = []
        try:
            while run.poll() is None and (not looks or looks[-1]["cpu"] < 3600 * asked.cpu_hours):
                time.sleep(asked.every)
                look = look_at(psutil.Process(run.pid))
                if look is not None:
                    looks.append(look)
                    print(json.dumps(look), flush=True)
        finally:
            if run.poll() is None:
                run.terminate()
            code = run.wait()
    folder = project / "soak"
    incidents = sorted(path.name for path in (folder / "incidents").glob("*")) if folder.is_dir() else []
    first, last, growth = grown([look["anonymous"] for look in looks])
    epochs = sum(1 for _ in (folder / "results.csv").open()) - 1
    result = {
        "looks": len(looks), "cpu_s": looks[-1]["cpu"], "first": first, "last": last,
        "growth": round(growth, 5), "processes": looks[-1]["processes"], "epochs": epochs,
        "incidents": incidents, "exit": code,
    }  # fmt: skip
    print(json.dumps({**result, "machine": machine(asked.threads)}))
    print(f"\nprocessor time  {looks[-1]['cpu'] / 3600:.2f} h, {epochs} epochs")
    print(f"memory          {first / 2**20:.1f} MiB, then {last / 2**20:.1f} MiB: {100 * growth:+.2f} %")
    print(f"restarts        {len(incidents)}\nexit code       {code}")
    if incidents or code != SUPERVISED_STOP:
        print((project / "out.log").read_text()[-4000:])
    return 0 if growth < 0.01 and not incidents and code == SUPERVISED_STOP else 1


def look_at(process: psutil.Process) -> dict[str, float] | None:
    """Memory and times of a process and all below it; None when one of them ended meanwhile."""
    try:
        family = [process, *process.children(recursive=True)]
        times = [one.cpu_times() for one in family]
        memory = [one.memory_info() for one in family]
        return {
            "at": round(time.time(), 1),
            "cpu": round(sum(spent.user + spent.system for spent in times), 1),
            "anonymous": sum(held.rss - held.shared for held in memory),
            "rss": sum(held.rss for held in memory),
            "threads": sum(one.num_threads() for one in family),
            "files": sum(one.num_fds() for one in family),
            "processes": len(family),
        }
    except psutil.NoSuchProcess:
        return None


def grown(sizes: Sequence[float]) -> tuple[float, float, float]:
    """The medians of the second and of the last tenth, and by what share of the first the last is higher."""
    tenth = max(len(sizes) // 10, 1)
    first, last = statistics.median(sizes[tenth : 2 * tenth]), statistics.median(sizes[-tenth:])
    return first, last, last / first - 1


if __name__ == "__main__":
    sys.exit(main())
