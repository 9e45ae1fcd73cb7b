"""A training in a process of its own, started as the command line would, for doors that run several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from holdfast.settings import TrainSettings


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a training whose values are not the defaults, those of a `hyp` file among them."""
    fields = TrainSettings.model_fields
    found = {key: value for key, value in settings.items() if key in fields and key != "hyp"}
    found = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    return {key: value for key, value in found.items() if value != fields[key].default}


def words(keys: Mapping[str, Any]) -> list[str]:
    """Keys as words of a command line."""
    return [f"{key}={_word(value)}" for key, value in keys.items()]


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return "none" if value is None else str(value)


class Training:
    """A training under way. It ends when this process does, however that ends.

    Args:
        keys: of `holdfast train`.
        log: file that gets what it says; one that is there is added to.
        driver: module and words that start it instead of the command line itself; they get the words of
            the training after their own.

    Attributes:
        folder: the run folder, which `keys` must name.
    """

    def __init__(
        self, keys: Mapping[str, Any], *, log: Path, driver: Sequence[str] = ("holdfast.cli.child",)
    ) -> None:
        self.folder = Path(keys["project"]) / keys["name"]
        self.log = log
        package = str(Path(__file__).parents[1])
        paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *driver, "train", *words(keys)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def __enter__(self) -> Training:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()
        self.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def running(self, seconds: float) -> bool:
        """Waits so long at most, and returns whether it still runs."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def stop(self) -> None:
        """Asks it to save and end; it may have ended by itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Waits for its end and returns the exit code; negative for a signal."""
        return self.process.wait()

    def said(self) -> str:
        """All it has said."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def last_words(self) -> str:
        """The last line it has said, for an error."""
        lines = [line.strip() for line in self.said().splitlines() if line.strip()]
        return lines[-1].removeprefix("holdfast: error: ") if lines else "it said nothing"
