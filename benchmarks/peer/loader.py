"""The peer's side of benchmarks/loader.py: its data set and loader through their documented builders."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml
from ultralytics.cfg import get_cfg
from ultralytics.data import build_dataloader, build_yolo_dataset

from common import serve
from work import cpu_seconds, settle

AUGMENT = {"mosaic": 1.0, "translate": 0.1, "scale": 0.5, "fliplr": 0.5}
COLOUR = {"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4}


class Peer:
    def load(self, folder: str, workers: int, imgsz: int, batch: int, cache: str) -> dict[str, Any]:
        start, cpu = time.perf_counter(), cpu_seconds()
        data = yaml.safe_load((Path(folder) / "data.yaml").read_text(encoding="utf-8"))
        data.update(path=folder, nc=len(data["names"]), channels=3)
        kept = cache if cache != "off" else False
        cfg = get_cfg(overrides={"imgsz": imgsz, "cache": kept, "batch": batch, **AUGMENT, **COLOUR})
        dataset = build_yolo_dataset(cfg, str(Path(folder) / "images" / "train"), batch, data, mode="train")
        self.loader = build_dataloader(dataset, batch, workers, shuffle=True, pin_memory=False, device="cpu")
        return {"seconds": time.perf_counter() - start, "cpu": cpu_seconds() - cpu, "images": len(dataset)}

    def epoch(self, skip: int = 8) -> dict[str, Any]:
        images = 0
        start, cpu = time.perf_counter(), cpu_seconds()
        for number, batch in enumerate(self.loader):
            images += len(batch["img"])
            if number + 1 == skip:
                images, start, cpu = 0, time.perf_counter(), cpu_seconds()
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
        settle()
        return {
            "images": images,
            "seconds": seconds,
            "cpu": cpu,
            "images_per_second": images / seconds,
            "cpu_per_image": cpu / images,
        }


peer = Peer()
serve({"load": peer.load, "epoch": peer.epoch})
