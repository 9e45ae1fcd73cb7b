"""Seconds from `holdfast train` to the first loss that a user sees, on a terminal.

The run is started on a pseudo terminal, as a shell would, and stopped by Ctrl-C once it shows a loss. Prints
one JSON line per model, with all times, and a table of the medians.

    python benchmarks/first_loss.py --data data.yaml --models yolo26n yolov9-s
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import statistics
import struct
import sys
import tempfile
import termios
import time
from contextlib import suppress

from common import emit, machine, table

_LOSS = re.compile(rb"(box|cls) \d+\.\d+")
_KEYS = ("data", "imgsz", "batch")
_INTERRUPT = b"\x03"  # the key Ctrl-C


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", nargs="+", default=["yolo26n", "yolov9-s"])
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", help="file to append the JSON lines to")
    asked = parser.parse_args()
    emit({**machine(os.cpu_count() or 1), **vars(asked)}, asked.out)
    rows = []
    for model in asked.models:
        times = [first_loss(model, asked) for _ in range(asked.rounds)]
        emit({"what": "first loss", "model": model, "seconds": times}, asked.out)
        rows.append((model, f"{statistics.median(times):.1f}", f"{min(times):.1f} - {max(times):.1f}"))
    print(table(("model", "seconds", "range"), rows))


def first_loss(model: str, asked: argparse.Namespace) -> float:
    """Starts one training and stops it at its first loss; returns the seconds that took."""
    with tempfile.TemporaryDirectory(prefix="first-loss-") as project:
        keys = {"model": model, "project": project, **{key: vars(asked)[key] for key in _KEYS}}
        given = [f"{key}={value}" for key, value in keys.items()]
        words = [sys.executable, "-m", "holdfast", "train", *given]
        start = time.perf_counter()
        process, terminal = pty.fork()
        if process == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execv(words[0], words)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
        seen, seconds = b"", None
        with suppress(OSError):  # of the terminal, once the process has left it
            while True:
                seen += os.read(terminal, 1 << 16)
                if seconds is None and _LOSS.search(seen):
                    seconds = round(time.perf_counter() - start, 2)
                    os.write(terminal, _INTERRUPT)
        os.close(terminal)
        os.waitpid(process, 0)
    if seconds is None:
        said = seen.decode(errors="replace")[-2000:]
        raise SystemExit(f"{model}: the training ended without a loss.\n{said}")
    return seconds


if __name__ == "__main__":
    main()
