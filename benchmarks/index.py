"""The index of a million images: time to open, memory of forked workers, time to scan and to check.

    python benchmarks/index.py
    python benchmarks/index.py --files 1000000

The first part generates names and labels as arrays, writes them as a cache file and opens it in a process of
its own, which forks workers. Each worker goes through its share of an epoch in random order and reads path
and objects of every image. Memory is PSS (a page that n processes share counts 1/n in each) of the process
and all its workers, interpreter and libraries included.

The second part makes files in a temporary folder, hard links to a few, and measures the whole way: find
them, scan them with threads and with processes, and open the index again, for which every file is looked at.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import emit, machine, table, usable_cores

LINKS = 60_000  # of one file: file systems limit them


def generated(images: int, boxes: float, outline: int) -> Any:
    """An index of generated names and labels; `outline` points per object."""
    import numpy as np

    from holdfast.data.index_arrays import Index
    from holdfast.data.problems import Problems

    rng = np.random.default_rng(0)
    names = [f"/data/images/train/part-{i // 1000:05d}/{i:012d}.jpg".encode() for i in range(images)]
    counts = rng.poisson(boxes, images)
    total = int(counts.sum())
    return Index(
        names={i: f"class{i}" for i in range(80)},
        path_bytes=np.frombuffer(b"".join(names), np.uint8),
        path_offsets=np.concatenate([[0], np.cumsum([len(name) for name in names])]),
        sizes=rng.integers(300, 2000, (images, 2)).astype(np.int32),
        offsets=np.concatenate([[0], counts.cumsum()]),
        classes=rng.integers(0, 80, total).astype(np.int32),
        boxes=rng.random((total, 4), dtype=np.float32),
        problems=Problems(),
        points=rng.random((total * outline, 2), dtype=np.float32),
        starts=np.arange(total + 1 if outline else 0, dtype=np.int32) * max(outline, 1),
    )


def pss(process: int) -> float:
    """Proportional memory of a process in MiB."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
    match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None
    return int(match.group(1)) / 1024


def open_and_fork(path: Path, workers: int) -> dict[str, Any]:
    """Runs in a process of its own."""
    import numpy as np

    from holdfast.data.index_cache import load

    before = pss(os.getpid())
    start = time.perf_counter()
    index = load(path, "benchmark")
    opened = time.perf_counter() - start
    assert index is not None
    order = np.random.default_rng(1).permutation(len(index))
    children, pipes = [], []
    for worker in range(workers):
        ready, done = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            seen = 0
            for image in order[worker::workers].tolist():
                seen += len(index.objects(image)) + bool(index.path(image))
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            os._exit(0)
        children.append(child)
        pipes.append((ready, done))
    start = time.perf_counter()
    for ready, _ in pipes:
        os.read(ready[0], 1)
    spent = time.perf_counter() - start
    memory = [pss(process) for process in (os.getpid(), *children)]
    for child, (_, done) in zip(children, pipes, strict=True):
        os.write(done[1], b"x")
        os.waitpid(child, 0)
    return {
        "images": len(index),
        "boxes": len(index.boxes),
        "open_s": opened,
        "before_mib": before,
        "workers_mib": sum(memory[1:]),
        "all_mib": sum(memory),
        "read_us_per_image": 1e6 * spent * workers / len(index),
    }


def make_files(folder: Path, count: int) -> None:
    """Images of a pixel's worth of content, each with a label of seven rows, a thousand to a folder."""
    import cv2
    import numpy as np

    done, data = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))
    assert done
    rows = "".join(f"{i} 0.5 0.5 0.{i + 1}12345 0.{i + 1}54321\n" for i in range(7))
    for at in range(count):
        image = folder / "images" / f"{at // 1000:05d}" / f"{at:012d}.jpg"
        label = folder / "labels" / f"{at // 1000:05d}" / f"{at:012d}.txt"
        if at % 1000 == 0:
            image.parent.mkdir(parents=True)
            label.parent.mkdir(parents=True)
        if at % LINKS == 0:
            image.write_bytes(data.tobytes())
            label.write_text(rows, encoding="ascii")
            first = image, label
        else:
            os.link(first[0], image)
            os.link(first[1], label)


def whole_way(folder: Path, count: int, workers: int) -> dict[str, Any]:
    from holdfast.data import index as index_module
    from holdfast.data.find import find_images
    from holdfast.data.index import build_index

    result: dict[str, Any] = {"files": count, "workers": workers}
    source, names = folder / "images", {i: str(i) for i in range(80)}

    def timed(key: str, **options: Any) -> None:
        start = time.perf_counter()
        index = build_index([source], names=names, **options)
        result[key] = time.perf_counter() - start
        assert len(index) == count

    start = time.perf_counter()
    find_images([source])
    result["find_s"] = time.perf_counter() - start
    timed("processes_s", workers=workers)
    timed("build_and_keep_s", workers=workers, cache=folder / "cache")
    timed("open_s", workers=workers, cache=folder / "cache")
    timed("one_s", workers=1)
    index_module._PROCESSES_FROM = count + 1
    timed("threads_s", workers=workers)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--boxes", type=float, default=7.0, help="per image, on average")
    parser.add_argument("--outline", type=int, default=0, help="points of each object's outline")
    parser.add_argument("--workers", type=int, default=4, help="forked workers")
    parser.add_argument("--files", type=int, default=0, help="also make so many images, and scan them")
    parser.add_argument("--folder", type=Path, help="where temporary files go")
    parser.add_argument("--out", help="append JSON lines to this file")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(open_and_fork(options.open, options.workers)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        from holdfast.data.index_cache import save

        path = Path(name) / "benchmark.index"
        save(generated(options.images, options.boxes, options.outline), path, "benchmark")
        size = path.stat().st_size / 2**20
        command = [sys.executable, __file__, "--open", str(path), "--workers", str(options.workers)]
        reply = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        record = {"benchmark": "index", "file_mib": size, **json.loads(reply), **machine(options.workers)}
    emit(record, options.out)
    cells = [f"{record[key]:,.2f}" for key in ("open_s", "file_mib", "before_mib", "workers_mib", "all_mib")]
    header = ["images", "open s", "file MiB", "before opening MiB", "workers MiB", "all MiB"]
    print(table(header, [[f"{record['images']:,}", *cells]]))
    if options.files:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            make_files(Path(name), options.files)
            record = {"benchmark": "index_files", **whole_way(Path(name), options.files, usable_cores())}
        emit({**record, **machine(record["workers"])}, options.out)
        keys = ("find_s", "one_s", "threads_s", "processes_s", "build_and_keep_s", "open_s")
        print(table(["files", *keys], [[f"{options.files:,}", *(f"{record[key]:.2f}" for key in keys)]]))


if __name__ == "__main__":
    main()
