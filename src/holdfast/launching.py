"""A training on several devices from one command: writes down what to train, starts a process for each
device (train/launch.py), and hands back what rank 0 left.

Parent and ranks talk through a folder only they can read: the settings as YAML, the run folder once rank 0
has made it, a user's mistake as JSON, and rank 0's result.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from holdfast import errors
from holdfast.errors import HoldfastError, RankError
from holdfast.settings import TrainSettings
from holdfast.settings.components import usable_cores

if TYPE_CHECKING:
    from holdfast.train.launch import Child
    from holdfast.train.session import TrainResult

_FINAL = {code for code in range(1, 11) if code != RankError.exit_code}  # errors of ours that stay
_START = "import sys; sys.path[:] = sys.argv[3:]; from holdfast.cli.rank import main; main(*sys.argv[1:3])"


class Notes:
    """The folder through which a parent and its ranks talk.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.settings = folder / "settings.yaml"
        self.result = folder / "result.pt"
        self._run = folder / "run.txt"
        self._errors = folder / "errors"

    def tell_folder(self, folder: Path) -> None:
        """Rank 0 has made the run folder."""
        self._run.write_text(str(folder.resolve()), encoding="utf-8")

    @property
    def folder(self) -> Path | None:
        """The run folder, when rank 0 has made one."""
        return Path(self._run.read_text(encoding="utf-8")) if self._run.is_file() else None

    def tell_error(self, rank: int, error: HoldfastError) -> None:
        """A rank ends by an error that a new start would not mend."""
        kept = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
        part = self._errors / f"{rank:04d}.part"
        part.write_text(json.dumps({"kind": type(error).__name__, **kept}), encoding="utf-8")
        part.replace(part.with_suffix(".json"))

    def error(self) -> HoldfastError | None:
        """The error that was told in the last attempt, of the first rank, as the exception it was."""
        for path in sorted(self._errors.glob("*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            kind = getattr(errors, content.pop("kind"))
            error: HoldfastError = kind.__new__(kind, content["message"])
            vars(error).update(content)
            return error
        return None

    def begin(self) -> None:
        """A new attempt: what the one before has told is void."""
        shutil.rmtree(self._errors, ignore_errors=True)
        self._errors.mkdir()


def processes(settings: TrainSettings) -> int:
    """Returns how many processes this one has to start: 1 means none, it trains itself."""
    from holdfast.train.dist import place

    if place().world > 1:
        return 1
    if settings.resume and settings.processes == 1 and not {"device", "ranks"} & settings.given().keys():
        from holdfast.train.session import beginning

        settings, _, _ = beginning(settings, None, place(), _unsaid)
    return settings.processes


def launch_train(settings: TrainSettings, count: int, *, say: Callable[[str], None]) -> TrainResult:
    """Trains in `count` processes, which are started again from the last checkpoint when one is lost.

    Raises:
        HoldfastError: what a rank said about settings, data or devices; or ranks are lost again and again.
    """
    from holdfast.train.handover import take_over
    from holdfast.train.launch import Child, Final, Store, supervise

    with tempfile.TemporaryDirectory(prefix="holdfast-") as name:
        notes = Notes(Path(name))
        plain = settings.as_dict()
        given = {key: plain[key] for key in settings.given()}
        notes.settings.write_text(yaml.safe_dump(given, allow_unicode=True), encoding="utf-8")
        package = str(Path(__file__).parents[1])
        command = [sys.executable, "-c", _START, str(notes.settings), name, package, *filter(None, sys.path)]
        stores: list[Store] = []

        def start() -> Sequence[Child]:
            notes.begin()
            stores[:] = [Store(count)]
            threads = max(usable_cores() // count, 1)
            return [Child(command, stores[0].environment(rank, threads=threads)) for rank in range(count)]

        def mark() -> object:
            folder = notes.folder
            last = None if folder is None else folder / "weights" / "last.pt"
            return last.stat().st_mtime_ns if last is not None and last.is_file() else None

        try:
            supervise(start, mark=mark, final=_FINAL, say=say)
        except (KeyboardInterrupt, SystemExit):  # asked to stop: rank 0 says what it saved
            told = notes.error()
            if told is None:
                raise
            raise told from None
        except Final as end:
            told = notes.error()
            if told is None:
                raise RankError("\n".join([str(end).capitalize() + ".", *end.loss.tail])) from None
            raise told from None
        result: TrainResult = take_over(notes.result)
        return result


def _unsaid(text: str) -> None:
    """The rank that trains will say it."""
