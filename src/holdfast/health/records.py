"""What is recorded of a run, one JSON object per line of `health.jsonl`, and what rules say about it.

Every class is one kind of line: `Facts` at each start of the run, `Epoch` after each epoch, `Window` every
half minute within one, `Event` when something out of the ordinary happens, `Breakdown` once, `Finding` when a
rule speaks up. Epochs and steps count from 1, memory is in bytes, shares are 0 to 1. A number that is not
finite, or that a device does not tell, is null there and None here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

Number: TypeAlias = float | None
Level: TypeAlias = Literal["good", "advice", "warning"]


# What manifest.json knows better than the settings; other names mean something else there.
_DECIDED = ("model", "device", "train_images", "batch", "imgsz", "object_side", "cores", "precision")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run is, as far as rules ask.

    Attributes:
        model: name of the model.
        device: sentence about the device.
        epochs: epochs that are planned.
        train_images: images that are trained on.
        batch: images per step.
        imgsz: side of the input, pixels.
        object_side: median side of an object in the input, pixels; None where unknown.
        optimizer: as asked, "auto" included.
        lr0, warmup_epochs, mixup, box, patience, autoaugment, cache: settings of these names.
        threads: loader threads.
        cores: cores of this process.
        precision: sentence about the number format.
        recompute: level of recompute.
        planned: predicted peak; None where nothing was measured.
        limit: memory that may be held; None likewise.
        started: seconds since 1970.
        host, pid: where the process that trains is.
    """

    kind: ClassVar[str] = "run"
    model: str = ""
    device: str = ""
    epochs: int = 0
    train_images: int = 0
    batch: int = 0
    imgsz: int = 0
    object_side: Number = None
    optimizer: str = "auto"
    lr0: float = 0.0
    warmup_epochs: float = 0.0
    mixup: float = 0.0
    box: float = 0.0
    patience: int = 0
    autoaugment: str = "none"
    cache: str = "off"
    threads: int = 0
    cores: int = 1
    precision: str = ""
    recompute: str = "none"
    planned: int | None = None
    limit: int | None = None
    started: float = 0.0
    host: str = ""
    pid: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any], manifest: Mapping[str, Any], **more: Any) -> Facts:
        """Gathers them from settings as plain data, and from what manifest.json says.

        Args:
            settings: as in args.yaml.
            manifest: as in manifest.json.
            more: facts that are in neither.
        """
        plan = manifest.get("plan") or {}
        found = {**settings, **{key: manifest[key] for key in _DECIDED if key in manifest}}
        found |= {"recompute": plan.get("recompute", "none")}
        found |= {"planned": plan.get("peak"), "limit": plan.get("limit"), **more}
        found["threads"] = min(int(settings.get("workers", 0)), int(found.get("cores", 1)))
        return cls(**{f.name: found[f.name] for f in dataclasses.fields(cls) if f.name in found})


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch.

    Attributes:
        epoch, step: its number, and steps done after it.
        time: when it ended, seconds since 1970.
        seconds: of its training, this part of the run only.
        losses: mean of each term per image.
        val_losses: the same of validation; empty without one.
        metrics: of its validation by the names of results.csv; empty without one.
        images_per_second: loading included.
        wait_share: share of the time spent waiting for data.
        rates: learning rate of each parameter group.
        norm, norm_max: mean and greatest norm of all gradients of a step, before clipping.
        clipped: share of the steps that were clipped.
        layers: norm of the gradients of each part of the model, at the first step of the epoch.
        rss: resident memory of the process at the end.
        allocated, reserved: memory of the device in use, and kept by its allocator, at the end.
        peak: most memory in use during the training steps, on the device or, on a CPU, of the process.
        val_peak: the same during validation.
        capacity: memory there is: of the device, or of the machine.
        utilisation: share of the time that the device, or the CPU's cores, worked.
        skipped: images that did not count: of steps left out, and those replaced.
        faults: events of the epoch.
    """

    kind: ClassVar[str] = "epoch"
    epoch: int
    step: int = 0
    time: float = 0.0
    seconds: float = 0.0
    losses: Mapping[str, Number] = field(default_factory=dict)
    val_losses: Mapping[str, Number] = field(default_factory=dict)
    metrics: Mapping[str, Number] = field(default_factory=dict)
    images_per_second: float = 0.0
    wait_share: float = 0.0
    rates: tuple[float, ...] = ()
    norm: Number = None
    norm_max: Number = None
    clipped: Number = None
    layers: Mapping[str, Number] = field(default_factory=dict)
    rss: int = 0
    allocated: int | None = None
    reserved: int | None = None
    peak: int | None = None
    val_peak: int | None = None
    capacity: int | None = None
    utilisation: Number = None
    skipped: int = 0
    faults: int = 0

    @property
    def loss(self) -> Number:
        """Sum of the terms; None where one is not finite, or there is none."""
        return total(self.losses)

    @property
    def val_loss(self) -> Number:
        """Sum of the terms in validation; None where one is not finite, or there was none."""
        return total(self.val_losses)

    @property
    def map50(self) -> Number:
        """AP at IoU 0.5, 0 to 1."""
        return self.metrics.get("metrics/mAP50(B)")

    @property
    def map(self) -> Number:
        """AP averaged over IoU 0.5 to 0.95, 0 to 1."""
        return self.metrics.get("metrics/mAP50-95(B)")

    @property
    def top1(self) -> Number:
        """Share of images whose class was right, of a classifier."""
        return self.metrics.get("metrics/accuracy_top1")


@dataclass(frozen=True, kw_only=True)
class Window:
    """Some steps within an epoch; `done` of its `steps` are done after it; `rate` is the learning rate of the
    first parameter group. See `Epoch` for the others.
    """

    kind: ClassVar[str] = "window"
    epoch: int
    step: int
    done: int
    steps: int
    time: float
    losses: Mapping[str, Number] = field(default_factory=dict)
    images_per_second: float = 0.0
    wait_share: float = 0.0
    memory: int = 0
    skipped: int = 0
    rate: Number = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something out of the ordinary.

    Attributes:
        what: a word for it, such as `skip`.
        text: the sentence that was said.
        facts: numbers and names that belong to it.
    """

    kind: ClassVar[str] = "event"
    what: str
    text: str
    epoch: int
    step: int
    time: float
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """Where the memory of a run goes, in bytes.

    Attributes:
        weights: parameters and buffers.
        gradients: of all trained parameters.
        state: what the optimizer keeps.
        average: the moving average of the weights.
        images: of the largest micro-batch, as bytes and as numbers.
        activations: the peak of training less all the others.
        validation: what validation adds to what is held in any case.
        other: libraries, data and buffers that were there before the first step (on a CPU).
        peak: most memory in use.
    """

    kind: ClassVar[str] = "memory"
    weights: int
    gradients: int
    state: int
    average: int
    images: int
    activations: int
    validation: int
    other: int
    peak: int


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule says.

    Attributes:
        rule: name of the rule.
        level: "good", "advice" (a run could be better) or "warning" (something is wrong).
        text: one sentence with the numbers that count.
        evidence: all numbers it rests on.
        remedy: what to do, a sentence; empty where nothing is to be done.
        flag: what to change on the command line; empty where it is nothing of that kind.
        gain: rank of what it would bring, 0 to 100.
        epoch: when it was found.
    """

    kind: ClassVar[str] = "finding"
    rule: str
    level: Level
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    remedy: str = ""
    flag: str = ""
    gain: int = 0
    epoch: int = 0

    def line(self) -> str:
        """The finding on one line, remedy included."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.text}{remedy}" + (f" ({self.flag})" if self.flag else "")


