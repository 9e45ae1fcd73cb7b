"""`holdfast tune`: trainings with settings that optuna proposes, each a run of its own in one folder.

Unusual: a trial is the ordinary command in a process of its own. Its results.csv is all the search reads, and
a signal is all it sends; so a trial can be looked at, resumed and repeated by hand, and a killed search goes
on with the trial it was at, from its last checkpoint.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from holdfast.children import Training, changed
from holdfast.data.dataset_file import read_dataset_file
from holdfast.errors import HoldfastError, SettingsError, Stopped, WeightsError
from holdfast.evaluate.fitness import fitness, fitness_weights, short
from holdfast.report.tune_plots import plot_search
from holdfast.runs import new_run_folder, write_atomic, write_json
from holdfast.settings import TrainSettings, TuneSettings
from holdfast.settings.components import AugmentSettings, LossSettings, OptimSettings
from holdfast.tune.space import Range, from_plain, rounded, space, to_plain
from holdfast.tune.study import alone, distributions, open_study, require_optuna

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

_POLL = 0.5  # seconds between two looks at a training
_OURS = ("trials", "search", "prune", "resume", "project", "name", "exist_ok", "verbose", "hyp")
_MAY_CHANGE = ("trials", "prune", "device", "ranks", "workers", "cache", "verbose", "resume", "plots")
_FOR_ALL = range(2, 7)  # exit codes of mistakes that every training would make


@dataclass(frozen=True)
class TuneResult:
    """What a search found.

    Attributes:
        folder: of the search.
        best: best.yaml, to be used as `hyp`.
        fitness: of the best training (`evaluate/fitness.py`).
        values: its values of the keys that were searched.
        run: its run folder.
    """

    folder: Path
    best: Path
    fitness: float
    values: dict[str, float]
    run: Path


def run_tune(settings: TuneSettings, *, say: Callable[[str], None] = print) -> TuneResult:
    """Runs `holdfast tune`, or goes on with a search that was stopped or killed.

    Raises:
        MissingExtraError: optuna is not installed.
        SettingsError: keys that cannot be searched, or nothing to continue.
        Stopped: Ctrl-C; the search can go on.
        HoldfastError: what the first training said, when none can start.
    """
    require_optuna()
    talk = say if settings.verbose else _silent
    folder, settings, ranges = _begin(settings, talk)
    with alone(folder):
        study = open_study(folder, seed=settings.seed, epochs=settings.epochs, prune=settings.prune)
        if not study.trials:
            study.enqueue_trial({key: r.holds(getattr(settings, key)) for key, r in ranges.items()})
        talk(f"search in {folder}: {len(ranges)} keys, {_ended(study)} of {settings.trials} trainings done")
        for key, r in ranges.items():
            talk(f"  {key:<15} {r}")
        try:
            for number in _left_over(study):
                _train(study, number, settings, ranges, folder, talk)
                _write(study, settings, ranges, folder)
            while _ended(study) < settings.trials:
                trial = study.ask(distributions(ranges))
                _train(study, trial.number, settings, ranges, folder, talk)
                _write(study, settings, ranges, folder)
        except KeyboardInterrupt:
            raise Stopped(
                f"The search in {folder} was stopped.",
                signal=2,
                hint=f"Go on with holdfast tune --resume {folder}.",
            ) from None
    return _result(study, ranges, folder, talk)


def _begin(settings: TuneSettings, say: Callable[[str], None]) -> tuple[Path, TuneSettings, dict[str, Range]]:
    """Returns the folder of a search, its settings, and the ranges of what is searched."""
    if settings.resume:
        folder = (
            Path(settings.resume) if isinstance(settings.resume, str) else _newest(Path(settings.project))
        )
        if not (folder / "space.json").is_file():
            raise SettingsError(
                f"{folder} holds no search to continue.",
                hint="Give the folder of one: --resume runs/tune/exp.",
            )
        kept = TuneSettings.load(folder / "args.yaml")
        new = {key: value for key, value in settings.given().items() if key not in ("project", "name")}
        refused = sorted(key for key in new if key not in _MAY_CHANGE and new[key] != getattr(kept, key))
        if refused:
            raise SettingsError(
                f"A search that goes on keeps its settings, but {', '.join(refused)} differ from {folder}.",
                hint=f"Only {', '.join(_MAY_CHANGE)} may change.",
            )
        content = json.loads((folder / "space.json").read_text(encoding="utf-8"))
        return folder, kept.replace(**{k: v for k, v in new.items() if k != "resume"}), from_plain(content)
    settings.require("model", "data")
    for note in settings.notes:
        say(note)
    read_dataset_file(settings.data)  # what all trainings would stumble over is said before the first
    ranges = space(settings.search, given=settings.given(), optimizer=settings.optimizer)
    folder = new_run_folder(settings.project, settings.name, exist_ok=False)
    write_atomic(folder / "args.yaml", settings.as_yaml().encode())
    write_json(folder / "space.json", to_plain(ranges))
    return folder, settings, ranges


def _newest(project: Path) -> Path:
    found = sorted(project.glob("*/space.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise SettingsError(
            f"There is no search in {project} to continue.", hint="Start one without --resume."
        )
    return found[-1].parent


def _train(
    study: Study,
    number: int,
    settings: TuneSettings,
    ranges: Mapping[str, Range],
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Does one trial, or the rest of it, and tells the study what came of it."""
    from optuna.trial import Trial, TrialState

    trial = Trial(study, study.trials[number]._trial_id)
    run = _run(folder, number)
    values = {key: rounded(trial.params[key]) for key in ranges}
    plain = {key: value for key, value in settings.as_dict().items() if key not in _OURS}
    keys = changed({**plain, **values})
    keys |= {"project": str(run.parent), "name": run.name, "exist_ok": True}
    last = run / "weights" / "last.pt"
    if last.is_file():  # of an earlier part of the search
        keys = {"resume": str(last), "project": keys["project"], "name": keys["name"]}
    say(f"trial {number}: " + " ".join(f"{key}={value:g}" for key, value in values.items()))
    pruned = False
    with Training(keys, log=folder / "trials" / f"{run.name}.log") as training:
        while training.running(_POLL):
            if not pruned and _told(trial, run):
                pruned = True
                training.stop()
    code = training.wait()
    _told(trial, run)
    best = _fitness(run)
    if pruned and code:
        study.tell(number, state=TrialState.PRUNED)
        say(f"trial {number}: pruned after {len(_rows(run))} epochs, fitness {max(best.values()):.4f}")
    elif code or not best:
        if code in (130, -2):
            raise KeyboardInterrupt
        reason = training.last_words()
        if code in _FOR_ALL and not (run / "results.csv").is_file():
            study.tell(number, state=TrialState.FAIL)
            raise HoldfastError(f"Training {number} of the search could not start: {reason}")
        if code == WeightsError.exit_code and "resume" in keys:  # killed before a whole checkpoint
            last.unlink(missing_ok=True)
        study.tell(number, state=TrialState.FAIL)
        say(f"trial {number}: failed (exit code {code}: {reason})")
    else:
        study.tell(number, max(best.values()))
        say(f"trial {number}: fitness {max(best.values()):.4f}; the best so far is {study.best_value:.4f}")


