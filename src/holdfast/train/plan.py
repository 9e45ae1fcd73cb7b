"""Decides how a step over the batch is done within a memory budget: arithmetic on what the probe measured.

The batch, and with it the learning rate, is never touched. Of the levels of recompute that let `ENOUGH`
images, or the whole batch, through at a time, the one predicted to do the batch fastest is taken: batch norm
wants that many for its statistics, and recompute costs less than its noise. Where no level reaches that,
the one with the largest micro-batch is taken. A level that could not be clearly faster is not even measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from holdfast.memory.budget import Budget, size
from holdfast.nn.recompute import Level
from holdfast.train.probe import Cost, Line

ENOUGH = 16  # images in a micro-batch that batch-norm statistics are content with
CLEARLY = 1.1  # times faster that recompute must be to be taken for its speed; less is noise of the probe
LEVELS: tuple[Level, ...] = ("none", "norm", "stages")  # of recompute, cheapest first
_WORDS = {"none": "no recompute", "norm": "recompute of batch norm", "stages": "recompute of stages"}
_NOTHING = Line(0, 0)


@dataclass(frozen=True)
class Fixed:
    """Memory that does not depend on the micro-batch, in bytes.

    Attributes:
        held: what the process, or the allocator, holds before the first step: weights, libraries, data.
        gradients: of all trained parameters.
        state: what the optimizer will keep.
        average: the moving average of the weights.
        copies: of all these in the memory of the host, to go back to and being saved (0 on a device).
        loader: batches and images held by the loader (0 on a device).
    """

    held: int
    gradients: int
    state: int
    average: int
    copies: int = 0
    loader: Line = _NOTHING

    def training(self, batch: int) -> float:
        """Bytes during a step over `batch` images, without its activations."""
        return self.validation(batch) + self.gradients

    def validation(self, batch: int) -> float:
        """Bytes during validation, without what validation adds."""
        return self.held + self.state + self.average + self.copies + self.loader.at(batch)


@dataclass(frozen=True)
class MemoryPlan:
    """How a step is done.

    Attributes:
        batch: images per optimizer step (of this process).
        micro_batch: most images that go through the network at a time.
        parts: micro-batches per step.
        recompute: level of activation recompute.
        val_batch: images per forward of validation.
        trim: whether freed memory is given back to the system before each micro-batch.
        precision: number format, a sentence.
        peak: predicted most bytes held; None where nothing was measured.
        limit: bytes that may be held; None likewise.
        images_per_second: predicted, without data loading; None likewise.
        fits: whether the peak is within the budget.
        reasons: sentences that explain the decision.
        narrowed: whether the number format was taken because float32 did not fit.
        ahead: whether a whole batch waits on the device while the one before it is used.
        assigner: bytes that the pairs which the assigner looks at together may take; None is its own choice.
    """

    batch: int
    micro_batch: int
    parts: int
    recompute: Level
    val_batch: int
    trim: bool
    precision: str
    peak: int | None
    limit: int | None
    images_per_second: float | None
    fits: bool
    reasons: tuple[str, ...]
    narrowed: bool = False
    ahead: bool = False
    assigner: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MemoryPlan:
        """The plan that `as_dict` wrote, in a checkpoint; other entries are left out."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**{**known, "reasons": tuple(known["reasons"])})

    def lines(self) -> list[str]:
        """The block that says what was decided and why; the first line stands on its own."""
        cut = "in one piece" if self.parts == 1 else f"in {self.parts} micro-batches of {self.micro_batch}"
        first = f"{self.batch} images a step {cut}, {_WORDS[self.recompute]}"
        if self.images_per_second:
            first += f", about {self.images_per_second:.3g} images/s"
        lines = [first]
        if self.peak is not None and self.limit is not None:
            lines.append(f"predicted peak {size(self.peak)} of {size(self.limit)}")
        return lines + list(self.reasons)


