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

from common import HERE, Side, emit, interleave, machine, spread, table, usable_cores

PEER_NAMES = {f"gelan-{size}": f"yolov9{size}" for size in "tsmce"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="folder of photos; its subfolders count too")
    parser.add_argument("--peer-python", help="Python of an environment with the peer; absent: only our side")
    parser.add_argument("--model", default="gelan-t", choices=sorted(PEER_NAMES))
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

    own = Side("holdfast", [sys.executable, str(HERE / "own" / "predict.py")], threads=options.threads)
    common: dict[str, Any] = {"source": source, "imgsz": options.imgsz}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights")
        own.ask("weights", model=options.model, file=options.weights, out=file)
        setup = {"holdfast": own.ask("load", weights=file)}
        conf = options.conf or (0.25 if options.weights else None)
        conf = conf or own.ask("threshold", **common, candidates=options.candidates)["conf"]
        common |= {"conf": conf, "iou": 0.7}
        ask: dict[str, Any] = {
            "holdfast": functools.partial(own.ask, "predict", **common, half=False, batch=options.batch)
        }
        sides = [own]
        if options.half:
            emit({"what": "half against float32", **own.ask("compare", **common)}, options.out)
            ask["holdfast half"] = functools.partial(
                own.ask, "predict", **common, half=True, batch=options.batch
            )
        if options.peer_python:
            peer = Side(
                "peer", [options.peer_python, str(HERE / "peer" / "predict.py")], threads=options.threads
            )
            sides.append(peer)
            setup["peer"] = peer.ask("load", model=PEER_NAMES[options.model], weights=file)
            ask["peer"] = functools.partial(peer.ask, "predict", **common, batch=options.batch)

    emit(
        {"what": "setup", **machine(options.threads), "sides": setup, **vars(options), "conf": conf},
        options.out,
    )
    first = {name: run()["first"] for name, run in ask.items()}  # also the warm-up
    replies = interleave(ask, rounds=options.rounds)
    for side in sides:
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
    if "peer" in rates:
        ratios = {name: round(rate / rates["peer"], 3) for name, rate in rates.items() if name != "peer"}
        emit({"what": "ratio to peer", **ratios}, options.out)


if __name__ == "__main__":
    main()