def _told(trial: Trial, run: Path) -> bool:
    """Tells the study each epoch's best fitness so far; True when it wants the training to end."""
    from optuna.trial import TrialState

    known = trial.study.trials[trial.number]
    if known.state is not TrialState.RUNNING:
        return False
    best, prune = float("-inf"), False
    for epoch, reached in _fitness(run).items():
        best = max(best, reached)
        if epoch not in known.intermediate_values:
            trial.report(best, epoch)
            prune = trial.should_prune()
    return prune


def _rows(run: Path) -> list[dict[str, str]]:
    path = run / "results.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _fitness(run: Path) -> dict[int, float]:
    """Fitness of each epoch that was validated."""
    return {int(row["epoch"]): fitness(_scores(row)) for row in _rows(run) if _scores(row)}


def _scores(row: Mapping[str, str]) -> dict[str, float]:
    """Numbers of an epoch that its fitness is made of; none where it was not validated."""
    return {column: float(row[column]) for column in fitness_weights(row) if row[column]}


def _ended(study: Study) -> int:
    return sum(trial.state.is_finished() for trial in study.trials)


def _left_over(study: Study) -> list[int]:
    """Trials that were under way when the search ended."""
    from optuna.trial import TrialState

    return [trial.number for trial in study.trials if trial.state is TrialState.RUNNING]


