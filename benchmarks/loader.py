"""Images per second of the training loader against the peer's, in the same run.

    python benchmarks/loader.py --data shared/data/bccd shared/data/coco_tiny --peer-python PEER/bin/python

Both sides make the same kind of sample: mosaic of four, zoom, shift, colour and left-right flip with the same
strengths, at the same size and in batches of the same size, with one worker and with two. Nothing uses the
batches.

Warm: images are cached in memory on both sides, and a round is an epoch. The first batches of a round, which
may have been made before it began, are not counted, and a side answers only when its workers are at rest.
Cold: a new process without a cache scans the labels and goes through its first epoch; the imports are not
counted, and the files are in the memory of the operating system for both.

Images are copied, several times over when there are few, into a temporary folder: the peer writes beside
the labels. With `--memory N` our side also reports what it
holds with N workers, as a share of its cache.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import HERE, Side, emit, interleave, machine, spread, table

HEADER = ["data", "what", "workers", "side", "images/s", "range", "CPU ms/image", "ratio", "CPU ratio"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", required=True, help="folders with images/train and labels/train")
    parser.add_argument("--peer-python", help="Python of an environment with the peer; absent: only our side")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=480, help="least number of images in the copy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--what", nargs="+", default=["warm", "cold"], choices=["warm", "cold"])
    parser.add_argument("--caches", nargs="+", default=["ram"], help="caches of our side when warm")
    parser.add_argument("--kinds", nargs="+", default=["auto"], help="what makes our images when warm")
    parser.add_argument("--memory", type=int, help="also measure memory with one worker and with so many")
    parser.add_argument("--out", help="file to append the JSON lines to")
    options = parser.parse_args()
    if options.images < 16 * options.batch:
        parser.error("--images must be at least 16 batches: the first eight warm up and are not counted")
    emit({"what": "setup", **machine(1), **vars(options)}, options.out)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for source in map(Path, options.data):
            folder = Path(scratch) / source.name
            copy(source, folder, options.images)
            for workers in options.workers:
                for what in options.what:
                    measure = {"warm": warm, "cold": cold}[what]
                    replies = measure(folder, workers, options)
                    rows += summarise(source.name, what, workers, replies, options)
            if options.memory:
                memory(folder, options)
            shutil.rmtree(folder)
    print(table(HEADER, rows))


def copy(source: Path, folder: Path, least: int) -> None:
    """Copies training images and labels, again and again under other names until there are enough."""
    images = sorted(path for path in (source / "images" / "train").iterdir() if path.is_file())
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True)
    for turn in range(-(-least // len(images))):
        for image in images:
            name = f"{turn:03d}-{image.name}"
            label = source / "labels" / "train" / f"{image.stem}.txt"
            shutil.copyfile(image, folder / "images" / "train" / name)
            if label.is_file():
                shutil.copyfile(label, folder / "labels" / "train" / f"{turn:03d}-{image.stem}.txt")
    shutil.copyfile(source / "data.yaml", folder / "data.yaml")


def start(name: str, options: argparse.Namespace) -> Side:
    python = options.peer_python if name == "peer" else sys.executable
    script = HERE / ("peer" if name == "peer" else "own") / "loader.py"
    return Side(name, [python, str(script)], threads=1)


def request(folder: Path, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    return {"folder": str(folder), "workers": workers, "imgsz": options.imgsz, "batch": options.batch}


def warm(folder: Path, workers: int, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Rounds of one epoch with images in memory, sides taking turns."""
    ours = [f"holdfast {cache} {kind}" for cache in options.caches for kind in options.kinds]
    names = ours + ["peer"] * bool(options.peer_python)
    sides, asks = [], {}
    for name in names:
        side = start(name, options)
        sides.append(side)
        how = dict(zip(("cache", "kind"), name.split()[1:], strict=False)) or {"cache": "ram"}
        side.ask("load", **request(folder, workers, options), **how)
        side.ask("epoch")  # fills what is filled on the way
        asks[name] = functools.partial(side.ask, "epoch")
    replies = interleave(asks, rounds=options.rounds)
    for side in sides:
        side.close()
    return replies


def cold(folder: Path, workers: int, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Rounds of one process each: scan and first epoch without a cache."""

    def once(name: str) -> dict[str, Any]:
        for left in folder.rglob("*.cache"):  # what the peer remembers of its scan
            left.unlink()
        side = start(name, options)
        scan = side.ask("load", **request(folder, workers, options), cache="off")
        reply = side.ask("epoch", skip=0)
        side.close()
        total = scan["seconds"] + reply["seconds"]
        return {
            **reply,
            "epoch_only": reply["images_per_second"],
            "images_per_second": reply["images"] / total,
            "cpu_per_image": (scan["cpu"] + reply["cpu"]) / reply["images"],
        }

    asks: dict[str, Callable[[], dict[str, Any]]] = {"holdfast off": functools.partial(once, "holdfast")}
    if options.peer_python:
        asks["peer"] = functools.partial(once, "peer")
    return interleave(asks, rounds=options.rounds)


def memory(folder: Path, options: argparse.Namespace) -> None:
    """What our side holds with its cache in memory, with one worker and with several."""
    held = {}
    for workers in (1, options.memory):
        side = start("holdfast", options)
        side.ask("load", **request(folder, workers, options), cache="ram")
        side.ask("epoch")
        side.ask("epoch")
        held[workers] = side.ask("memory")
        side.close()
    one, many = held[1], held[options.memory]
    more = (many["pss"] - one["pss"]) / many["cache"]
    copies = {"copies_of_the_cache": many["shmem"] / many["cache"], "more_than_one_worker": more}
    emit({"what": "memory", "data": folder.name, "held": held, **copies}, options.out)


def summarise(
    data: str, what: str, workers: int, replies: dict[str, list[dict[str, Any]]], options: argparse.Namespace
) -> list[list[str]]:
    rows = []
    speeds = {name: spread(one["images_per_second"] for one in rounds) for name, rounds in replies.items()}
    costs = {name: spread(one["cpu_per_image"] for one in rounds) for name, rounds in replies.items()}
    for name, rounds in replies.items():
        speed, cost = speeds[name], costs[name]
        ratio = speed["median"] / speeds["peer"]["median"] if "peer" in speeds else None
        cpu_ratio = costs["peer"]["median"] / cost["median"] if "peer" in costs else None
        record: dict[str, Any] = {"images_per_second": speed, "cpu_seconds_per_image": cost}
        if "epoch_only" in rounds[0]:
            record["epoch_only"] = spread(reply["epoch_only"] for reply in rounds)
        where = {"data": data, "workers": workers, "side": name, "ratio": ratio, "cpu_ratio": cpu_ratio}
        emit({"what": f"loader {what}", **where, **record}, options.out)
        span = f"{speed['min']:.0f} - {speed['max']:.0f}"
        gains = ["" if value is None else f"{value:.2f}" for value in (ratio, cpu_ratio)]
        milliseconds = f"{1000 * cost['median']:.2f}"
        rows.append(
            [data, what, str(workers), name, f"{speed['median']:.0f}", span, milliseconds, *gains]
        )
    return rows


if __name__ == "__main__":
    main()
