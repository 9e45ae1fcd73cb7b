"""Our side of benchmarks/train_step.py: forward, loss, backward and update on fixed images."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common import serve
from holdfast.data.batch import scaled
from holdfast.devices import cpu_has_bf16
from holdfast.geometry.targets import Targets
from holdfast.losses.branch import combine
from holdfast.losses.detect import criterion
from holdfast.models import build


class Own:
    def load(self, model: str, imgsz: int, batch: int, boxes: int) -> dict[str, Any]:
        torch.manual_seed(0)
        # The peer's yolov9t has a class branch 80 wide, the official gelan-t 128.
        self.model = (
            build(model, class_width=80 if model == "gelan-t" else None)
            .train()
            .to(memory_format=torch.channels_last)
        )
        gains = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "label_smoothing": 0.0}
        shape = {"strides": self.model.strides, "reg_max": self.model.reg_max}
        self.loss = criterion(self.model.outputs, **shape, **gains)
        # Fused, as our trainer builds it; the peer's side uses what PyTorch does by default.
        parameters = self.model.parameters()
        self.optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, nesterov=True, fused=True)
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (batch, 3, imgsz, imgsz), dtype=torch.uint8, generator=generator)
        count = batch * boxes
        size = torch.rand(count, 2, generator=generator) * 0.3 + 0.05
        centre = size / 2 + torch.rand(count, 2, generator=generator) * (1 - size)
        classes = torch.randint(0, 80, (count, 1), generator=generator).flatten()
        corners = torch.cat((centre - size / 2, centre + size / 2), 1) * imgsz
        self.targets = Targets(torch.arange(batch).repeat_interleave(boxes), classes, corners)
        return {"torch": torch.__version__, "threads": torch.get_num_threads(), "fast_bf16": cpu_has_bf16()}

    def step(self, amp: bool, steps: int) -> dict[str, Any]:
        parts = dict.fromkeys(("forward", "loss", "backward", "optimizer"), 0.0)
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            marks = [time.perf_counter()]
            x = scaled(self.images, dtype=torch.bfloat16 if amp else torch.float32, channels_last=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
                outputs = self.model(x)
            marks.append(time.perf_counter())
            total, _items = combine(self.loss(outputs, self.targets), len(x))
            del outputs, x
            marks.append(time.perf_counter())
            self.optimizer.zero_grad()
            total.backward()
            marks.append(time.perf_counter())
            self.optimizer.step()
            marks.append(time.perf_counter())
            for name, a, b in zip(parts, marks, marks[1:], strict=False):
                parts[name] += b - a
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        per_image = 1 / (steps * len(self.images))
        return {
            "seconds_per_image": seconds * per_image,
            "cpu_per_image": cpu * per_image,
            **{name: spent * per_image for name, spent in parts.items()},
            "total": float(total.detach()),
        }

    def profile(self, amp: bool, steps: int) -> dict[str, Any]:
        """The operators that take most of the time: name, milliseconds per step, calls per step."""
        self.step(amp, 1)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
            self.step(amp, steps)
        rows = sorted(recorded.key_averages(), key=lambda row: -row.self_cpu_time_total)[:20]
        return {"rows": [(r.key, r.self_cpu_time_total / 1000 / steps, r.count / steps) for r in rows]}


own = Own()
serve({"load": own.load, "step": own.step, "profile": own.profile})