Record: TypeAlias = Facts | Epoch | Window | Event | Breakdown | Finding
_KINDS: tuple[type[Record], ...] = (Facts, Epoch, Window, Event, Breakdown, Finding)


def to_row(record: Record) -> dict[str, Any]:
    """The record as what a line of health.jsonl holds."""
    row: dict[str, Any] = _plain({"kind": record.kind, **dataclasses.asdict(record)})
    return row


def from_row(row: Mapping[str, Any]) -> Record | None:
    """The record of a line; None for a kind of later versions, or a line that lacks what its kind has."""
    cls: Any = next((cls for cls in _KINDS if cls.kind == row.get("kind")), None)
    if cls is None:
        return None
    names = {f.name for f in dataclasses.fields(cls)}
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in row.items() if name in names}
    try:
        record: Record = cls(**values)
        return record
    except TypeError:
        return None


@dataclass(frozen=True)
class History:
    """All that is known of a run.

    Attributes:
        facts: of its latest start.
        epochs: in order, each once.
        windows, events: in order.
        breakdown: of its memory; None before it is known.
        findings: those that were said.
    """

    facts: Facts
    epochs: tuple[Epoch, ...] = ()
    windows: tuple[Window, ...] = ()
    events: tuple[Event, ...] = ()
    breakdown: Breakdown | None = None
    findings: tuple[Finding, ...] = ()

    @classmethod
    def of(cls, records: Iterable[Record]) -> History:
        """Sorts records by their kinds."""
        every = list(records)
        epochs = {r.epoch: r for r in every if isinstance(r, Epoch)}
        return cls(
            facts=next((r for r in reversed(every) if isinstance(r, Facts)), Facts()),
            epochs=tuple(epochs[number] for number in sorted(epochs)),
            windows=tuple(r for r in every if isinstance(r, Window)),
            events=tuple(r for r in every if isinstance(r, Event)),
            breakdown=next((r for r in reversed(every) if isinstance(r, Breakdown)), None),
            findings=tuple(r for r in every if isinstance(r, Finding)),
        )

    @property
    def settled(self) -> tuple[Epoch, ...]:
        """The epochs without the first, which fills caches and prepares kernels; or that one alone."""
        return self.epochs[1:] or self.epochs

    @property
    def validated(self) -> tuple[Epoch, ...]:
        """Epochs with metrics."""
        return tuple(epoch for epoch in self.epochs if epoch.map50 is not None and epoch.map is not None)

    @property
    def latest_validated(self) -> Epoch | None:
        """The last epoch with any metrics; None without one."""
        return next((epoch for epoch in reversed(self.epochs) if epoch.metrics), None)


def total(losses: Mapping[str, Number]) -> Number:
    """Sum of the terms; None where one is None, or there is none."""
    values = [value for value in losses.values() if value is not None and math.isfinite(value)]
    return sum(values) if values and len(values) == len(losses) else None


def size(count: float) -> str:
    """Bytes for people: `6.20 GiB`, `812 MiB`."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _plain(value: Any) -> Any:
    """The same without numbers that JSON does not have; others with six digits."""
    if isinstance(value, float):
        return None if not math.isfinite(value) else value if abs(value) > 1e6 else float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | bool | None) else str(value)
