"""The journal of a search: an optuna study in one text file of the run folder, which outlives kills."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import MissingExtraError, SettingsError
from holdfast.locks import Held, sole
from holdfast.tune.space import Range

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

JOURNAL = "study.journal"
_STARTUP = 5  # trainings to the end before any is pruned
_WARMUP = 0.25  # share of a training that is never pruned


def require_optuna() -> None:
    """Raises a MissingExtraError where optuna is not installed."""
    try:
        import optuna
    except ImportError as fault:
        raise MissingExtraError(
            "The search needs optuna, which is not installed.", hint="Type pip install 'holdfast[tune]'."
        ) from fault
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps a second process from working on the same search; a killed one holds nothing up.

    Raises:
        SettingsError: another process is at work in the folder.
    """
    try:
        with sole(folder / ".lock"):
            yield
    except Held:
        raise SettingsError(
            f"Another process is searching in {folder}.", hint="Wait for it, or start a new search."
        ) from None


def open_study(folder: Path, *, seed: int, epochs: int, prune: bool) -> Study:
    """Opens the study of a folder, or begins it. The folder must be held by `alone`.

    Args:
        seed: of the draws; those of a search that goes on differ from those before.
        epochs: of each training.
        prune: end trainings whose best fitness so far is below the median of the others at that epoch.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    path = folder / JOURNAL
    _mend(path)
    storage = JournalStorage(JournalFileBackend(str(path)))
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if prune:
        pruner = optuna.pruners.MedianPruner(
            n_startup_trials=_STARTUP, n_warmup_steps=max(round(_WARMUP * epochs), 1)
        )
    study = optuna.create_study(
        study_name="holdfast", direction="maximize", storage=storage, load_if_exists=True, pruner=pruner
    )
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def distributions(ranges: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """The ranges as optuna has them."""
    from optuna.distributions import FloatDistribution

    return {key: FloatDistribution(r.low, r.high, log=r.log) for key, r in ranges.items()}


def _mend(path: Path) -> None:
    """Takes away what a kill may leave: a line cut short, and the lock of a process that is gone."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
