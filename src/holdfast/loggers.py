"""Writers of other programs' logs: TensorBoard, W&B, MLflow. Layer 3; nothing here runs unless asked for.

Each is called once per epoch with the row that results.csv gets, in a thread of its own: a slow server
never holds training up. What goes wrong is said once per logger, and the run goes on. Only W&B and MLflow use
a network, and only as they are set up to.
"""

from __future__ import annotations

import importlib.util
import json
import queue
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from holdfast.errors import MissingExtraError

Row = Mapping[str, float | int | None]
_PATIENCE = 30.0  # seconds that the end of a run waits for what is still to be written
_NOTE = "loggers.json"  # which run of W&B and MLflow a run folder belongs to


class Logger(Protocol):
    """Writes one run somewhere."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Writes what is known of an epoch, which counts from 1."""

    def close(self) -> None:
        """Ends it."""


class _TensorBoard:
    def __init__(self, folder: Path, settings: Mapping[str, Any], done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1)
        if not done:
            lines = "\n".join(f"    {key}: {value}" for key, value in settings.items())
            self._writer.add_text("settings", lines)

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: Path, settings: Mapping[str, Any], done: int) -> None:
        import wandb

        known = _noted(folder, "wandb") if done else None
        self._run = wandb.init(
            project="holdfast",
            name=folder.name,
            id=known or _note(folder, "wandb", uuid.uuid4().hex[:16]),
            resume="allow",
            dir=str(folder),
            config=dict(settings),
        )

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=number)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, folder: Path, settings: Mapping[str, Any], done: int) -> None:
        import mlflow

        if not mlflow.is_tracking_uri_set():  # nobody has named a server: it stays in the run folder
            mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        self._client = mlflow.MlflowClient()
        self._run = _noted(folder, "mlflow") if done else None
        if self._run is None:
            experiment = self._client.get_experiment_by_name("holdfast")
            number = experiment.experiment_id if experiment else self._client.create_experiment("holdfast")
            self._run = self._client.create_run(number, run_name=folder.name).info.run_id
            _note(folder, "mlflow", str(self._run))
            for key, value in settings.items():
                self._client.log_param(self._run, key, value)

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():  # MLflow takes no parentheses
            self._client.log_metric(self._run, re.sub(r"[^\w\-./ ]", "_", name), value, step=number)

    def close(self) -> None:
        self._client.set_terminated(self._run)


_KINDS: Mapping[str, Callable[[Path, Mapping[str, Any], int], Logger]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _Mlflow,
}


def require_loggers(names: Sequence[str]) -> None:
    """Refuses loggers whose package is missing, before a run begins.

    Raises:
        MissingExtraError: names the package.
    """
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of logs of that name is no package
            raise MissingExtraError(
                f"The logger '{name}' needs the package of this name, which is not installed.",
                hint=f"Type 'pip install {name}', or leave it out of loggers.",
            )


class Loggers:
    """The loggers of a run.

    Args:
        names: which ones; none does nothing.
        folder: the run folder.
        settings: of the run, as plain data.
        done: epochs that an earlier part of the run has written.
        say: told once for each logger that fails.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        *,
        settings: Mapping[str, Any],
        done: int,
        say: Callable[[str], None],
    ) -> None:
        self._writers = [
            _Writer(name, lambda name=name: _KINDS[name](folder, settings, done), say)  # type: ignore[misc]
            for name in names
        ]

    def epoch(self, row: Row) -> None:
        """Hands the row of an epoch on; empty cells are left out."""
        values = {key: float(value) for key, value in row.items() if value is not None and key != "epoch"}
        for writer in self._writers:
            writer.put((int(row["epoch"] or 0), values))

    def close(self) -> None:
        """Waits a while for what is still to be written."""
        for writer in self._writers:
            writer.put(None)
        for writer in self._writers:
            writer.wait(_PATIENCE)


class _Writer:
    """A logger in a thread of its own."""

    def __init__(self, name: str, start: Callable[[], Logger], say: Callable[[str], None]) -> None:
        self.name = name
        self.say = say
        self._rows: queue.SimpleQueue[tuple[int, Mapping[str, float]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(start,), name=f"log-{name}", daemon=True)
        self._thread.start()

    def put(self, item: tuple[int, Mapping[str, float]] | None) -> None:
        self._rows.put(item)

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.say(
                f"logger {self.name} has not written everything after {seconds:.0f} s; it is left behind"
            )

    def _work(self, start: Callable[[], Logger]) -> None:
        told = False
        logger: Logger | None = None
        try:
            logger = start()
        except Exception as fault:  # packages of others fail in many ways, and none of them may end a run
            self._say(fault, "training goes on without it")
        while (item := self._rows.get()) is not None:
            if logger is None:
                continue
            try:
                logger.epoch(*item)
            except Exception as fault:
                if not told:
                    self._say(fault, "training goes on, and each epoch is tried")
                told = True
        if logger is not None:
            with suppress(Exception):
                logger.close()

    def _say(self, fault: Exception, rest: str) -> None:
        first = str(fault).strip().split("\n")[0][:200]
        self.say(f"logger {self.name} failed ({type(fault).__name__}: {first}); {rest}")


def _noted(folder: Path, name: str) -> str | None:
    """What an earlier part of a run has noted of a logger."""
    try:
        found = json.loads((folder / _NOTE).read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _note(folder: Path, name: str, value: str) -> str:
    others = {other: known for other in _KINDS if other != name and (known := _noted(folder, other))}
    (folder / _NOTE).write_text(json.dumps({**others, name: value}), encoding="utf-8")
    return value
