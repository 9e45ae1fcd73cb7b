"""The peer's side of benchmarks/accuracy.py: one training from random weights through its documented Python
call.
"""

from __future__ import annotations

import argparse
import json

from ultralytics import YOLO

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True)
parser.add_argument("--project", required=True)
parser.add_argument("--name", required=True)
for key in ("imgsz", "batch", "epochs", "seed", "workers"):
    parser.add_argument(f"--{key}", type=int, required=True)
keys = vars(parser.parse_args())
model = YOLO(f"{keys.pop('model')}.yaml")
metrics = model.train(**keys, device="cpu", exist_ok=True, plots=False, pretrained=False, save_json=True)
print("@@result " + json.dumps({"map": metrics.box.map, "map50": metrics.box.map50}), flush=True)
