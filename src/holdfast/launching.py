"""A training in processes of their own, one for each device: writes down what to train, starts them, again
when one is lost (train/launch.py), and hands back what rank 0 left.

Parent and ranks talk through a folder only they can read: the settings as YAML, the run folder once rank 0
has made it, a user's mistake as JSON, and rank 0's result.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from holdfast import errors
from holdfast.errors import HoldfastError, RankError, SettingsError
from holdfast.runs import SideFiles
from holdfast.settings import TrainSettings
from holdfast.settings.types import usable_cores

if TYPE_CHECKING:
    from holdfast.train.finish import TrainResult
    from holdfast.train.launch import Child, Loss

_FINAL = {code for code in range(1, 11) if code != RankError.exit_code}  # errors of ours that stay
_FINAL |= {128 + signal.SIGINT, 128 + signal.SIGTERM}  # asked to stop, by itself, and saved
_POSITION = """
import json, sys
sys.path[:] = sys.argv[2:]
from pathlib import Path
from holdfast.train.checkpoint import read_checkpoint
print(json.dumps(read_checkpoint(Path(sys.argv[1]))[0]["progress"]))
"""
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


def processes(settings: TrainSettings, say: Callable[[str], None]) -> int:
    """Returns how many processes this one has to start: 0 means none, it trains itself.

    Raises:
        SettingsError: `supervise` under another launcher.
    """
    if settings.supervise is True and ("RANK" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ):
        raise SettingsError(
            "Another launcher has started this process, so supervise=True is not possible.",
            hint="torchrun starts lost processes again by itself: --max-restarts 3.",
        )
    if settings.resume and not {"device", "ranks", "supervise"} & settings.given().keys():
        from holdfast.train.dist import place
        from holdfast.train.session import beginning

        settings, _, _ = beginning(settings, None, place(), say)
    if int(os.environ.get("WORLD_SIZE", "1") or 1) > 1:
        return 0
    return settings.processes if settings.processes > 1 or settings.supervise is True else 0


def launch_train(settings: TrainSettings, count: int, *, say: Callable[[str], None]) -> TrainResult:
    """Trains in `count` processes, which are started again from the last checkpoint when one is lost, unless
    `supervise` is off. Each loss leaves a page in the folder `incidents` of the run.

    Raises:
        HoldfastError: what a rank said about settings, data or devices; or ranks are lost again and again.
    """
    from holdfast.memory.kills import oom_kills
    from holdfast.train.handover import take_over
    from holdfast.train.incident import next_page, page
    from holdfast.train.launch import Child, Final, Store, supervise

    with tempfile.TemporaryDirectory(prefix="holdfast-") as name:
        notes = Notes(Path(name))
        plain = settings.as_dict()
        given = {key: plain[key] for key in settings.given()}
        notes.settings.write_text(yaml.safe_dump(given, allow_unicode=True), encoding="utf-8")
        package = str(Path(__file__).parents[1])
        command = [sys.executable, "-c", _START, str(notes.settings), name, package, *filter(None, sys.path)]
        stores: list[Store] = []
        files, kills = SideFiles(say), oom_kills()

        def start() -> Sequence[Child]:
            notes.begin()
            if count == 1:
                return [Child(command, {"RANK": "0"})]
            stores[:] = [Store(count)]
            threads = max(usable_cores() // count, 1)
            return [Child(command, stores[0].environment(rank, threads=threads)) for rank in range(count)]

        def mark() -> object:
            folder = notes.folder
            last = None if folder is None else folder / "weights" / "last.pt"
            return last.stat().st_mtime_ns if last is not None and last.is_file() else None

        def lost(loss: Loss, done: str) -> None:
            folder = notes.folder
            if folder is not None and folder.is_dir():
                found = _position(folder / "weights" / "last.pt", [package, *sys.path])
                text = page(loss, done, folder, position=found, kills=oom_kills() - kills)
                path = next_page(folder)
                files.write(path, text.encode())
                say(f"what is known about it: {path}")

        retries = 0 if settings.supervise is False else 3
        try:
            supervise(start, mark=mark, final=_FINAL, say=say, lost=lost, retries=retries)
        except (KeyboardInterrupt, SystemExit):  # asked to stop: rank 0 says what it saved
            told = notes.error()
            if told is None:
                raise
            raise told from None
        except Final as end:
            told = notes.error()
            if told is None:
                raise RankError("\n".join([f"{end.loss.title}.", *end.loss.tail])) from None
            raise told from None
        result: TrainResult = take_over(notes.result)
        return result


def _position(checkpoint: Path, paths: Sequence[str]) -> dict[str, int]:
    """Where a checkpoint stands; read by a process of its own, because this one stays small. Empty where that
    cannot be had.
    """
    command = [sys.executable, "-c", _POSITION, str(checkpoint), *filter(None, paths)]
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, timeout=120, check=True)
        position: dict[str, int] = json.loads(found.stdout)
        return position
    return {}
