"""Our side of benchmarks/predict.py: `YOLO.predict`, as a user calls it."""

from __future__ import annotations

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
        return {"tensors": len(state)}

    def load(self, weights: str) -> dict[str, Any]:
        self.yolo = YOLO(f"{weights}.safetensors")
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def threshold(self, source: str, imgsz: int, candidates: int) -> dict[str, Any]:
        """The confidence that about so many anchors a photo pass, before suppression."""
        keys = {"imgsz": imgsz, "conf": 0.001, "iou": 1.0, "max_det": 1000, "device": "cpu", "verbose": False}
        keys["half"] = False
        found = self.yolo.predict(source, stream=True, **keys)  # nothing is suppressed at an IoU of 1
        scores = torch.cat([result.boxes.conf for result in found]).sort(descending=True).values
        images = len(Source(source))
        return {"conf": round(float(scores[min(candidates * images, len(scores) - 1)]), 5)}

    def predict(
        self, source: str, imgsz: int, conf: float, iou: float, batch: int, half: bool
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

    def compare(self, source: str, imgsz: int, conf: float, iou: float) -> dict[str, Any]:
        """How far half precision is from float32; boxes of one class and IoU over 0.9 are the same."""
        common, count, worst, shift = 0, [0, 0], 0.0, 0.0
        keys = {"imgsz": imgsz, "conf": conf, "iou": iou, "device": "cpu", "verbose": False}
        pairs = [self.yolo.predict(source, half=half, **keys) for half in (False, True)]
        for full, half in zip(*pairs, strict=True):
            a, b = full.boxes.data, half.boxes.data
            count = [count[0] + len(a), count[1] + len(b)]
            if not len(a) or not len(b):
                continue
            low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:4], b[:, 2:4])
            inner = (high - low).clamp(0).prod(2)
            area = [(x[:, 2:4] - x[:, :2]).prod(1) for x in (a, b)]
            iou_ab = inner / (area[0][:, None] + area[1] - inner) * (a[:, None, 5] == b[:, 5])
            best, match = iou_ab.max(1)
            same = best > 0.9
            common += int(same.sum())
            if same.any():
                difference = (a[same] - b[match[same]]).abs()
                worst = max(worst, float(difference[:, 4].max()))
                shift = max(shift, float(difference[:, :4].max()))
        return {"full": count[0], "half": count[1], "common": common, "score": worst, "pixels": shift}


def drawn(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Weights drawn by name, scaled so that signals neither die nor explode and scores spread."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
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
    elif ".cv2." in key:
        n = 0.5 * n - 0.3 * (np.arange(len(n)) % 16)
    elif ".cv3." in key:
        n = 0.5 * n - 4
    return n.astype(np.float32)


own = Own()
serve({"weights": own.weights, "load": own.load, "threshold": own.threshold, "predict": own.predict,
       "compare": own.compare})  # fmt: skip