def _best(study: Study) -> FrozenTrial | None:
    ended = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    return max(ended, key=lambda trial: trial.value or 0.0, default=None)


def _write(study: Study, settings: TuneSettings, ranges: Mapping[str, Range], folder: Path) -> None:
    """Writes trials.csv, best.yaml and the picture anew."""
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    rows = {trial.number: _rows(_run(folder, trial.number)) for trial in ended}
    scores = list(dict.fromkeys(name for found in rows.values() for row in found for name in _scores(row)))
    table = [_entry(trial, ranges, rows[trial.number], scores, folder) for trial in ended]
    lines = [",".join(table[0])]
    lines += [",".join("" if value is None else str(value) for value in row.values()) for row in table]
    write_atomic(folder / "trials.csv", ("\n".join(lines) + "\n").encode())
    best = _best(study)
    if best is not None:
        _write_best(best, settings, ranges, folder)
    plot_search(table, {key: (r.low, r.high, r.log) for key, r in ranges.items()}, folder / "tune.png")


def _run(folder: Path, number: int) -> Path:
    return folder / "trials" / f"trial{number:04d}"


def _entry(
    trial: FrozenTrial,
    ranges: Mapping[str, Range],
    rows: Sequence[Mapping[str, str]],
    scores: Sequence[str],
    folder: Path,
) -> dict[str, Any]:
    """A row of trials.csv.

    Args:
        rows: of the training's results.csv.
        scores: columns of it that are shown, of the best epoch.
    """
    best = max((row for row in rows if _scores(row)), key=lambda row: fitness(_scores(row)), default=None)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "fitness": trial.value if trial.value is None else round(trial.value, 6),
        **{short(column): None if best is None else best[column] for column in scores},
        "epochs": len(rows),
        "seconds": round(float(rows[-1]["time"]), 1) if rows else None,
        "run": _run(folder, trial.number).relative_to(folder).as_posix(),
        **{key: rounded(trial.params[key]) if key in trial.params else None for key in ranges},
    }


def _write_best(best: FrozenTrial, settings: TuneSettings, ranges: Mapping[str, Range], folder: Path) -> None:
    """best.yaml: every hyper-parameter of the best training, those that were searched first."""
    values: dict[str, Any] = {key: rounded(best.params[key]) for key in ranges}
    for component in (OptimSettings, LossSettings, AugmentSettings):
        part = settings.part(component)
        values |= {key: value for key, value in part.items() if key not in values and key != "hyp"}
    TrainSettings(**values)  # nothing is written that could not be read
    head = f"# Training {best.number} of a search: fitness {best.value:.4f}. Use it as --hyp."
    text = f"{head}\n{yaml.safe_dump(values, sort_keys=False)}"
    write_atomic(folder / "best.yaml", text.encode())


def _result(
    study: Study, ranges: Mapping[str, Range], folder: Path, say: Callable[[str], None]
) -> TuneResult:
    best = _best(study)
    if best is None or best.value is None:
        raise HoldfastError(
            f"No training of the search in {folder} came to its end.",
            hint="The reasons are in its trials/*.log.",
        )
    values = {key: rounded(best.params[key]) for key in ranges}
    first = study.trials[0]
    if first.value is not None and first.state.name == "COMPLETE":
        say(f"the settings as they were: fitness {first.value:.4f}; the best: {best.value:.4f}")
    say(f"best training {best.number}; use it with --hyp {folder / 'best.yaml'}")
    say(f"all trainings: {folder / 'trials.csv'}, {folder / 'tune.png'}")
    return TuneResult(
        folder, folder / "best.yaml", best.value, values, _run(folder, best.number)
    )


def _silent(text: str) -> None:
    """Takes a line and drops it."""
