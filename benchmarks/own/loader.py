"""Our side of benchmarks/loader.py: batches of the training loader, which nobody uses."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import serve
from holdfast.data.cache import MemoryStore
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.helpers import choose_kind
from holdfast.data.index import build_index
from holdfast.data.loader import TrainLoader
from holdfast.data.reader import TrainReader
from holdfast.data.samples import TrainSamples
from holdfast.data.storing import open_store
from work import cpu_seconds, memory_held, settle

AUGMENT = {"mosaic": 1.0, "translate": 0.1, "scale": 0.5, "fliplr": 0.5}
COLOUR = {"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4}

Cache = Literal["off", "ram", "disk"]
Kind = Literal["auto", "threads", "processes"]


class Own:
    epochs = 0

    def load(
        self, folder: str, workers: int, imgsz: int, batch: int, cache: Cache, kind: Kind = "auto"
    ) -> dict[str, Any]:
        start, cpu = time.perf_counter(), cpu_seconds()
        names = read_dataset_file(Path(folder) / "data.yaml").names
        index = build_index([Path(folder) / "images" / "train"], names=names, workers=workers)
        pixels = Path(folder) / "pixels"
        self.opened = open_store(cache, index, use="train", side=imgsz, budget=0.5, folder=pixels)
        read = TrainReader(index, side=imgsz, store=self.opened.store)
        samples = TrainSamples(index, imgsz=imgsz, epochs=10**6, read=read, **AUGMENT, **COLOUR)
        processes, _ = choose_kind(kind, workers=workers, store=self.opened.store)
        self.loader = TrainLoader(samples, batch=batch, workers=workers, processes=processes)
        return {"seconds": time.perf_counter() - start, "cpu": cpu_seconds() - cpu, "images": len(index)}

    def epoch(self, skip: int = 8) -> dict[str, Any]:
        images = 0
        start, cpu = time.perf_counter(), cpu_seconds()
        for number, batch in enumerate(self.loader.epoch(self.epochs)):
            images += len(batch.images)
            if number + 1 == skip:
                images, start, cpu = 0, time.perf_counter(), cpu_seconds()
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
        self.epochs += 1
        settle()
        return {
            "images": images,
            "seconds": seconds,
            "cpu": cpu,
            "images_per_second": images / seconds,
            "cpu_per_image": cpu / images,
        }

    def memory(self) -> dict[str, Any]:
        store = self.opened.store
        return {**memory_held(), "cache": store.held if isinstance(store, MemoryStore) else 0}


own = Own()
serve({"load": own.load, "epoch": own.epoch, "memory": own.memory})
