"""Our side of benchmarks/train_step.py and recompute.py: steps on fixed images."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common import serve
from holdfast.data.batch import scaled
from holdfast.devices import cpu_has_bf16
from holdfast.geometry.targets import Targets
from holdfast.losses.branch import combine
from holdfast.losses.detect import criterion
from holdfast.models import build
from holdfast.nn.recompute import Level


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

    def recompute(self, level: Level) -> dict[str, Any]:
        self.model.recompute(level)
        return {}

    def peak(self, amp: bool) -> dict[str, Any]:
        """Resident memory before a step and the most during it, MiB (Linux); call it first."""
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        self.step(amp, 1)
        return {"before_mib": before, "peak_mib": _status("VmHWM")}

    def alive(self, amp: bool) -> dict[str, Any]:
        """MiB per image of tensors alive after forward, and the most at any time of a step, both counted."""
        images = scaled(self.images, dtype=torch.bfloat16 if amp else torch.float32, channels_last=True)
        self.optimizer.zero_grad()
        with LiveBytes() as live:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
                outputs = self.model(images)
            kept = live.count()
            total, _items = combine(self.loss(outputs, self.targets), len(images))
            del outputs
            total.backward()
        return {"kept_mib": kept / len(images) / 2**20, "most_mib": live.most / len(images) / 2**20}

    def profile(self, amp: bool, steps: int) -> dict[str, Any]:
        """The operators that take most of the time: name, milliseconds per step, calls per step."""
        self.step(amp, 1)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
            self.step(amp, steps)
        rows = sorted(recorded.key_averages(), key=lambda row: -row.self_cpu_time_total)[:20]
        return {"rows": [(r.key, r.self_cpu_time_total / 1000 / steps, r.count / steps) for r in rows]}


class LiveBytes(TorchDispatchMode):
    """Counts the memory of tensors made while entered and still alive, whoever holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.count()
        return out

    def count(self) -> int:
        self.made = {key: entry for key, entry in self.made.items() if not entry[0].expired()}
        now = sum(size for _, size in self.made.values())
        self.most = max(self.most, now)
        return now


def _status(field: str) -> float:
    """A size in MiB from the system's account of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


own = Own()
actions = ("load", "step", "profile", "recompute", "peak", "alive")
serve({name: getattr(own, name) for name in actions})
