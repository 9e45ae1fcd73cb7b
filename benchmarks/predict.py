"""End-to-end images per second of predict on real photos, against the peer, in the same run.

    python benchmarks/predict.py --source ../shared/data/coco_tiny/images --peer-python PEER/bin/python

A round is one `predict` call over all photos: file names in, boxes out, so it holds reading, decoding,
resizing, the network, suppression and building the results; nothing is drawn or saved. CPU time (of all
threads) stands beside the clock: on a busy machine it is the steadier of the two, with one thread. Loading
the model and starting Python are outside; the first picture's latency (folding included) is reported apart.
Both sides load the same weights into the same architecture (gelan-t is the peer's yolov9t), so both find
about the same boxes. Without `--weights` these are drawn at random by tensor name, and the confidence is set
where `--candidates` anchors a photo pass it, about as many as with a trained model at 0.25: left at a fixed
confidence, random weights give none or thousands.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import HERE, PEER_NAMES, Side, emit, interleave, machine, spread, table, usable_cores

Rows = dict[str, list[list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="folder of photos; its subfolders count too")
    parser.add_argument("--peer-python", help="Python of an environment with the peer; absent: only our side")
    parser.add_argument("--model", default="gelan-t", help="gelan-* or yolo26*")
    parser.add_argument("--weights", help="weight file of ours for that model; absent: drawn")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--conf", type=float, help="absent: 0.25 with --weights, else set for --candidates")
    parser.add_argument("--candidates", type=int, default=40, help="anchors that pass, with drawn weights")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--half", action="store_true", help="also measure our 16-bit run")
    parser.add_argument("--out", help="file to append the JSON lines to")
    options = parser.parse_args()
    source = str(Path(options.source) / "**" / "*.jpg")
    # A model with two branches is measured with either: suppression, and the one-to-one branch.
    ways = {"nms": True, "end to end": False} if options.model.startswith("yolo26") else {"": None}

    own = Side("holdfast", [sys.executable, str(HERE / "own" / "predict.py")], threads=options.threads)
    sides = {"holdfast": own}
    common: dict[str, Any] = {"source": source, "imgsz": options.imgsz}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights")
        classes = own.ask("weights", model=options.model, file=options.weights, out=file)["classes"]
        setup = {"holdfast": own.ask("load", weights=file)}
        if options.peer_python:
            command = [options.peer_python, str(HERE / "peer" / "predict.py")]
            sides["peer"] = Side("peer", command, threads=options.threads)
            name = PEER_NAMES.get(options.model, options.model)
            setup["peer"] = sides["peer"].ask("load", model=name, weights=file, classes=classes)
        conf = options.conf or (0.25 if options.weights else None)
        conf = conf or own.ask("threshold", **common, candidates=options.candidates)["conf"]
        common |= {"conf": conf, "iou": 0.7}

    emit(
        {"what": "setup", **machine(options.threads), "sides": setup, **vars(options), "conf": conf},
        options.out,
    )
    ask: dict[str, Any] = {}
    for way, nms in ways.items():
        for name, side in sides.items():
            for half in (False, True) if name == "holdfast" and options.half else (False,):
                label = " ".join(word for word in (name, "half" if half else "", way) if word)
                keys = {**common, "nms": nms, "half": half, "batch": options.batch}
                ask[label] = functools.partial(side.ask, "predict", **keys)
        report_agreement(sides, {**common, "nms": nms}, way, options)
    first = {name: run()["first"] for name, run in ask.items()}  # also the warm-up
    replies = interleave(ask, rounds=options.rounds)
    for side in sides.values():
        side.close()

    rows = []
    rates = {}
    for name, rounds in replies.items():
        rate = spread(r["images"] / r["seconds"] for r in rounds)
        rates[name] = rate["median"]
        last = rounds[-1]
        cpu = spread(r["cpu"] / r["images"] for r in rounds)
        record = {"images_per_second": rate, "first_image_seconds": first[name], "cpu_seconds": cpu}
        counts = {"images": last["images"], "boxes": last["boxes"], "split_ms": last["split"]}
        emit({"what": "predict", "side": name, **record, **counts}, options.out)
        where = f"{rate['min']:.2f} - {rate['max']:.2f}"
        split = " + ".join(f"{ms:.1f}" for ms in last["split"])
        times = f"{1000 * cpu['median']:.0f}", f"{1000 * first[name]:.0f}"
        rows.append([name, f"{rate['median']:.2f}", where, split, *times, str(last["boxes"])])
    header = ["side", "images/s", "range", "pre + net + post ms", "CPU ms/image", "first image ms", "boxes"]
    print(table(header, rows))
    if "peer" in sides:
        ratios = {
            name: round(rate / rates[" ".join(["peer", *([way] if way else [])])], 3)
            for way in ways
            for name, rate in rates.items()
            if name.startswith("holdfast") and name.endswith(way)
        }
        emit({"what": "ratio to peer", **ratios}, options.out)


def report_agreement(
    sides: dict[str, Side], keys: dict[str, Any], way: str, options: argparse.Namespace
) -> None:
    """Says how many detections our runs share with the peer's (without a peer: 16 bits with 32)."""
    found: dict[str, Rows] = {"holdfast": sides["holdfast"].ask("rows", **keys, half=False)["rows"]}
    if options.half:
        found["holdfast half"] = sides["holdfast"].ask("rows", **keys, half=True)["rows"]
    if "peer" in sides:
        found["peer"] = sides["peer"].ask("rows", **keys)["rows"]
    reference = "peer" if "peer" in found else "holdfast"
    for name, rows in found.items():
        if name != reference:
            record = agreement(found[reference], rows, conf=keys["conf"])
            emit({"what": "agreement", "way": way, "sides": [reference, name], **record}, options.out)


def agreement(a: Rows, b: Rows, *, conf: float, iou: float = 0.99, score: float = 0.005) -> dict[str, Any]:
    """Pairs detections of one class with IoU over `iou` and scores within `score`, each used once.

    Those that are alone and whose score is within `score` of the threshold are counted apart: rounding may
    put them on either side of it.
    """
    same = edge = alone = 0
    worst_iou, worst_score = 1.0, 0.0
    for name in a.keys() | b.keys():
        rest = list(b.get(name, []))
        for row in a.get(name, []):
            near = [(_iou(row, other), other) for other in rest if other[5] == row[5]]
            near = [(v, other) for v, other in near if v > iou and abs(other[4] - row[4]) <= score]
            if near:
                overlap, best = max(near, key=lambda pair: pair[0])
                rest.remove(best)
                same += 1
                worst_iou = min(worst_iou, overlap)
                worst_score = max(worst_score, abs(best[4] - row[4]))
            else:
                rest_edge = row[4] - conf <= score
                edge, alone = edge + rest_edge, alone + (not rest_edge)
        at_edge = sum(other[4] - conf <= score for other in rest)
        edge, alone = edge + at_edge, alone + len(rest) - at_edge
    return {
        "same": same,
        "alone": alone,
        "alone_at_threshold": edge,
        "least_iou": round(worst_iou, 5),
        "largest_score_difference": round(worst_score, 6),
    }


def _iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0.0) * max(height, 0.0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inner / max(area - inner, 1e-9)


if __name__ == "__main__":
    main()
