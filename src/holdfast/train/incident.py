"""A page about a lost process of a run, for whoever looks at it in the morning: what ended, how far the run
was, what was done, what to check.
"""

from __future__ import annotations

import csv
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from holdfast.train.launch import CRASHED, Loss

FOLDER = "incidents"
_TOO_MUCH_MEMORY = ("CUDA out of memory", "Cannot allocate memory", "std::bad_alloc")
_LOST_DEVICE = ("CUDA error", "CUDNN_STATUS", "NCCL", "Xid", "device-side assert")


def next_page(folder: Path) -> Path:
    """Returns the path of the next incident of a run folder: `incidents/001.md` and so on."""
    taken = [int(path.stem) for path in (folder / FOLDER).glob("*.md") if path.stem.isdecimal()]
    return folder / FOLDER / f"{max(taken, default=0) + 1:03d}.md"


def page(loss: Loss, done: str, folder: Path, *, position: Mapping[str, int], kills: int) -> str:
    """Returns the page as Markdown.

    Args:
        loss: what ended.
        done: what is done about it, a sentence.
        folder: the run folder.
        position: `epoch`, `batch` and `step` of the last checkpoint; empty where there is none.
        kills: processes that the kernel ended for want of memory while the run was under way.
    """
    rows = _rows(folder / "results.csv")
    last = folder / "weights" / "last.pt"
    if position:
        age = time.time() - last.stat().st_mtime if last.is_file() else 0.0
        reached = (
            f"{position['epoch']} epochs and {position['batch']} steps of the next, step {position['step']} "
            f"in all ({age:.0f} s old)"
        )
    else:
        reached = "none yet; the run starts from its beginning"
    lines = [
        f"# {loss.title}",
        "",
        f"- when: {time.strftime('%Y-%m-%d %H:%M:%S %Z')}",
        f"- what ended: {loss}",
        f"- epochs in results.csv: {rows}",
        f"- last checkpoint: {reached}",
        f"- what was done: {done}",
        "",
        "## What to check",
        "",
        *(f"- {text}" for text in checks(loss, kills=kills)),
        "",
        "## Its last lines",
        "",
        *(f"    {line}" for line in loss.tail or ("it said nothing on its standard error",)),
    ]
    return "\n".join(lines) + "\n"


def checks(loss: Loss, *, kills: int) -> list[str]:
    """Returns what may have been the cause, the likeliest first, a sentence or two each."""
    said = "\n".join(loss.tail)
    found = []
    if kills:
        found.append(
            f"The kernel ended {kills} processes for want of memory meanwhile: use fewer --workers, "
            "cache=disk instead of ram, or a smaller --memory-limit."
        )
    if any(word in said for word in _TOO_MUCH_MEMORY):
        found.append("Memory ran out: give a smaller --memory-limit, or more --headroom.")
    if any(word in said for word in _LOST_DEVICE):
        found.append(
            "The GPU or its driver failed: see nvidia-smi and the kernel's log (dmesg | grep -i xid)."
        )
    if loss.code == -signal.SIGKILL and not kills:
        found.append(
            "Somebody or something killed it: the kernel for want of memory (dmesg | grep -i oom), a limit "
            "of the job scheduler or the container, or a person."
        )
    if loss.code in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE):
        found.append(
            "A compiled library failed. If it happens again at the same step, note versions (holdfast env) "
            "and the lines below; at random steps, suspect memory, power or temperature of the machine."
        )
        found.append("SIGBUS comes from a disk, a network file system or shared memory that is full or gone.")
    if loss.code == CRASHED:
        found.append("An unexpected error in the program; the lines below are what a report of it needs.")
    return found or ["The lines below, and the log of the system at that time."]


def _rows(path: Path) -> int:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return max(sum(1 for _ in csv.reader(file)) - 1, 0)
    except OSError:
        return 0