@dataclass(frozen=True)
class _Option:
    """A level that was measured.

    Attributes:
        level, cost: what was measured.
        micro: most images that fit at a time.
        wanted: most images that may go through at a time.
        batch: images per step.
    """

    level: Level
    cost: Cost
    micro: int
    wanted: int
    batch: int

    @property
    def rate(self) -> float:
        """Images per second over the batch, predicted."""
        return self.in_parts(-(-self.batch // max(min(self.micro, self.wanted), 1)))

    @property
    def gain(self) -> float:
        """How many times faster this level would be if memory did not count."""
        return self.in_parts(-(-self.batch // self.wanted)) / self.rate

    def in_parts(self, parts: int) -> float:
        """Images per second over a batch in so many even parts."""
        return self.batch / (parts * self.cost.seconds.at(self.batch / parts))


def choose(
    cost: Callable[[Level], Cost | None],
    *,
    fixed: Fixed,
    budget: Budget,
    batch: int,
    precision: str,
    levels: Sequence[Level] = LEVELS,
    micro_batch: int | None = None,
    most: int | None = None,
    validation: Cost | None = None,
    largest_batch: int = 1024,
    retained: float = 0.0,
) -> MemoryPlan:
    """Plans a step.

    Args:
        cost: measures a level of recompute, or None where it could not be tried; called for levels in order,
            as far as needed.
        fixed: memory beside activations.
        budget: what may be held.
        batch: images per step; -1 takes the most that need no splitting at the first of `levels`.
        precision: number format, for the record.
        levels: allowed levels of recompute, cheapest first.
        micro_batch: images at a time that the user asks for; None decides.
        most: the micro-batch is at most this; None means the batch.
        validation: what validation costs.
        largest_batch: most images for `batch` = -1.
        retained: share of the activations' memory that the system's allocator keeps in pieces that the next
            micro-batch cannot use. Where there is no room for it, and with recompute, which allocates in many
            orders and leaves more of such pieces, the plan says `trim`.
    """
    reasons: list[str] = [f"budget: {budget.note}, {size(budget.headroom)} of it stay free"]
    if batch == -1:
        batch = _largest(cost(levels[0]), fixed, budget, largest_batch)
        reasons.append(f"batch -1: {batch} is the most that needs no splitting")
    room = budget.usable - fixed.training(batch)
    top = min(most or batch, batch)
    wanted = min(micro_batch or top, top)
    goal = wanted if micro_batch else min(ENOUGH, top)
    options: list[_Option] = []
    for level in levels:
        found = cost(level)
        if found is not None:
            options.append(_Option(level, found, min(found.bytes.most(room), top), wanted, batch))
            # Later levels make activations again: they can save only what a micro-batch takes at any size.
            if options[-1].micro >= goal and options[-1].gain < CLEARLY:
                break
    best = _best(options, goal)
    micro = max(best.micro if best else 1, 1)
    if micro_batch is not None:
        micro = min(micro_batch, top)
    parts = -(-batch // micro)
    micro = -(-batch // parts)
    reasons += _why(options, best, micro, goal=goal, asked=micro_batch)
    plan = MemoryPlan(
        batch=batch,
        micro_batch=micro,
        parts=parts,
        recompute=best.level if best else levels[-1],
        val_batch=max(micro, 1),
        trim=False,
        precision=precision,
        peak=None,
        limit=budget.most,
        images_per_second=None,
        fits=False,
        reasons=tuple(reasons),
    )
    if best is not None:
        activations = best.cost.bytes.at(micro)
        peak = fixed.training(batch) + (1 + retained) * activations
        if retained and (peak > budget.usable or best.level != "none"):
            peak -= retained * activations
            plan = replace(plan, trim=True)
        speed = best.in_parts(parts)
        plan = replace(plan, peak=int(peak), images_per_second=speed, fits=peak <= budget.usable)
    if not plan.fits:
        need = "one image at a time" if micro == 1 else f"{micro} images at a time"
        peak_text = f" needs {size(plan.peak)}, which" if plan.peak else ""
        warning = f"WARNING: even {need}{peak_text} is over the budget; the run goes on all the same"
        plan = replace(plan, reasons=(*plan.reasons, warning))
    return replace(plan, val_batch=_val_batch(validation, fixed, budget, batch, micro))


def _largest(cost: Cost | None, fixed: Fixed, budget: Budget, most: int) -> int:
    if cost is None:
        return 1
    line = Line(fixed.training(0) + cost.bytes.base, cost.bytes.each + fixed.loader.each)
    return min(max(line.most(budget.usable), 1), most)


def _val_batch(cost: Cost | None, fixed: Fixed, budget: Budget, batch: int, micro: int) -> int:
    """Images per forward of validation: twice the batch, or what fits."""
    if cost is None:
        return min(2 * batch, max(micro, 1))
    line = Line(fixed.validation(batch) + cost.bytes.base, cost.bytes.each + fixed.loader.each)
    return max(min(2 * batch, line.most(budget.usable)), 1)


def _best(options: Sequence[_Option], goal: int) -> _Option | None:
    """The fastest of the options that let `goal` images through; else the one that lets most through."""
    most = max((min(option.micro, goal) for option in options), default=0)
    if not most:
        return min(options, key=lambda option: option.cost.bytes.at(1), default=None)
    best, *others = [option for option in options if min(option.micro, goal) == most]
    for option in others:
        if option.rate > CLEARLY * best.rate:
            best = option
    return best


def _why(
    options: Sequence[_Option], best: _Option | None, micro: int, *, goal: int, asked: int | None
) -> list[str]:
    if best is None:
        return ["not even one image could be tried: memory ran out while measuring"]
    batch, able = best.batch, [option for option in options if option.micro >= goal]
    fits = ", ".join(
        f"{'all' if option.micro >= batch else option.micro} of {batch} images with {_WORDS[option.level]}"
        + (f" ({option.rate:.3g} images/s)" if option.micro else "")
        for option in options
    )
    reasons = [f"at a time fit {fits}"]
    if asked is not None:
        evenly = f"; evenly cut that is {micro}" if micro < asked else ""
        return [*reasons, f"micro_batch={asked} was asked for{evenly}"]
    if micro < goal:
        reasons.append(f"batch norm takes its statistics over {micro} images at a time")
    elif len(able) < len(options):
        reasons.append(f"recompute is preferred to fewer than {ENOUGH} images in a batch-norm statistic")
    if len(able) > 1:
        reasons.append(f"of what lets {goal} images through, {_WORDS[best.level]} is predicted the fastest")
    elif able and best.micro < best.wanted:
        reasons.append(f"larger micro-batches could gain {100 * (best.gain - 1):.0f} % at most")
    return reasons


def given(
    *, batch: int, micro_batch: int, recompute: Level, precision: str, assigner: int | None = None
) -> MemoryPlan:
    """The plan of a user who says everything: nothing is measured, nothing is predicted."""
    parts = -(-batch // min(micro_batch, batch))
    return MemoryPlan(
        batch=batch,
        micro_batch=-(-batch // parts),
        parts=parts,
        recompute=recompute,
        val_batch=min(2 * batch, max(micro_batch, 1)),
        trim=False,
        precision=precision,
        peak=None,
        limit=None,
        images_per_second=None,
        fits=True,
        reasons=("micro_batch and ckpt were given; memory was not measured",),
        assigner=assigner,
    )


def tightest(plans: Sequence[MemoryPlan]) -> MemoryPlan:
    """One plan for ranks that made their own: it fits on each of them, and batch norm is the same on all."""
    least = min(plans, key=lambda plan: plan.micro_batch)
    level = max((plan.recompute for plan in plans), key=LEVELS.index)
    batch = min(plan.batch for plan in plans)
    val_batch = min(plan.val_batch for plan in plans)
    parts = -(-batch // least.micro_batch)
    trim = any(plan.trim for plan in plans)
    format_of = next((plan for plan in plans if plan.narrowed), least)
    return replace(
        least,
        batch=batch,
        parts=parts,
        recompute=level,
        val_batch=val_batch,
        trim=trim,
        precision=format_of.precision,
        narrowed=format_of.narrowed,
        ahead=all(plan.ahead for plan in plans),
        assigner=min((plan.assigner for plan in plans if plan.assigner), default=None),
    )


def narrowed(plan: MemoryPlan, narrow: MemoryPlan, *, take: bool) -> MemoryPlan:
    """Decides between a plan in float32 under which nothing fits and one of 16 bits.

    Args:
        plan: in float32.
        narrow: in the other format.
        take: whether the other may be taken; else its need is only said.
    """
    need = "memory ran out there too" if narrow.peak is None else f"the same takes {size(narrow.peak)}"
    if narrow.fits and take:
        note = f"{narrow.precision}, because not even one image fits in float32"
        return replace(narrow, narrowed=True, precision=note, reasons=(*narrow.reasons, f"precision: {note}"))
    remark = ", and leaving --no-amp out would take it" if narrow.fits else ", which does not fit either"
    return replace(plan, reasons=(*plan.reasons, f"in {narrow.precision} {need}{remark}"))
