"""Our side of benchmarks/memory.py: plans, then trains some steps on fixed images; one cell, one process."""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common import MARK
from holdfast.data.batch import Batch
from holdfast.data.upload import uploaded
from holdfast.devices import choose_device, choose_precision
from holdfast.losses.detect import criterion
from holdfast.memory.budget import Peak, give_back, trim
from holdfast.models import build
from holdfast.models.detector import Detector
from holdfast.train.ema import Ema
from holdfast.train.micro import MicroBatch
from holdfast.train.optim import build_optimizer, choose_optimizer
from holdfast.train.planner import plan_run
from holdfast.train.probe import worst_batch
from holdfast.train.step import Stepper


def cell(
    model: str, imgsz: int, batch: int, boxes: int, steps: int, limit: int | None, device: str
) -> dict[str, Any]:
    """One cell. On a CUDA device `limit` is a wall that the allocator keeps, on a CPU a setting."""
    torch.manual_seed(0)
    where = choose_device(device).device
    cuda = where.type == "cuda"
    if cuda and limit is not None:
        total = torch.cuda.get_device_properties(where).total_memory
        torch.cuda.set_per_process_memory_fraction(min(limit / total, 1.0), where)
    precision = choose_precision(where, amp=True, amp_dtype="auto")
    net = build(model).to(where, memory_format=torch.channels_last)
    gains = {"box": 7.5, "cls": 0.5, "dfl": 1.5, "label_smoothing": 0.0}
    loss = criterion(net.outputs, strides=net.strides, reg_max=net.reg_max, **gains)

    def optimizer_over(of: Detector, batch: int) -> torch.optim.Optimizer:
        choice = choose_optimizer("SGD", steps=1, classes=80, lr0=1e-4, momentum=0.9, warmup_bias_lr=0.0)
        return build_optimizer(of, choice, weight_decay=0.0, class_branches=of.class_branches)

    began = time.perf_counter()
    plan = plan_run(
        net,
        loss,
        make_optimizer=optimizer_over,
        precision=precision,
        channels_last=True,
        side=imgsz,
        boxes=boxes,
        images=10**6,
        batch=batch,
        accumulate=1,
        ranks=1,
        micro_batch=0,
        ckpt="auto",
        memory_limit="" if cuda or limit is None else f"{limit / 1e6:.0f}MB",
        headroom=0.08,
        average=True,
        host_images=0,
        sharing=1,
        conf=0.001,
        iou=0.7,
        max_det=300,
        nms=None,
    )
    planned = time.perf_counter() - began
    said: list[str] = []
    net.recompute(plan.recompute)
    stepper = Stepper(
        net.train(),
        loss,
        optimizer_over(net, batch),
        ema=Ema(net, decay=0.9999, tau=2000),
        precision=precision,
        clip_norm=10.0,
        channels_last=True,
        micro=MicroBatch(plan.micro_batch if plan.parts > 1 else None),
        tidy=trim if plan.trim else lambda: None,
        say=said.append,
    )
    pixels, targets = worst_batch(batch, side=imgsz, boxes=boxes, classes=80)
    if cuda:
        pixels = pixels.pin_memory()
    same = Batch(pixels, targets, torch.arange(batch), None, [])
    batches = itertools.repeat(same, steps + 1)
    if plan.ahead:
        batches = uploaded(batches, where)
    give_back(where)
    if cuda:
        torch.cuda.reset_peak_memory_stats(where)
    times = []
    with Peak(where) as peak:
        start = time.perf_counter()
        for made in batches:
            stepper.run(made.images, made.targets)
            if cuda:
                torch.cuda.synchronize(where)
            times.append(time.perf_counter() - start)
            start = time.perf_counter()
    seconds = sorted(times[1:])[len(times[1:]) // 2]
    return {
        "images_per_second": batch / seconds,
        "seconds": sum(times),
        "peak": peak.most,
        "reserved": torch.cuda.max_memory_reserved(where) if cuda else peak.most,
        "seconds_planning": planned,
        "said": said,
        "plan": plan.as_dict(),
    }


print(MARK + json.dumps(cell(**json.loads(sys.argv[1]))), flush=True)
