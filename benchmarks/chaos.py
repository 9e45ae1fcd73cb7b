"""Kills trainings at random times and starts them again by the same command, until they finish.

Each run must end with the weights, average, optimizer and results.csv of a run that nobody killed, to the
last bit. Prints one JSON line per start and per run, and a table. Exit code 1 when a run differs.

    python benchmarks/chaos.py --kills 100
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import machine
from holdfast.data.shapes import write_demo

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]
from killing import command, differing, left, start  # noqa: E402 - what the tests start and compare


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="end after the run in which this is reached")
    parser.add_argument("--minutes", type=float, default=60.0, help="end after the run in which it is over")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=30, help="images of the drawn data set")
    parser.add_argument("--model", default="gelan-t")
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        return chaos(Path(name), asked)


def chaos(folder: Path, asked: argparse.Namespace) -> int:
    """Kills runs in `folder`, and returns the exit code."""
    data = write_demo(folder / "shapes", images=asked.images)
    keys = {"epochs": asked.epochs, "model": asked.model}
    began = time.monotonic()
    run = start(command(data, folder, "whole", **keys))
    out, _ = run.communicate()
    assert run.returncode == 0, out
    whole, length = left(folder / "whole"), time.monotonic() - began
    note(whole=True, seconds=round(length, 1))
    times = random.Random(asked.seed)
    kills, runs, bad = 0, 0, 0
    places: Counter[str] = Counter()
    while kills < asked.kills and time.monotonic() - began < 60 * asked.minutes:
        runs += 1
        words = command(data, folder, f"run{runs}", **keys)
        starts = 0
        while True:
            starts += 1
            run = start(words)
            after, since = times.uniform(0, length), time.monotonic()
            try:
                out, _ = run.communicate(timeout=after)
                if starts == 1:  # a machine that has less to do now would finish most runs in peace
                    length = min(length, time.monotonic() - since)
            except subprocess.TimeoutExpired:  # it is still at work
                run.kill()
                out, _ = run.communicate()
                kills += 1
                places[place(out)] += 1
                note(run=runs, start=starts, after=round(after, 2), it=place(out), from_=origin(out))
                continue
            assert run.returncode == 0, out
            break
        other = differing(whole, left(folder / f"run{runs}"))
        bad += bool(other)
        note(run=runs, starts=starts, differs_in=other, seconds=round(time.monotonic() - began, 1))
    print(f"\n{json.dumps(machine(1))}\n")
    print("| killed while it | times |\n| --- | --- |")
    for word, count in places.most_common():
        print(f"| {word} | {count} |")
    print(f"\n{kills} kills in {runs} runs, {runs - bad} of them bit-identical to a run that nobody killed.")
    return int(bad > 0)


def place(out: str) -> str:
    """Where a run was, by what it had said."""
    if "validating the" in out:
        return "validated for the last time"
    if "Holdfast" not in out:
        return "was starting"
    return f"was in epoch {len(re.findall(r'^epoch ', out, re.MULTILINE)) + resumed_epoch(out) + 1}"


def resumed_epoch(out: str) -> int:
    """Epochs that a run found done."""
    found = re.search(r"resumed after epoch (\d+)", out)
    return int(found[1]) if found else 0


def origin(out: str) -> str:
    """From where a run went on."""
    found = re.search(r"resumed after (.*)", out)
    return found[1] if found else ""


def note(**facts: object) -> None:
    """Prints a JSON line."""
    print(json.dumps({key.rstrip("_"): value for key, value in facts.items()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
