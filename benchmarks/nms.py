"""Non-maximum suppression of 30,000 candidates against a compiled operator, in processes that take turns.

    python benchmarks/nms.py --peer-python DIR/bin/python

The peer is `torch.ops.torchvision.nms` of that environment. It knows no groups and no limit, so it gets
coordinates shifted by class * 7680, as programs around it do; that rounds coordinates, so numbers kept may
differ by a few. Each case is also run with `max_keep` 300, which is how validation uses it; the peer has to
finish first all the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from common import HERE, Side, emit, interleave, machine, serve, spread, table

KINDS = ("sparse", "sparse_large", "piles", "many_labels")


def crowd(kind: str, count: int, classes: int) -> Any:
    """Boxes (N, 4), scores (N,), classes (N,) as tensors, the same in every process.

    sparse: boxes of about 27 px anywhere in 640 px; sparse_large: of about 100 px; piles: 60 objects with
    hundreds of boxes each, mostly of the right class; many_labels: 1,500 boxes, 20 classes each, as in
    multi-label validation.
    """
    import numpy as np
    import torch

    r = np.random.default_rng(7)
    boxes = count if kind != "many_labels" else count // 20
    centre = r.uniform(0, 640, (boxes, 2))
    size = np.exp(r.normal(*((4.6, 0.6) if kind == "sparse_large" else (3.3, 0.5)), (boxes, 2)))
    label = r.integers(0, classes, count)
    if kind in ("piles", "many_labels"):
        objects, extent = r.uniform(0, 640, (60, 2)), np.exp(r.normal(4.2, 0.7, (60, 2)))
        of = r.integers(0, 60, boxes)
        near = r.random(boxes) < (1.0 if kind == "piles" else 0.6)
        centre[near] = (objects[of] + r.normal(0, 0.12, (boxes, 2)) * extent[of])[near]
        size[near] = (extent[of] * np.exp(r.normal(0, 0.15, (boxes, 2))))[near]
        if kind == "piles":
            label = np.where(r.random(count) < 0.6, r.integers(0, classes, 60)[of], label)
        else:
            centre, size = centre.repeat(20, 0), size.repeat(20, 0)
            label = r.random((boxes, max(classes, 20))).argsort(1)[:, :20].ravel() % classes
    corners = np.concatenate((centre - size / 2, centre + size / 2), 1).astype(np.float32)
    scores = (r.permutation(len(corners)) / len(corners)).astype(np.float32)
    return torch.from_numpy(corners), torch.from_numpy(scores), torch.from_numpy(label.astype(np.int64))


def run(kind: str, count: int, classes: int, threshold: float, max_keep: int | None) -> dict[str, Any]:
    from holdfast.geometry.nms import nms

    boxes, scores, label = crowd(kind, count, classes)
    start = time.perf_counter()
    kept = nms(boxes, scores, threshold, max_keep=max_keep, groups=label if classes > 1 else None)
    return {"seconds": time.perf_counter() - start, "kept": len(kept)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", type=Path, help="Python of the environment to compare with")
    parser.add_argument("--candidates", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--out", help="append JSON lines to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve({"run": run})
        return

    sides = {"ours": Side("holdfast", [sys.executable, __file__, "--serve"], threads=options.threads)}
    if options.peer_python:
        command = [str(options.peer_python), str(HERE / "peer" / "nms_side.py")]
        sides["peer"] = Side("peer", command, threads=options.threads)
    facts, rows = machine(options.threads), []
    for kind in options.kinds:
        for classes in (1, 80):
            for threshold in (0.45, 0.7):
                case = {"kind": kind, "count": options.candidates, "classes": classes, "threshold": threshold}
                asks = {
                    "all": lambda case=case: sides["ours"].ask("run", **case, max_keep=None),
                    "best 300": lambda case=case: sides["ours"].ask("run", **case, max_keep=300),
                }
                if "peer" in sides:
                    asks["peer"] = lambda case=case: sides["peer"].ask("run", **case)
                replies = interleave(asks, rounds=options.rounds)
                times = {name: spread(r["seconds"] for r in part) for name, part in replies.items()}
                kept = {name: part[0]["kept"] for name, part in replies.items()}
                record = {"benchmark": "nms", **case, "seconds": times, "kept": kept, **facts}
                row = [kind, classes, threshold, kept["all"]]
                row += [f"{times[name]['median'] * 1e3:.1f}" for name in asks]
                if "peer" in times:
                    for name in ("all", "best 300"):
                        record[f"ratio {name}"] = times[name]["median"] / times["peer"]["median"]
                        row.append(f"{record[f'ratio {name}']:.2f}")
                emit(record, options.out)
                rows.append([str(cell) for cell in row])
    for side in sides.values():
        side.close()
    header = ["case", "classes", "IoU", "kept", "all ms", "best 300 ms"]
    header += ["peer ms", "all / peer", "best 300 / peer"] if "peer" in sides else []
    print(table(header, rows))


if __name__ == "__main__":
    main()
