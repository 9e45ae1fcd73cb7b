"""What cutting a batch costs: time of a step, whole and cut, and the error of the gradient where two losses
share a trunk.

    python benchmarks/micro_batches.py --data ../shared/data/bccd/data.yaml
    python benchmarks/micro_batches.py --data D --model gelan-t --steps 0      # the times only

Part one trains with a cut batch as a run does. Every few steps the gradient of the step is computed once
more, on a copy, with the sums of both losses measured beforehand (`exact`). The error is the norm of the
difference over the norm of the exact gradient: of all parameters, of the trunk, of the auxiliary branch.

Part two times a step: the whole batch, cut, and cut with exact sums; rounds alternate.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from common import emit, interleave, machine, spread, table
from holdfast import models
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.index import build_index
from holdfast.data.loader import TrainLoader
from holdfast.data.reader import TrainReader
from holdfast.data.samples import TrainSamples
from holdfast.devices import choose_device, choose_precision
from holdfast.losses.detect import criterion
from holdfast.settings import TrainSettings
from holdfast.settings.components import AugmentSettings, LossSettings
from holdfast.train.micro import MicroBatch
from holdfast.train.optim import OptimChoice, build_optimizer
from holdfast.train.step import Stepper


def make_loader(data: Path, *, imgsz: int, batch: int, epochs: int) -> TrainLoader:
    """The training images with the default augmentation."""
    dataset = read_dataset_file(data)
    index = build_index(dataset.splits["train"], names=dataset.names)
    plain = TrainSettings()
    samples = TrainSamples(
        index, imgsz=imgsz, seed=0, epochs=epochs, multi_scale=0.0, rect=False, stride=32, flip_index=None,
        read=TrainReader(index, side=imgsz, store=None),
        **{**plain.part(AugmentSettings), "close_mosaic": 0},
    )  # fmt: skip
    return TrainLoader(samples, batch=batch, workers=1)


def make_stepper(model: Any, micro: int | None, *, exact: bool, amp: bool) -> Stepper:
    """A stepper with the default gains; the optimizer's numbers are those of `auto` for a short run."""
    device = next(model.parameters()).device
    plain = TrainSettings()
    loss = criterion(
        model.outputs, strides=model.strides, reg_max=model.reg_max, **plain.part(LossSettings)
    )
    choice = OptimChoice(name="AdamW", lr0=0.0014, momentum=0.9, warmup_bias_lr=0.0, note="")
    return Stepper(
        model, loss, build_optimizer(model, choice, weight_decay=5e-4), ema=None,
        precision=choose_precision(device, amp=amp, amp_dtype="auto"), clip_norm=10.0, channels_last=True,
        micro=MicroBatch(micro), exact=exact,
    )  # fmt: skip


def gradient(stepper: Stepper, batch: Any) -> dict[str, torch.Tensor]:
    """The gradient of a step before clipping."""
    found: dict[str, torch.Tensor] = {}

    def look(*_: Any) -> None:
        parameters = stepper.model.named_parameters()
        found.update({name: p.grad.double() for name, p in parameters if p.grad is not None})

    hook = stepper.optimizer.register_step_pre_hook(look)
    clip, stepper.clip_norm = stepper.clip_norm, 0.0
    stepper.run(batch.images, batch.targets)
    stepper.clip_norm = clip
    hook.remove()
    return found


def apart(want: dict[str, torch.Tensor], got: dict[str, torch.Tensor], names: list[str]) -> float:
    norm = torch.stack([want[name].norm() for name in names]).norm()
    return float(torch.stack([(want[name] - got[name]).norm() for name in names]).norm() / norm)


def errors(args: argparse.Namespace, model: Any, loader: TrainLoader) -> None:
    """Part one."""
    stepper = make_stepper(model.train(), args.micro, exact=False, amp=args.amp)
    own = tuple(f"{path}." for path in model.loss_modules)
    trunk = [name for name, _ in model.backbone.named_parameters(prefix="backbone")]
    rows, done, epoch = [], 0, 0
    while done < args.steps:
        for batch in loader.epoch(epoch):
            if done % args.every == 1:
                found = []
                for exact in (False, True):
                    other = make_stepper(copy.deepcopy(model), args.micro, exact=exact, amp=args.amp)
                    other.load_state(stepper.state())
                    found.append(gradient(other, batch))
                guessed, true = found
                row = {
                    "step": done,
                    "all": apart(true, guessed, list(true)),
                    "trunk": apart(true, guessed, trunk),
                    "own": apart(true, guessed, [n for n in true if n.startswith(own)]) if own else 0.0,
                }
                emit({"what": "gradient error", "model": args.model, **row}, args.out)
                rows.append(row)
            stepper.run(batch.images, batch.targets)
            done += 1
            if done == args.steps:
                break
        epoch += 1
    print(f"\nError of the gradient, {args.model}, batch {args.batch} in micro-batches of {args.micro}\n")
    lines = [
        [part, *(f"{100 * f(row[part] for row in rows):.3f} %" for f in (statistics.mean, max))]
        for part in ("all", "trunk", "own")
    ]
    print(table(["parameters", "mean", "largest"], lines))


def times(args: argparse.Namespace, model: Any, loader: TrainLoader) -> None:
    """Part two."""
    batch = next(loader.epoch(0))
    ways = {"whole": (None, False), "cut": (args.micro, False), "cut, exact": (args.micro, True)}
    steppers = {
        name: make_stepper(copy.deepcopy(model).train(), micro, exact=exact, amp=args.amp)
        for name, (micro, exact) in ways.items()
    }

    def timed(stepper: Stepper) -> dict[str, Any]:
        began = time.perf_counter()
        float(stepper.run(batch.images, batch.targets).items.sum())
        return {"seconds": time.perf_counter() - began}

    for stepper in steppers.values():
        for _ in range(2):
            timed(stepper)
    replies = interleave(
        {name: lambda s=stepper: timed(s) for name, stepper in steppers.items()},  # type: ignore[misc]
        rounds=args.rounds,
    )
    rows = []
    for name, answers in replies.items():
        found = spread(answer["seconds"] for answer in answers)
        emit({"what": "step time", "model": args.model, "way": name, "batch": args.batch, **found}, args.out)
        base = spread(answer["seconds"] for answer in replies["whole"])["median"]
        rows.append([name, f"{found['median']:.3f} s", f"{found['median'] / base:.2f}"])
    print(f"\nOne step, {args.model}, batch {args.batch}, micro-batches of {args.micro}\n")
    print(table(["way", "median", "of whole"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="yolov9-t")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro", type=int, default=4)
    parser.add_argument("--steps", type=int, default=120, help="of training in part one; 0 leaves it out")
    parser.add_argument("--every", type=int, default=6, help="steps between two comparisons")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="also append the JSON lines to this file")
    parser.add_argument("--no-amp", dest="amp", action="store_false")
    args = parser.parse_args()
    emit(machine(torch.get_num_threads()), args.out)
    torch.manual_seed(0)
    device = choose_device(args.device).device
    classes = len(read_dataset_file(args.data).names)
    model = models.build(args.model, classes=classes).to(device, memory_format=torch.channels_last)
    with make_loader(args.data, imgsz=args.imgsz, batch=args.batch, epochs=1000) as loader:
        if args.rounds:
            times(args, model, loader)
        if args.steps:
            errors(args, model, loader)


if __name__ == "__main__":
    main()
