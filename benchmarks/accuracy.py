"""Accuracy of a whole training from random weights, against the peer: same data, size, batch, epochs and
seeds.

Each side trains through its own front door with its default recipe (`optimizer=auto`). The best weights'
detections on the validation images are written by each program and scored here by one evaluator, because
the two programs' own AP differ by their interpolation (the peer's own number is printed too). Hours on a
CPU: `--score-only` scores runs that exist.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.index import build_index
from holdfast.evaluate.coco import DetectionEvaluator

HERE = Path(__file__).resolve().parent


def score(predictions: Path, data: Path, *, first_category: int) -> dict[str, float]:
    """Scores a COCO result file on the validation split of a data set.

    Args:
        predictions: rows with image_id, category_id, bbox, score.
        data: data.yaml.
        first_category: category id of class 0 in the file.
    """
    dataset = read_dataset_file(data)
    index = build_index(dataset.splits["val"], names=dataset.names, workers=2)
    rows = defaultdict(list)
    for row in json.loads(predictions.read_text(encoding="utf-8")):
        x, y, w, h = row["bbox"]
        rows[str(row["image_id"])].append(
            [x, y, x + w, y + h, row["score"], row["category_id"] - first_category]
        )
    evaluator = DetectionEvaluator(dataset.names)
    for number in range(len(index)):
        classes, boxes = index.labels(number)
        found = sorted(rows.pop(Path(index.path(number)).stem, []), key=lambda r: -r[4])
        height, width = (int(v) for v in index.sizes[number])
        evaluator.update(
            number,
            detections=np.array(found, np.float32).reshape(-1, 6),
            truth_classes=classes,
            truth_boxes=boxes,
            size=(height, width),
        )
    if rows:
        raise SystemExit(f"{predictions} has {len(rows)} images that are not in the validation split")
    metrics = evaluator.compute()
    return {"map": metrics.map, "map50": metrics.map50}


def run_ours(args: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """Trains with the command line (unless only scoring), validates in float32 and scores."""
    holdfast = [sys.executable, "-m", "holdfast.cli.main"]
    if not args.score_only:
        keys = {
            "data": args.data,
            "imgsz": args.imgsz,
            "batch": args.batch,
            "epochs": args.epochs,
            "seed": seed,
        }
        words = [f"{key}={value}" for key, value in keys.items()]
        words += [
            f"project={folder.parent}",
            f"name={folder.name}",
            "exist_ok=True",
            f"workers={args.workers}",
        ]
        subprocess.run([*holdfast, "train", f"model={args.model}", *words], check=True, stdout=sys.stderr)
    best = folder / "weights" / "best.pt"
    words = [f"model={best}", f"data={args.data}", "save_json=True", f"project={folder}", "name=val"]
    subprocess.run([*holdfast, "val", *words, "exist_ok=True", "plots=False"], check=True, stdout=sys.stderr)
    own = json.loads((folder / "results.json").read_text(encoding="utf-8"))["metrics"]
    scored = score(folder / "val" / "predictions.json", args.data, first_category=0)
    return {**scored, "own_map": own["metrics/mAP50-95(B)"]}


def run_peer(args: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    """Trains the peer (unless only scoring) and scores the detections of its best weights."""
    own = None
    if not args.score_only:
        data = yaml.safe_load(args.data.read_text(encoding="utf-8"))
        data["path"] = str(read_dataset_file(args.data).root)
        folder.parent.mkdir(parents=True, exist_ok=True)
        copy = folder.parent / "peer-data.yaml"
        copy.write_text(yaml.safe_dump(data), encoding="utf-8")
        keys = {"imgsz": args.imgsz, "batch": args.batch, "epochs": args.epochs, "seed": seed}
        command = [
            args.peer_python,
            str(HERE / "peer" / "train.py"),
            "--model",
            args.peer_model,
            "--data",
            str(copy),
        ]
        command += [word for key, value in keys.items() for word in (f"--{key}", str(value))]
        command += ["--workers", str(args.workers), "--project", str(folder.parent), "--name", folder.name]
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ)
        lines = [line for line in process.stdout.splitlines() if line.startswith("@@result ")]
        own = json.loads(lines[-1].removeprefix("@@result "))["map"]
    return {**score(folder / "predictions.json", args.data, first_category=1), "own_map": own}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="data.yaml")
    parser.add_argument("--model", default="yolov9-t")
    parser.add_argument("--peer-model", default="yolov9t")
    parser.add_argument(
        "--peer-python", help="Python of an environment with the peer; without it only ours runs"
    )
    parser.add_argument("--project", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--score-only", action="store_true", help="score the runs that are in the project folder"
    )
    args = parser.parse_args()
    args.project = args.project.resolve()
    print(f"{'program':<10} {'seed':>4}  mAP50-95   mAP50   own mAP50-95")
    for seed in args.seeds:
        sides = {"holdfast": run_ours} | ({"peer": run_peer} if args.peer_python else {})
        for side, run in sides.items():
            name = args.model if side == "holdfast" else f"peer-{args.peer_model}"
            found = run(args, seed, args.project / f"{name}-s{seed}")
            print(json.dumps({"what": "accuracy", "side": side, "seed": seed, **found}), flush=True)
            own = "" if found["own_map"] is None else f"{found['own_map']:13.4f}"
            print(f"{side:<10} {seed:>4}  {found['map']:8.4f}  {found['map50']:6.4f}  {own}", flush=True)


if __name__ == "__main__":
    main()
