"""Real trainings that are killed, and what is left of them: for tests and benchmarks of exact resumption.

A run is `holdfast train` in a process of its own. To kill it at a chosen point, a program of a few lines
makes a function of the package, or of torch, kill the process at its n-th call; nothing else is changed.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from holdfast.weights.digest import digest

SOURCE = str(Path(__file__).parents[1] / "src")
_KILLER = """
import importlib, os, signal, sys
module, path, count = sys.argv[1], sys.argv[2].split("."), int(sys.argv[3])
owner = importlib.import_module(module)
for name in path[:-1]:
    owner = getattr(owner, name)
inner, calls = getattr(owner, path[-1]), 0
def counted(*args, **keys):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*args, **keys)
setattr(owner, path[-1], counted)
from holdfast.cli.main import main
sys.exit(main(sys.argv[4:]))
"""


def command(data: Path, project: Path, name: str, **keys: object) -> list[str]:
    """The words of a training of a few seconds that saves as often as it can."""
    values: dict[str, object] = {
        "model": "gelan-t", "data": data, "imgsz": 64, "batch": 4, "epochs": 2, "workers": 2, "device": "cpu",
        "project": project, "name": name, "plots": False, "micro_batch": 64, "ckpt": "off",
        "save_every": "0.01s", "resume": "auto", "close_mosaic": 1,
    }  # fmt: skip
    return ["train", *(f"{key}={value}" for key, value in {**values, **keys}.items())]


def start(words: Sequence[str], *, kill: tuple[str, str, int] | None = None) -> subprocess.Popen[str]:
    """Starts `holdfast` with these words.

    Args:
        kill: a module, a name in it, and at which call of that name the process is killed.
    """
    before = ["-m", "holdfast"] if kill is None else ["-c", _KILLER, kill[0], kill[1], str(kill[2])]
    return subprocess.Popen(
        [sys.executable, *before, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"},
    )


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits for something to come true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def left(folder: Path) -> dict[str, str]:
    """What a finished run left: digests of each part of its checkpoint and of its best weights, and
    results.csv without the column of times.
    """
    last = torch.load(folder / "weights" / "last.pt", weights_only=True)
    best = torch.load(folder / "weights" / "best.pt", weights_only=True)
    whole = ("weights", "ema", "ema_updates", "optimizer", "step")
    parts = {key: digest({"part": last[key]}) for key in whole}
    parts["best"] = digest({"part": best["weights"]})
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = [{key: value for key, value in row.items() if key != "time"} for row in csv.DictReader(file)]
    parts["results.csv"] = repr(rows)
    parts["progress"] = repr({key: value for key, value in last["progress"].items() if key != "seconds"})
    return parts


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The parts in which two runs differ."""
    return [key for key in one if one[key] != other[key]]
