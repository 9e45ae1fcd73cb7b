"""Steppers of small models and batches of noise, for tests of steps."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from holdfast import models
from holdfast.devices import Precision
from holdfast.geometry.targets import Targets, filled_out
from holdfast.losses.detect import criterion
from holdfast.train.ema import Ema
from holdfast.train.micro import MicroBatch
from holdfast.train.optim import OptimChoice, build_optimizer
from holdfast.train.step import Stepper

FLOAT = Precision(torch.float32, False, "float32")
SIDE = 64


def drawn_batch(images: int, *, seed: int = 0, boxes: dict[int, int] | None = None) -> tuple[Tensor, Targets]:
    """Noise with random boxes: two per image, or as many as `boxes` says for an image."""
    source = torch.Generator().manual_seed(seed)
    counts = [(boxes or {}).get(image, 2) for image in range(images)]
    image = torch.repeat_interleave(torch.arange(images), torch.tensor(counts))
    corner = torch.rand(len(image), 2, generator=source) * SIDE * 0.6
    size = (0.1 + 0.3 * torch.rand(len(image), 2, generator=source)) * SIDE
    classes = torch.randint(0, 3, (len(image),), generator=source)
    pixels = torch.randint(0, 256, (images, 3, SIDE, SIDE), generator=source, dtype=torch.uint8)
    targets = Targets(image, classes, torch.cat((corner, corner + size), 1))
    return pixels, filled_out(targets, images=images, side=SIDE)


def drawn_classes(images: int) -> tuple[Tensor, Targets]:
    """Noise with one class per image."""
    pixels, _ = drawn_batch(images)
    return pixels, Targets(torch.arange(images), torch.arange(images) % 3, torch.zeros(images, 4))


def freeze_statistics(model: nn.Module) -> None:
    """Batch norm with fixed statistics, so that images do not see each other."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def stepper(
    model: models.Detector, *, micro: int | None = None, exact: bool = False, frozen: bool = True, **more: Any
) -> Stepper:
    model = copy.deepcopy(model).train()
    if frozen:
        freeze_statistics(model)
    choice = OptimChoice(name="SGD", lr0=0.002, momentum=0.9, warmup_bias_lr=0.1, note="")
    loss = criterion(
        model.outputs, extra=model.extra, strides=model.strides, reg_max=model.reg_max, box=7.5, cls=0.5,
        dfl=1.5, label_smoothing=0.0,
    )  # fmt: skip
    return Stepper(
        model, loss, build_optimizer(model, choice, weight_decay=5e-4), ema=Ema(model, decay=0.999, tau=10),
        precision=FLOAT, clip_norm=10.0, channels_last=False, micro=MicroBatch(micro), exact=exact, **more,
    )  # fmt: skip


def build(name: str) -> models.Detector:
    """A model with drawn weights and plain statistics (0 and 1): rounding errors do not grow in it, as they
    do in a deep network whose statistics were measured on noise.
    """
    torch.manual_seed(0)
    return models.build(name, classes=3)


def gradients(step: Stepper, images: Tensor, targets: Targets) -> dict[str, Tensor]:
    """Gradients as the optimizer gets them, before clipping plays a part (the bound is far away)."""
    step.clip_norm = 0.0
    found: dict[str, Tensor] = {}

    def look(*_: Any) -> None:
        found.update({n: p.grad.clone() for n, p in step.model.named_parameters() if p.grad is not None})

    hook = step.optimizer.register_step_pre_hook(look)
    step.run(images, targets, progress=0.3)
    hook.remove()
    return found


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Norm of the difference of all gradients together as a share of the norm."""
    assert a.keys() == b.keys()
    apart = torch.stack([(a[k] - b[k]).double().norm() for k in a]).norm()
    return (apart / torch.stack([a[k].double().norm() for k in a]).norm()).item()


def spoil(outputs: Any) -> Any:
    """Outputs of a model, multiplied by NaN."""
    if isinstance(outputs, Tensor):
        return outputs * float("nan")
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return type(outputs)(*(spoil(part) for part in outputs))
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(spoil(part) for part in outputs)
    if hasattr(outputs, "__dataclass_fields__"):
        return type(outputs)(**{name: spoil(getattr(outputs, name)) for name in outputs.__dataclass_fields__})
    return outputs


def has_white(images: Tensor) -> bool:
    """Whether an image of (B, 3, H, W), in [0, 1], is white for the most part."""
    return bool(((images == 1).float().mean((1, 2, 3)) > 0.5).any())
