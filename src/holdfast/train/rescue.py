"""What follows a step that must not count: who is at fault is found out, and the run gets going again.

1. Nothing has changed (`step`). Where weights are finite, the images of the batch are tried in halves: those
   that fail alone are named in quarantine.csv, and others stand in for them from the next epoch on; the step
   is left out. Where none fails and the batch does not fail any more, the step is done again.
2. Where weights are not finite, the batch fails only as a whole or for most of its images, or steps keep
   failing, the run goes back to a copy of its state in memory, of the epoch under way and a hundred steps old
   at most, and does the steps since then again.
3. If that does not help, it goes back and computes in float32; then it goes back and halves the learning
   rate, three times at most; then it ends, with a checkpoint, and says why.

A step that failed before is not met with the same move again, and going back is all that happens three times
in a thousand steps at most; after a thousand good steps trouble is a new trouble. Loss spikes lead to 1 and,
three in a row, once to 2; if they come again, they are how things are now. Every move is said, and none is
repeated without progress, so a run cannot loop. All ranks come to the same decisions.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from holdfast.data.batch import Batch
from holdfast.errors import Diverged, OutOfMemory
from holdfast.train.culprits import find_culprits
from holdfast.train.guard import IN_A_ROW as SPIKES_IN_A_ROW
from holdfast.train.guard import is_finite
from holdfast.train.quarantine import Case, Quarantine
from holdfast.train.step import Outcome, Stepper

EVERY = 100  # good steps between two copies of the state
IN_A_ROW = 5  # steps left out because of images, before weights are suspected
BACKS = 3  # times of going back and nothing more
HALVINGS = 3
CALM = 1000  # good steps after which trouble is a new trouble

Note = Callable[..., None]


class Move(enum.Enum):
    """What the loop does next."""

    ON = enum.auto()  # go on with the next batch
    AGAIN = enum.auto()  # do the same batch again
    BACK = enum.auto()  # the run stands at an earlier step now


class Rescue:
    """Decides what follows a failed step.

    Args:
        stepper: does the steps; its precision may be changed.
        quarantine: takes images at fault.
        keep: copies the state of the run.
        restore: puts a copy back into the parts of the run.
        note: told what happened: kind, sentence, and keyword facts.

    Attributes:
        factor: what learning rates are multiplied by.
        skipped: steps left out so far.
    """

    def __init__(
        self,
        stepper: Stepper,
        quarantine: Quarantine,
        *,
        keep: Callable[[], Mapping[str, Any]],
        restore: Callable[[Mapping[str, Any]], None],
        note: Note,
    ) -> None:
        self.stepper = stepper
        self.quarantine = quarantine
        self.keep = keep
        self.restore = restore
        self.note = note
        self.factor = 1.0
        self.skipped = 0
        self._good: Mapping[str, Any] = {}
        self._since = 0  # good steps since that copy
        self._row = 0  # steps left out since the last good one
        self._calm = CALM  # good steps since the run went back
        self._backs = 0  # how often it has, without so many good steps between
        self._trouble = -1  # the step that sent it back
        self._repeated = False  # whether the step under way has been done again

    def take(self, copy: Mapping[str, Any]) -> None:
        """Takes a copy of the present state, made by `keep` for another purpose, as the one to go back to."""
        self._good, self._since = copy, 0

    def start_epoch(self, step: int) -> None:
        """Copies the state with which an epoch, or what is left of it, starts after so many steps."""
        if not self._good or self._good["progress"]["step"] != step:
            self.take(self.keep())

    def passed(self, step: int, *, ends: bool) -> Move:
        """Counts a good step, after the run has taken note of it; looks at weights before they are copied.

        Args:
            step: steps done.
            ends: whether it was the last of its epoch, after which weights are used and saved.
        """
        self._row, self._repeated = 0, False
        self._calm += 1
        self._since += 1
        if ends or self._since >= EVERY:
            broken = self._look(step)
            if broken:
                return self._back(broken, step)
            if not ends:
                self.take(self.keep())
        return Move.ON

    def note_unread(self, found: Mapping[int, str], path: Callable[[int], str], step: int) -> None:
        """Names the files of all ranks that could not be read in quarantine.csv: number -> what was wrong."""
        for part in self.stepper.ranks.gather_all(dict(found)):
            for number, reason in part.items():
                self.quarantine.add(Case(number, path(number), reason, step, None))

    def sound(self) -> bool:
        """Whether weights and statistics of this rank are finite."""
        state = self.stepper.model.state_dict().values()
        return bool(nn.utils.get_total_norm([x for x in state if x.is_floating_point()]).isfinite())

    def failed(self, batch: Batch, outcome: Outcome, *, progress: float, epoch: int, step: int) -> Move:
        """Finds out who is at fault, and acts.

        Args:
            batch: this rank's part of it.
            outcome: of the step.
            progress: share of the run that is done.
            epoch: under way.
            step: its number in the run.

        Raises:
            Diverged: every move has been made.
        """
        reason = outcome.refused
        spike = self.stepper.guard.in_a_row > 0
        broken = self._look(step)
        if broken:
            return self._back(broken, step)
        found = self._culprits(batch, progress, spike=spike)
        whole = sum(self.stepper.ranks.gather_all(len(batch.images)))
        known = f"of {whole} images, {len(found)} are at fault"
        most = whole > 1 and 2 * len(found) > whole
        if not found and not spike and not self._repeated:
            self._repeated = True
            text = f"{reason}, but no image is at fault; doing the step again"
            self.note("again", text, step=step, reason=reason, layers=list(outcome.layers))
            return Move.AGAIN
        self._row += 1
        if found and not most:
            for index, path in found:
                self.quarantine.add(Case(index, path, reason, step, epoch + 1))
            known = "at fault, and left out from the next epoch on: " + ", ".join(path for _, path in found)
        if spike:
            if self.stepper.guard.in_a_row == SPIKES_IN_A_ROW and self._calm >= CALM:
                return self._back(f"{reason}, {SPIKES_IN_A_ROW} times in a row", step)
        elif most or not found or self._row == IN_A_ROW:
            return self._back(f"{reason}; {known}", step)
        self.skipped += 1
        self._repeated = False
        self.note(
            "skip",
            f"step {step} left out: {reason}; {known}",
            step=step,
            reason=reason,
            layers=list(outcome.layers),
            images=[path for _, path in found],
        )
        return Move.ON

    def state(self) -> dict[str, Any]:
        """What a resumed run must know, as plain data."""
        return {
            "factor": self.factor,
            "skipped": self.skipped,
            "row": self._row,
            "calm": self._calm,
            "backs": self._backs,
            "trouble": self._trouble,
            "full_precision": not self.stepper.precision.mixed,
            "quarantine": self.quarantine.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned; an empty one is of a run that had no guard."""
        if not state:
            return
        self.factor, self.skipped = state["factor"], state["skipped"]
        self._row, self._calm = state["row"], state["calm"]
        self._backs, self._trouble = state["backs"], state["trouble"]
        self.quarantine.load_state(state["quarantine"])
        if state["full_precision"] and self.stepper.precision.mixed:
            self.stepper.leave_16_bits()

    def _look(self, step: int) -> str:
        """Says which weights or statistics are not finite, on any rank; empty when all are."""
        sound = self.sound()
        if not self.stepper.ranks.any(not sound):
            return ""
        state = self.stepper.model.state_dict().items()
        names = [] if sound else [name for name, value in state if not bool(value.isfinite().all())]
        where = f"{len(names)} tensors, the first {names[0]}" if names else "on another rank"
        return f"weights are not finite after step {step} ({where})"

    def _culprits(self, batch: Batch, progress: float, *, spike: bool) -> list[tuple[int, str]]:
        """(number in the data set, path) of the images of all ranks that fail alone."""
        stepper = self.stepper

        def fails(numbers: list[int]) -> bool:
            rows = torch.tensor(numbers)
            try:
                norm, items = stepper.trial(
                    batch.images[rows], batch.targets.of_numbers(rows), progress=progress
                )
            except OutOfMemory:  # then it cannot be told; the others may
                return False
            return stepper.guard.is_spike(sum(items)) if spike else not is_finite(norm, items)

        mine = [
            (int(batch.indices[number]), batch.paths[number])
            for number in find_culprits(len(batch.images), fails)
        ]
        return [culprit for part in stepper.ranks.gather_all(mine) for culprit in part]

    def _back(self, reason: str, step: int) -> Move:
        """Goes back, more carefully each time.

        Raises:
            Diverged: that has been done often enough.
        """
        if self._calm >= CALM:
            self._backs, self._trouble = 0, -1
        simply = step > self._trouble and self._backs < BACKS
        self._backs, self._trouble = self._backs + 1, step
        self.restore(self._good)
        self.take(self.keep())  # the parts of the run may share tensors with the copy now
        to = f"going back from step {step} to {self._good['progress']['step']}"
        self._row, self._calm, self._repeated = 0, 0, False
        if simply:
            self.note("rollback", f"{reason}; {to}", step=step, reason=reason)
        elif self.stepper.precision.mixed:
            self.stepper.leave_16_bits()
            self.note("precision", f"{reason}, again; {to}, on in float32", step=step, reason=reason)
        elif self.factor > 0.5**HALVINGS:
            self.factor /= 2
            self.note(
                "learning rate",
                f"{reason}, again; {to}, on with {self.factor:g} of the learning rate",
                step=step,
                reason=reason,
            )
        else:
            raise Diverged(
                f"Training does not stay finite: {reason}, also in float32 and with {self.factor:g} of the "
                "learning rate.",
                hint="Look at quarantine.csv and health.jsonl of the run, and try a smaller --lr0.",
            )
        return Move.BACK
