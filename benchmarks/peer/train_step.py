"""The peer's side of benchmarks/train_step.py: its model and loss through the public call `model(batch)`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from common import serve


class Peer:
    def load(self, model: str, imgsz: int, batch: int, boxes: int, **_: Any) -> dict[str, Any]:
        self.model = YOLO(f"{model}.yaml", verbose=False).model
        self.model.args = get_cfg()
        self.model.train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (batch, 3, imgsz, imgsz), dtype=torch.uint8, generator=generator)
        count = batch * boxes
        size = torch.rand(count, 2, generator=generator) * 0.3 + 0.05
        centre = size / 2 + torch.rand(count, 2, generator=generator) * (1 - size)
        self.batch = {
            "cls": torch.randint(0, 80, (count, 1), generator=generator).float(),
            "bboxes": torch.cat((centre, size), 1),
            "batch_idx": torch.arange(batch).repeat_interleave(boxes).float(),
        }
        self.images = images
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def step(self, amp: bool, steps: int) -> dict[str, Any]:
        parts = [0.0, 0.0, 0.0]
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            a = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
                loss, _items = self.model({**self.batch, "img": self.images.float() / 255})
                loss = loss.sum()
            b = time.perf_counter()
            self.optimizer.zero_grad()
            loss.backward()
            c = time.perf_counter()
            self.optimizer.step()
            d = time.perf_counter()
            parts = [parts[0] + b - a, parts[1] + c - b, parts[2] + d - c]
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        per_image = 1 / (steps * len(self.images))
        return {
            "seconds_per_image": seconds * per_image,
            "cpu_per_image": cpu * per_image,
            "forward_loss": parts[0] * per_image,
            "backward": parts[1] * per_image,
            "optimizer": parts[2] * per_image,
            "total": float(loss.detach()),
        }


peer = Peer()
serve({"load": peer.load, "step": peer.step})
