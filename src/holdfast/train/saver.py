"""Writes checkpoints while training goes on, and keeps trying when the disk does not take them.

A full disk, a folder that became read-only or vanished never stops a run: the newest snapshot of each file
waits in memory, the trouble is said once for each cause, and writing is tried again.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.errors import CheckpointError
from holdfast.train.checkpoint import write

PATIENCE = 20.0  # seconds between two tries after a failure
LAST_TRIES = 3  # at the end of a run, a second apart


class Saver:
    """Writes snapshots in a thread of its own.

    Args:
        folder: where the files go.
        every: seconds between two saves in the middle of an epoch; 0 for none.
        say: told about files that cannot be written, and that could be written again.
        patience: seconds between two tries.
    """

    def __init__(
        self, folder: Path, *, every: float, say: Callable[[str], None], patience: float = PATIENCE
    ) -> None:
        self.folder = folder
        self.every = every
        self.say = say
        self.patience = patience
        self._since = time.monotonic()
        self._jobs: dict[str, tuple[dict[str, Any], bool]] = {}
        self._trouble: dict[str, str] = {}
        self._ends = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="holdfast-saver", daemon=True)
        self._thread.start()

    def due(self) -> bool:
        """Whether it is time to save in the middle of an epoch; not while an earlier save is under way."""
        return self.every > 0 and time.monotonic() - self._since >= self.every and not self._jobs

    def put(self, name: str, content: dict[str, Any], *, keep_previous: bool = False) -> None:
        """Has a snapshot written as `name`, after those that wait; one of the same name is dropped.

        So a last.pt never speaks of a best.pt that is not there yet.
        """
        with self._changed:
            self._since = time.monotonic()
            self._jobs.pop(name, None)
            self._jobs[name] = content, keep_previous
            self._changed.notify_all()

    def flush(self) -> None:
        """Waits until everything is on disk.

        Raises:
            CheckpointError: that is not possible; where the files are instead.
        """
        with self._changed:
            tries = LAST_TRIES
            while self._jobs and tries:
                if self._changed.wait_for(lambda: not self._jobs, timeout=min(1.0, self.patience)):
                    break
                tries -= bool(self._trouble)
                self._changed.notify_all()
            left = dict(self._jobs)
        if left:
            raise self._elsewhere(left)

    def close(self) -> None:
        """Ends the thread; what it has not written is given up."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._trouble and not self._ends:
                    self._changed.wait(self.patience)
                while not self._jobs and not self._ends:
                    self._changed.wait()
                if self._ends:
                    return
                name, job = next(iter(self._jobs.items()))
            content, keep_previous = job
            failure = ""
            try:
                self.folder.mkdir(parents=True, exist_ok=True)  # somebody may have removed it
                write(self.folder / name, content, keep_previous=keep_previous)
            except Exception as error:  # whatever it is, the thread lives on, and training with it
                failure = getattr(error, "strerror", None) or str(error) or type(error).__name__
            with self._changed:
                self._note(name, failure)
                if self._jobs.get(name) is job and not failure:
                    del self._jobs[name]
                elif failure:  # let the others have a try before this one
                    self._jobs[name] = self._jobs.pop(name)
                self._changed.notify_all()

    def _note(self, name: str, failure: str) -> None:
        before = self._trouble.get(name, "")
        if failure and failure != before:
            self.say(
                f"{self.folder / name} cannot be written ({failure}); training goes on, and writing is tried "
                f"again every {self.patience:g} s"
            )
            self._trouble[name] = failure
        elif not failure and self._trouble.pop(name, ""):
            self.say(f"{self.folder / name} could be written again")

    def _elsewhere(self, jobs: dict[str, tuple[dict[str, Any], bool]]) -> CheckpointError:
        """Saves what is left at the end of a run where there is room, and says where."""
        reason = "; ".join(f"{name}: {self._trouble.get(name, 'unknown')}" for name in jobs)
        try:
            folder = Path(tempfile.mkdtemp(prefix="holdfast-saved-"))
            for name, (content, _) in jobs.items():
                write(folder / name, content, keep_previous=False)
        except OSError as error:
            return CheckpointError(
                f"{self.folder} cannot be written ({reason}), and no other folder either ({error}).",
                hint="Make room, and resume from the checkpoint before.",
            )
        return CheckpointError(
            f"{self.folder} cannot be written ({reason}); the files are in {folder} instead.",
            hint="Make room and move them back.",
        )
