"""The peer's side of benchmarks/predict.py: `YOLO.predict`, a public call, run by the peer's own Python."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from common import serve


class Peer:
    def load(self, model: str, weights: str, classes: int) -> dict[str, Any]:
        self.yolo = YOLO(f"{model}.yaml", verbose=False)
        if classes != 80:
            self.yolo.model = DetectionModel(f"{model}.yaml", nc=classes, verbose=False)
        own = self.yolo.model.state_dict()
        with np.load(f"{weights}.npz") as arrays:
            given = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        state = {key: _dense(value, own[key].shape) for key, value in given.items()}
        self.yolo.model.load_state_dict(state)  # strict: every tensor
        return {"tensors": len(state), "torch": torch.__version__, "threads": torch.get_num_threads()}

    def predict(
        self, source: str, imgsz: int, conf: float, iou: float, batch: int, nms: bool | None, **_: Any
    ) -> dict[str, Any]:
        start, cpu = time.perf_counter(), time.process_time()
        first = 0.0
        images = boxes = 0
        speeds: list[tuple[float, ...]] = []
        for result in self.yolo.predict(
            source,
            imgsz=imgsz,
            conf=conf,
            iou=iou,
            batch=batch,
            nms=nms,
            device="cpu",
            stream=True,
            verbose=False,
            save=False,
        ):
            first = first or time.perf_counter() - start
            images += 1
            boxes += len(result.boxes)
            speeds.append(tuple(result.speed[key] for key in ("preprocess", "inference", "postprocess")))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {
            "seconds": seconds,
            "cpu": cpu,
            "first": first,
            "images": images,
            "boxes": boxes,
            "split": _mean(speeds),
        }


    def rows(
        self, source: str, imgsz: int, conf: float, iou: float, nms: bool | None, **_: Any
    ) -> dict[str, Any]:
        keys = {"imgsz": imgsz, "conf": conf, "iou": iou, "nms": nms}
        found = self.yolo.predict(source, stream=True, device="cpu", verbose=False, save=False, **keys)
        return {"rows": {Path(result.path).name: result.boxes.data.tolist() for result in found}}


def _dense(weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A grouped kernel (O, I/g, k, k) as the dense one (O, I, k, k) that computes the same."""
    if weight.shape == shape:
        return weight
    dense = weight.new_zeros(shape)
    groups = shape[1] // weight.shape[1]
    rows = shape[0] // groups
    for g in range(groups):
        dense[g * rows : (g + 1) * rows, g * weight.shape[1] : (g + 1) * weight.shape[1]] = weight[
            g * rows : (g + 1) * rows
        ]
    return dense


def _mean(rows: list[tuple[float, ...]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows)]  # noqa: B905


peer = Peer()
serve({"load": peer.load, "predict": peer.predict, "rows": peer.rows})
