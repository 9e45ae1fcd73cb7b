"""quarantine.csv: which images made steps fail, or could not be read, why and when."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
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
        epoch: from which on another image stands in for it.
    """

    image: int
    file: str
    reason: str
    step: int
    epoch: int


class Quarantine:
    """The images of a run that are at fault.

    Args:
        path: the file to write; None on ranks that do not write.
        say: told when it cannot be written.
    """

    def __init__(self, path: Path | None, *, say: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self.say = say
        self.cases: dict[int, Case] = {}

    def add(self, case: Case) -> bool:
        """Takes an image in; returns whether it was not known before."""
        if case.image in self.cases:
            return False
        self.cases[case.image] = case
        self._write()
        return True

    def out_of(self, epoch: int) -> frozenset[int]:
        """Numbers of the images that are left out of an epoch."""
        return frozenset(case.image for case in self.cases.values() if case.epoch <= epoch)

    def state(self) -> list[dict[str, Any]]:
        """The cases as plain data."""
        return [case._asdict() for case in self.cases.values()]

    def load_state(self, state: list[Mapping[str, Any]]) -> None:
        """Takes over what `state` returned."""
        self.cases = {int(case["image"]): Case(**case) for case in state}
        if self.cases:
            self._write()

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
