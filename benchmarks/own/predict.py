"""Our side of benchmarks/predict.py: `YOLO.predict`, as a user calls it."""

from __future__ import annotations

import re
import sys
import time
import zlib
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from common import serve
from holdfast import YOLO
from holdfast.models import build
from holdfast.predict.source import Source
from holdfast.weights import load_official_state_dict, official_state_dict
from holdfast.weights.store import save_safetensors


class Own:
    def weights(self, model: str, file: str | None, out: str) -> dict[str, Any]:
        """Writes `out`.npz, which the peer loads, and `out`.safetensors, which we load: the same tensors.

        The peer's yolov9t has a class branch 80 wide where the official gelan-t has 128; drawn ones have 80.
        """
        network = YOLO(file).model if file else build(model, class_width=80 if model == "gelan-t" else None)
        state = official_state_dict(network)
        if not file:
            state = {key: torch.from_numpy(drawn(key, tuple(value.shape))) for key, value in state.items()}
            load_official_state_dict(network, state)
        np.savez(f"{out}.npz", **{key: value.detach().numpy() for key, value in state.items()})
        save_safetensors(Path(f"{out}.safetensors"), network.state_dict(), network.header)
        return {"tensors": len(state), "classes": network.classes}

    def load(self, weights: str) -> dict[str, Any]:
        self.yolo = YOLO(f"{weights}.safetensors")
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def threshold(self, source: str, imgsz: int, candidates: int) -> dict[str, Any]:
        """The confidence that about so many anchors a photo pass, before suppression."""
        keys = {"imgsz": imgsz, "conf": 0.001, "iou": 1.0, "max_det": 1000, "device": "cpu", "verbose": False}
        keys |= {"half": False, "nms": True}
        found = self.yolo.predict(source, stream=True, **keys)  # nothing is suppressed at an IoU of 1
        scores = torch.cat([result.boxes.conf for result in found]).sort(descending=True).values
        images = len(Source(source))
        return {"conf": round(float(scores[min(candidates * images, len(scores) - 1)]), 5)}

    def predict(
        self, source: str, imgsz: int, conf: float, iou: float, batch: int, half: bool, nms: bool | None
    ) -> dict[str, Any]:
        start, cpu = time.perf_counter(), time.process_time()
        first = 0.0
        boxes = 0
        speeds: list[tuple[float, ...]] = []
        for result in self.yolo.predict(
            source,
            imgsz=imgsz,
            conf=conf,
            iou=iou,
            batch=batch,
            half=half,
            nms=nms,
            device="cpu",
            stream=True,
            verbose=False,
            save=False,
        ):
            first = first or time.perf_counter() - start
            boxes += len(result.boxes)
            speeds.append(tuple(result.speed[key] for key in ("preprocess", "inference", "postprocess")))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        split = [float(value) for value in np.mean(speeds, axis=0)]
        return {
            "seconds": seconds,
            "cpu": cpu,
            "first": first,
            "images": len(speeds),
            "boxes": boxes,
            "split": split,
        }

    def rows(
        self, source: str, imgsz: int, conf: float, iou: float, half: bool, nms: bool | None
    ) -> dict[str, Any]:
        """Every detection, by file: x1, y1, x2, y2, score, class."""
        keys = {"imgsz": imgsz, "conf": conf, "iou": iou, "half": half, "nms": nms}
        found = self.yolo.predict(source, stream=True, device="cpu", verbose=False, **keys)
        return {"rows": {Path(result.path).name: result.boxes.data.tolist() for result in found}}


def drawn(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights drawn by name, scaled so that signals neither die nor explode and scores spread."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if ".one2one_" in key:  # as if both branches had learned the same
        return drawn(key.replace("one2one_", ""), shape)
    if key.endswith("dfl.conv.weight"):
        return np.arange(16, dtype=np.float32).reshape(shape)
    n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    if key.endswith("bn.weight"):
        n = 1 + 0.1 * n
    elif key.endswith("bn.bias"):
        n = 1 + 0.3 * n
    elif key.endswith("running_mean"):
        n = 0.1 * n
    elif key.endswith("running_var"):
        n = 1 + 0.1 * abs(n)
    elif len(shape) == 4:
        gain = 0.6 if ".m." in key else 1.2 if key.endswith(".conv.weight") else 0.8
        n = gain * n / np.sqrt(np.prod(shape[1:]))
    elif re.search(r"\.cv2\.\d\.2\.bias", key):
        n = 2 + 0.5 * n if len(n) == 4 else 0.5 * n - 0.3 * (np.arange(len(n)) % 16)
    elif re.search(r"\.cv3\.\d\.2\.bias", key):
        n = 0.5 * n - 4
    return n.astype(np.float32)


own = Own()
serve({"weights": own.weights, "load": own.load, "threshold": own.threshold, "predict": own.predict,
       "rows": own.rows})  # fmt: skip
