"""Time and memory of the detection loss: a crowded batch, and an ordinary one.

    python benchmarks/assigner.py
    python benchmarks/assigner.py --images 128 --boxes 75000 --size 640

The crowded batch has many boxes that fill their image, the worst case of an assigner that tests every
(box, anchor) pair: one dense float32 table of 586 boxes x 8400 anchors x 4 over 128 images takes 9.4 GiB, and
a loss holds several. Each case runs in a process of its own. Memory is what that process gained at its peak
over what it held before the loss (maps and targets included there): the working memory of forward and
backward, of which the gradients of the maps take as much as the maps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import emit, machine, table


def rss() -> float:
    """Resident memory of this process in MiB."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


class Peak:
    """Watches resident memory from a thread."""

    def __enter__(self) -> Peak:
        self.before = self.most = rss()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, rss())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def make(
    images: int, boxes: int, size: int, classes: int, *, filling: float, auxiliary: bool, last: bool
) -> Any:
    """Random maps and targets; `filling` is the share of boxes that cover nearly the whole image."""
    import torch

    from holdfast.geometry.targets import Targets
    from holdfast.models.outputs import Branch, DetectOutputs

    layout = torch.channels_last if last else torch.contiguous_format

    def branch() -> Branch:
        maps = []
        for channels, low in ((64, 0.0), (classes, -5.0)):
            shapes = [(images, channels, size // stride, size // stride) for stride in (8, 16, 32)]
            level = [(torch.randn(shape) + low).to(memory_format=layout).requires_grad_() for shape in shapes]
            maps.append(tuple(level))
        return Branch(*maps)

    torch.manual_seed(0)
    outputs = DetectOutputs(branch(), branch() if auxiliary else None)
    image = torch.randint(0, images, (boxes,)).sort().values
    centre, extent = torch.rand(boxes, 2), torch.rand(boxes, 2) ** 2 * 0.5 + 0.02
    full = torch.rand(boxes) < filling
    centre[full], extent[full] = 0.5, 0.9 + 0.1 * torch.rand(int(full.sum()), 2)
    xyxy = torch.cat((centre - extent / 2, centre + extent / 2), 1).clamp(0, 1) * size
    return outputs, Targets(image, torch.randint(0, classes, (boxes,)), xyxy)


def measure(pipe: Connection, case: dict[str, Any], repeat: int, threads: int) -> None:
    import torch

    from holdfast.losses.branch import combine
    from holdfast.losses.detect import DetectionLoss

    torch.set_num_threads(threads)
    outputs, targets = make(**case)
    loss = DetectionLoss(strides=(8, 16, 32))
    leaves = [x for branch in outputs if branch for maps in branch for x in maps]
    times: dict[str, list[float]] = {"forward_s": [], "backward_s": []}
    with Peak() as peak:
        for _ in range(repeat):
            start = time.perf_counter()
            total, _ = combine(loss(outputs, targets), case["images"])
            middle = time.perf_counter()
            total.backward()
            times["forward_s"].append(middle - start)
            times["backward_s"].append(time.perf_counter() - middle)
            for leaf in leaves:
                leaf.grad = None
    result: dict[str, Any] = {key: statistics.median(value) for key, value in times.items()}
    result["maps_mib"] = sum(x.numel() * x.element_size() for x in leaves) / 2**20
    result["working_mib"] = peak.most - peak.before
    pipe.send(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--boxes", type=int, default=75_000)
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--filling", type=float, default=0.3, help="share of boxes that fill their image")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append JSON lines to this file")
    options = parser.parse_args()
    crowd = {
        "images": options.images,
        "boxes": options.boxes,
        "size": options.size,
        "filling": options.filling,
    }
    cases = {
        "ordinary, one branch": (
            {"images": 8, "boxes": 120, "size": 320, "filling": 0.0, "auxiliary": False},
            30,
        ),
        "ordinary, two branches": (
            {"images": 8, "boxes": 120, "size": 320, "filling": 0.0, "auxiliary": True},
            30,
        ),
        "crowded, one branch": ({**crowd, "auxiliary": False}, 1),
    }
    rows = []
    for name, (case, repeat) in cases.items():
        case |= {"classes": 80, "last": True}
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=measure, args=(theirs, case, repeat, options.threads)
        )
        process.start()
        theirs.close()
        result = json.loads(ours.recv())
        process.join()
        emit(
            {"benchmark": "assigner", "case": name, **case, **result, **machine(options.threads)}, options.out
        )
        rows.append(
            [name, *(f"{result[k] * 1e3:.1f}" for k in ("forward_s", "backward_s"))]
            + [f"{result[k]:.0f}" for k in ("maps_mib", "working_mib")]
        )
    print(table(["case", "forward ms", "backward ms", "maps MiB", "working MiB"], rows))


if __name__ == "__main__":
    main()
