"""quarantine.csv: which images made steps fail, or could not be read, why and when."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.runs import write_atomic


class Case(NamedTuple):
    """An image at fault.

    Attributes:
        image: its number in the data set.
        file: its path.
        reason: what is wrong.
        step: optimizer steps done when it was noticed.
        epoch: from which on another image stands in for it; None for a file that is tried in each epoch.
    """

    image: int
    file: str
    reason: str
    step: int
    epoch: int | None


class Quarantine:
    """The images of a run that are at fault.

    Args:
        path: the file to write; None on ranks that do not write.
        leave_out: leaves an image out from an epoch on (`TrainSamples.leave_out`).
        say: told when the file cannot be written.
    """

    def __init__(
        self, path: Path | None, *, leave_out: Callable[..., None], say: Callable[[str], None]
    ) -> None:
        self.path = path
        self.leave_out = leave_out
        self.say = say
        self.cases: dict[int, Case] = {}

    def add(self, case: Case) -> bool:
        """Takes an image in; returns whether it was not known before."""
        if case.image in self.cases:
            return False
        self._take(case)
        self._write()
        return True

    def state(self) -> list[dict[str, Any]]:
        """The cases as plain data."""
        return [case._asdict() for case in self.cases.values()]

    def load_state(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Takes over what `state` returned."""
        for case in state:
            self._take(Case(**case))
        if state:
            self._write()

    def _take(self, case: Case) -> None:
        self.cases[case.image] = case
        if case.epoch is not None:
            self.leave_out((case.image,), start=case.epoch)

    def _write(self) -> None:
        if self.path is None:
            return
        text = io.StringIO(newline="")
        rows = [(case.file, case.reason, case.step) for case in self.cases.values()]
        csv.writer(text).writerows([("file", "reason", "step"), *rows])
        try:
            write_atomic(self.path, text.getvalue().encode("utf-8", "surrogateescape"))
        except OSError as error:
            self.say(f"{self.path} cannot be written ({error.strerror}); training goes on")
