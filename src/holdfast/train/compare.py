"""What other choices would cost: sides, batches, levels of recompute and numbers of devices, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch.optim import Optimizer

from holdfast.memory.budget import Budget, size
from holdfast.models.detector import Detector
from holdfast.train.plan import LEVELS, choose
from holdfast.train.planner import RETAINED, fixed_memory
from holdfast.train.probe import Probe


@dataclass(frozen=True)
class Choice:
    """One row.

    Attributes:
        imgsz: side of the input, pixels.
        batch: images per optimizer step.
        devices: how many share it.
        recompute: level of activation recompute.
        micro_batch: images at a time on each device.
        peak: predicted most bytes on each; None where not even one image could be tried.
        images_per_second: predicted, of all devices together without what they lose to each other.
        fits: whether the peak is within the budget.
    """

    imgsz: int
    batch: int
    devices: int
    recompute: str
    micro_batch: int
    peak: int | None
    images_per_second: float | None
    fits: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compare(
    probes: Sequence[Probe],
    *,
    make_optimizer: Callable[[Detector], Optimizer],
    budget: Budget,
    batches: Sequence[int],
    devices: Sequence[int],
) -> list[Choice]:
    """Measures each level at each side, and plans each combination from that.

    Args:
        probes: of one model, one for each side.
        make_optimizer: builds an optimizer over a model.
        budget: what each device may hold.
        batches: images per step over all devices.
        devices: how many devices share a batch.
    """
    rows = []
    for probe in probes:
        probe.warm_up()
        fixed = fixed_memory(probe, make_optimizer, average=True, host_images=0)
        for level in LEVELS:
            cost = probe.cost(level, budget.usable - fixed.training(1))
            for batch in batches:
                for count in devices:
                    plan = choose(
                        lambda level: cost,  # noqa: B023
                        fixed=fixed,
                        budget=budget,
                        batch=-(-batch // count),
                        precision=probe.precision.note,
                        levels=(level,),
                        retained=RETAINED if probe.device.type == "cpu" else 0.0,
                    )
                    speed = plan.images_per_second
                    rows.append(
                        Choice(
                            imgsz=probe.side,
                            batch=batch,
                            devices=count,
                            recompute=level,
                            micro_batch=plan.micro_batch,
                            peak=plan.peak,
                            images_per_second=None if speed is None else speed * count,
                            fits=plan.fits,
                        )
                    )
    return rows


def table(rows: Sequence[Choice]) -> list[str]:
    """The rows for people."""
    cells = [("imgsz", "batch", "devices", "recompute", "at a time", "peak", "images/s", "")]
    for row in rows:
        peak = "?" if row.peak is None else size(row.peak)
        speed = "?" if row.images_per_second is None else f"{row.images_per_second:.3g}"
        numbers = (str(row.imgsz), str(row.batch), str(row.devices), row.recompute, str(row.micro_batch))
        cells.append((*numbers, peak, speed, "" if row.fits else "does not fit"))
    return [" ".join(f"{cell:>9}" for cell in line).rstrip() for line in cells]
