"""The peer's side of benchmarks/memory.py: some training steps of its model, as its trainer does them."""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from common import MARK


def cell(
    model: str, imgsz: int, batch: int, boxes: int, steps: int, limit: int | None, device: str
) -> dict[str, Any]:
    """One cell; `limit` is kept on a CUDA device only."""
    torch.manual_seed(0)
    where = torch.device(f"cuda:{device}" if device.isdecimal() else device)
    cuda = where.type == "cuda"
    if cuda and limit is not None:
        total = torch.cuda.get_device_properties(where).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit / total, 1.0), where)
    net = YOLO(f"{model}.yaml", verbose=False).model.to(where)
    net.args = get_cfg()
    net.train()
    average = copy.deepcopy(net)  # it keeps one too
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    scaler = torch.amp.GradScaler("cuda", enabled=cuda)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 3, imgsz, imgsz), dtype=torch.uint8, generator=random)
    count = batch * boxes
    size = torch.rand(count, 2, generator=random) * 0.3 + 0.02
    centre = size / 2 + torch.rand(count, 2, generator=random) * (1 - size)
    truth = {
        "cls": torch.randint(0, 80, (count, 1), generator=random).float().to(where),
        "bboxes": torch.cat((centre, size), 1).to(where),
        "batch_idx": torch.arange(batch).repeat_interleave(boxes).float().to(where),
    }
    times = []
    try:
        for _ in range(steps + 1):
            start = time.perf_counter()
            with torch.autocast(where.type, dtype=torch.float16 if cuda else torch.bfloat16, enabled=cuda):
                loss, _items = net({**truth, "img": pixels.to(where, non_blocking=True).float() / 255})
                loss = loss.sum()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if cuda:
                torch.cuda.synchronize(where)
            times.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        return {"failure": "out of memory"}
    del average
    seconds = sorted(times[1:])[len(times[1:]) // 2]
    return {
        "images_per_second": batch / seconds,
        "peak": torch.cuda.max_memory_allocated(where) if cuda else 0,
        "reserved": torch.cuda.max_memory_reserved(where) if cuda else 0,
    }


print(MARK + json.dumps(cell(**json.loads(sys.argv[1]))), flush=True)
