"""What watching over a run costs, in percent of the time of a training step.

    python benchmarks/overhead.py --model gelan-t --imgsz 320 --batch 8

Steps of the trainer's own stepper on fixed random images give the time of a step. Each part is then timed by
itself on the same model, many times over, and what happens once per epoch is divided by the steps of one
(`--epoch-steps`). A part is two functions in `PARTS`: one measures, one says what that is per step.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common import emit, machine, table, usable_cores
from holdfast.devices import choose_precision
from holdfast.geometry.targets import Targets
from holdfast.health.records import Facts
from holdfast.losses.detect import criterion
from holdfast.models import build
from holdfast.train.checkpoint import Progress, snapshot, write
from holdfast.train.ema import Ema
from holdfast.train.guard import WINDOW, Guard
from holdfast.train.layers import LayerNorms
from holdfast.train.monitor import Monitor
from holdfast.train.optim import OptimChoice, build_optimizer
from holdfast.train.quarantine import Quarantine
from holdfast.train.recorder import Recorder
from holdfast.train.rescue import EVERY, Rescue
from holdfast.train.step import Stepper

CPU = torch.device("cpu")
SAVE_EVERY = 600.0  # seconds, the default of `save_every`


class Terminal(io.StringIO):
    """Takes lines as a terminal would."""

    def isatty(self) -> bool:
        return True


class Trainer:
    """A stepper and a batch of noise."""

    def __init__(self, name: str, *, imgsz: int, batch: int, boxes: int) -> None:
        torch.manual_seed(0)
        self.model = build(name).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        choice = OptimChoice(name="SGD", lr0=1e-4, momentum=0.9, warmup_bias_lr=0.1, note="")
        loss = criterion(
            self.model.outputs,
            strides=self.model.strides,
            reg_max=self.model.reg_max,
            box=7.5,
            cls=0.5,
            dfl=1.5,
            label_smoothing=0.0,
        )
        self.optimizer = build_optimizer(self.model, choice, weight_decay=5e-4)
        self.stepper = Stepper(
            self.model,
            loss,
            self.optimizer,
            ema=Ema(self.model, decay=0.9999, tau=2000),
            precision=choose_precision(CPU, amp=True, amp_dtype="auto"),
            clip_norm=10.0,
            channels_last=True,
        )
        quarantine = Quarantine(None, leave_out=lambda *_, **__: None, say=print)
        self.rescue = Rescue(
            self.stepper, quarantine, keep=self.keep, restore=lambda copy: None, note=lambda *_, **__: None
        )
        self.images = torch.randint(0, 256, (batch, 3, imgsz, imgsz), dtype=torch.uint8)
        corner = torch.rand(batch * boxes, 2) * 0.6 * imgsz
        corners = torch.cat((corner, corner + (0.05 + 0.3 * torch.rand(batch * boxes, 2)) * imgsz), 1)
        classes = torch.randint(0, 80, (batch * boxes,))
        self.targets = Targets(torch.arange(batch).repeat_interleave(boxes), classes, corners)

    def keep(self) -> dict[str, Any]:
        """Copies the state, as a run does."""
        stepper = self.stepper
        return snapshot(
            model=self.model,
            ema=stepper.ema,
            optimizer=self.optimizer,
            scaler=None,
            progress=Progress(),
            items=torch.zeros(100, 3),
            step=stepper.state(),
            rescue={},
        )

    def seconds(self, steps: int) -> float:
        """Median time of a step."""
        times = []
        for _ in range(steps + 2):
            start = time.perf_counter()
            self.stepper.run(self.images, self.targets)
            times.append(time.perf_counter() - start)
        return statistics.median(times[2:])


def monitor_part(trainer: Trainer, epoch_steps: int) -> dict[str, float]:
    """Counting, the live line at its usual rate, records, rules over a hundred epochs, norms by layer."""
    with tempfile.TemporaryDirectory() as folder:
        facts = Facts(epochs=1000, batch=len(trainer.images), train_images=20_000)
        layers = LayerNorms(trainer.model, trainer.optimizer)
        monitor = Monitor(
            epochs=1000,
            steps_per_epoch=epoch_steps,
            device=CPU,
            out=Terminal(),
            cores=usable_cores(),
            clip_norm=10.0,
            recorder=Recorder(Path(folder), facts, epoch=0, step=0, say=print),
            layers=layers,
        )
        items = torch.ones(3)
        for parameter in trainer.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        steps, epochs = [], []
        for epoch in range(100):
            start = time.perf_counter()
            monitor.start_epoch(epoch, step=epoch * epoch_steps)
            begun = time.perf_counter() - start
            for _ in range(20):
                start = time.perf_counter()
                monitor.step(items, images=8, wait=0.0, norm=12.0)
                steps.append(time.perf_counter() - start)
            layers._look()
            start = time.perf_counter()
            monitor.report(monitor.end_epoch(), metrics={"metrics/mAP50(B)": 0.5, "metrics/mAP50-95(B)": 0.3})
            epochs.append(begun + time.perf_counter() - start)
        start = time.perf_counter()
        line = monitor._line(120)
        drawn = time.perf_counter() - start
        layers.ask()
        start = time.perf_counter()
        layers._look()
        looked = time.perf_counter() - start
        trainer.optimizer.zero_grad(set_to_none=True)
    assert line
    return {
        "a step": statistics.median(steps),
        "live line, 5 a second": drawn,
        "an epoch": statistics.mean(epochs[-10:]),
        "norms by layer": looked,
    }


def monitor_cost(parts: dict[str, float], step: float, epoch_steps: int) -> float:
    """Seconds per step."""
    lines = min(step / 0.2, 1.0) * parts["live line, 5 a second"]
    return parts["a step"] + lines + (parts["an epoch"] + parts["norms by layer"]) / epoch_steps


def median_of(work: Callable[[], Any], times: int) -> float:
    """Median seconds of something done many times."""
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def guard_part(trainer: Trainer, epoch_steps: int) -> dict[str, float]:
    """What is kept before a step, reading its numbers, judging them; the copy to go back to, and the look at
    the weights before it. The norm is computed for clipping anyway, and not counted.
    """
    stepper, guard = trainer.stepper, Guard()
    losses, norm = torch.rand(3), torch.tensor(12.0)
    for number in range(WINDOW):
        guard.judge(12.0, [1.0 + number % 7, 1.0, 1.0])
    return {
        "statistics kept": median_of(stepper._statistics.keep, 200),
        "numbers read": median_of(lambda: torch.cat((losses, norm.reshape(1))).tolist(), 1000),
        "judged": median_of(lambda: guard.judge(12.0, [2.0, 1.0, 1.0]), 1000),
        f"weights looked at, every {EVERY} steps": median_of(trainer.rescue.sound, 50),
        f"state copied, every {EVERY} steps": median_of(trainer.keep, 10),
    }


def guard_cost(parts: dict[str, float], step: float, epoch_steps: int) -> float:
    """Seconds per step; short epochs copy the state once per epoch instead."""
    every = list(parts.values())
    return sum(every[:3]) + sum(every[3:]) / min(EVERY, epoch_steps)


def checkpoint_part(trainer: Trainer, epoch_steps: int) -> dict[str, float]:
    """The copy, made by the thread that trains, and writing it, which another one does beside it."""
    with tempfile.TemporaryDirectory() as folder:
        content = {**trainer.keep(), "settings": {}, "facts": {}}
        path = Path(folder) / "last.pt"
        return {
            "copied": median_of(trainer.keep, 10),
            "written in the background": median_of(
                lambda: write(path, dict(content), keep_previous=True), 5
            ),
        }


def checkpoint_cost(parts: dict[str, float], step: float, epoch_steps: int) -> float:
    """Seconds per step, writing counted as if no core were free: a save after each epoch, or every ten
    minutes where epochs are longer.
    """
    return sum(parts.values()) / min(epoch_steps, max(SAVE_EVERY / step, 1.0))


PARTS: dict[str, tuple[Callable[..., Any], Callable[..., float]]] = {
    "monitor": (monitor_part, monitor_cost),
    "guard": (guard_part, guard_cost),
    "checkpoints": (checkpoint_part, checkpoint_cost),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gelan-t")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--boxes", type=int, default=7, help="boxes per image")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--epoch-steps", type=int, default=100, help="steps of an epoch")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", help="file to append the JSON lines to")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    emit({"what": "setup", **machine(options.threads), **vars(options)}, options.out)
    trainer = Trainer(options.model, imgsz=options.imgsz, batch=options.batch, boxes=options.boxes)
    step = trainer.seconds(options.steps)
    rows = [["a step", f"{1000 * step:.2f}", "100"]]
    for name, (measure, cost) in PARTS.items():
        parts = measure(trainer, options.epoch_steps)
        seconds = cost(parts, step, options.epoch_steps)
        share = 100 * seconds / step
        emit({"what": name, "model": options.model, "step": step, "share": share, **parts}, options.out)
        rows += [[f"{name}: {part}", f"{1000 * spent:.4f}", ""] for part, spent in parts.items()]
        rows.append([f"{name}, per step", f"{1000 * seconds:.4f}", f"{share:.3f}"])
    print(table(["part", "ms", "% of a step"], rows))


if __name__ == "__main__":
    main()
