"""The one family of exceptions that users see.

Every message says what happened, where, what was expected and what to do next. The command line prints it
as one line without a traceback and leaves with `exit_code`; a traceback means a bug in Holdfast.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class HoldfastError(Exception):
    """Base of every error a user can cause or mend.

    Args:
        message: what happened and what was expected.
        hint: what to type or change next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class SettingsError(HoldfastError):
    """A key that does not exist, or a value outside its range."""

    exit_code = 2


class DataError(HoldfastError):
    """A data set, label file or image that cannot be used.

    Args:
        path: the file at fault.
        line: line number from 1, when the fault has one.
    """

    exit_code = 3

    def __init__(
        self, message: str, *, path: Path | str | None = None, line: int | None = None, hint: str = ""
    ) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path} line {line}: "
        super().__init__(f"{where}{message}", hint=hint)
        self.path = path
        self.line = line


class WeightsError(HoldfastError):
    """A weight file that is missing, damaged, unsafe, or does not fit the model."""

    exit_code = 4


class DeviceError(HoldfastError):
    """A device that was asked for and cannot be used."""

    exit_code = 5


class MissingExtraError(HoldfastError):
    """An optional dependency that a feature needs is not installed."""

    exit_code = 6


class RankError(HoldfastError):
    """A process of a run on several devices is gone or does not answer; the run can go on from its last
    checkpoint.
    """

    exit_code = 8


class OutOfMemory(HoldfastError):
    """Not even the smallest piece of the work fits into memory."""

    exit_code = 7


class CheckpointError(HoldfastError):
    """The state of a run cannot be written to its folder."""

    exit_code = 9


class Diverged(HoldfastError):
    """Training does not stay finite, whatever was tried; the state of the run before that is saved."""

    exit_code = 10


class Stopped(HoldfastError):
    """A run was asked to stop, has saved its state, and can go on.

    Args:
        signal: number of the signal that asked.
    """

    def __init__(self, message: str, *, signal: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + signal


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
