"""Fair timing of two programs on one machine: both live in processes of their own and take turns, round by
round.

A side is a process that answers JSON requests on its standard input, one line each, with JSON lines on its
standard output. Only one side works at a time. Rounds alternate and the order inside a round flips, so that a
drifting clock speed or a neighbour's load hits both alike; medians are reported, and the spread beside them.

Standard library only: the peer's Python imports this file too.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

PEER_NAMES = {f"gelan-{size}": f"yolov9{size}" for size in "tsmce"}
"""What the peer calls our models, where the names differ."""

MARK = (
    "@@side "  # libraries print to standard output as they like; replies are the lines that start with this
)
HERE = Path(__file__).resolve().parent


def serve(actions: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Answers requests until standard input closes. A request is {"do": action, ...keyword arguments}."""
    print(MARK + json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        reply = actions[request.pop("do")](**request)
        print(MARK + json.dumps(reply), flush=True)


class Side:
    """One of the programs compared.

    Args:
        name: for tables.
        command: program and arguments; it must call `serve`.
        threads: computing threads it may use.
    """

    def __init__(self, name: str, command: Sequence[str], *, threads: int) -> None:
        self.name = name
        variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(variables, str(threads))}
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            encoding="utf-8",
        )
        self._reply()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends a request and waits for its reply."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                reply: dict[str, Any] = json.loads(line.removeprefix(MARK))
                return reply
        raise SystemExit(f"{self.name} ended with code {self.process.wait()}; its message is above.")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


def interleave(
    asks: dict[str, Callable[[], dict[str, Any]]], *, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Calls every entry once per round, flipping the order each round; returns the replies by name."""
    replies: dict[str, list[dict[str, Any]]] = {name: [] for name in asks}
    names = list(asks)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            replies[name].append(asks[name]())
    return replies


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least and greatest."""
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1]}


def machine(threads: int) -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    flags: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        cpu, flags = fields.get("model name", cpu), set(fields.get("flags", "").split())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "bf16": sorted(flags & {"avx512_bf16", "amx_bf16"}),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def emit(record: dict[str, Any], out: str | None) -> None:
    """Prints one JSON line, and appends it to a file when one is given."""
    line = json.dumps(record, sort_keys=True)
    print(line, flush=True)
    if out:
        with open(out, "a", encoding="utf-8") as file:
            file.write(line + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as an aligned Markdown table."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [[str(cell).ljust(width) for cell, width in zip(row, widths)] for row in [header, *rows]]  # noqa: B905
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
