"""From where a run goes on: a checkpoint that was named, the newest one, or the one of the same launch; and
what a run that goes on keeps.

Unusual: a checkpoint may come from anywhere. Its settings hold, but never say where files are written: that
is the run folder it lies in, or else a new one where this user has runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.errors import SettingsError
from holdfast.load import LoadedModel
from holdfast.models.registry import from_header
from holdfast.train.checkpoint import read_checkpoint
from holdfast.train.dist import Place
from holdfast.train.plan import MemoryPlan

AUTO = "auto"
RESUME_KEYS = frozenset((
    "device", "ranks", "ddp_timeout", "sync_bn", "supervise", "data", "workers", "cache", "cache_budget",
    "epochs", "patience", "val_interval", "save_period", "save_every", "nosave", "noval", "verbose", "plots",
    "micro_batch", "ckpt", "memory_limit", "headroom", "read_timeout", "worker_kind",
    "loggers",
))  # fmt: skip
_PLACE = ("project", "name", "exist_ok")  # where a run is written: never taken from a checkpoint


def resume_path(
    asked: bool | str, project: Path, name: str, folder: Path | None, place: Place
) -> Path | None:
    """Returns the checkpoint to go on from; None starts anew.

    Args:
        asked: True takes the newest run of `project`, `auto` the run `name` if it has a checkpoint; another
            text names a checkpoint, a run folder or its folder of weights.
        folder: the run folder of an earlier attempt of the same run; its checkpoint comes first.
        place: names the launch; one that torchrun has started again finds the run it had begun.

    Raises:
        SettingsError: True, and there is no run.
    """
    if asked == AUTO:
        folder = folder or project / name
    folder = folder or (None if asked else folder_of_launch(project, place))
    if folder is not None and _has_checkpoint(folder):
        return folder / "weights" / "last.pt"
    if asked is True:
        return _newest(project)
    if not asked or asked == AUTO:
        return None
    path = Path(asked)
    if path.is_dir():
        return (path if path.name == "weights" else path / "weights") / "last.pt"
    return path


def run_folder(path: Path) -> Path | None:
    """Returns the run folder that a checkpoint lies in; None where it lies somewhere else."""
    if len(path.parts) < 3:
        path = Path(os.path.abspath(path))
    folder = path.parent.parent
    known = any((folder / name).is_file() for name in ("args.yaml", "manifest.json", "results.csv"))
    return folder if path.parent.name == "weights" and known else None


def _has_checkpoint(folder: Path) -> bool:
    return any((folder / "weights" / name).is_file() for name in ("last.pt", "last.previous.pt"))


def resume(
    path: Path, plain: Mapping[str, Any], given: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the values of settings, and the checkpoint, of a run that goes on.

    The run's own settings hold; of the new ones only `RESUME_KEYS` count, others that differ are refused.
    Where it is written is not up to the checkpoint.

    Args:
        path: the checkpoint.
        plain: all new settings as plain data.
        given: those among them that were set by hand.
        say: where lines go.

    Raises:
        SettingsError: a setting that differs and may not.
        WeightsError: the checkpoint cannot be used.
    """
    content, read = read_checkpoint(path)
    if read != path:
        gone = "damaged" if path.is_file() else "gone"
        with suppress(OSError):  # in its place, or the next one would keep the damaged file as the previous
            read.replace(path)
        say(f"{path} is {gone}; going on from the checkpoint before it")
    stored = content["settings"]
    folder = run_folder(path)
    new = {key: plain[key] for key in given if key not in ("resume", "hyp", "project", "exist_ok")}
    refused = [key for key, value in new.items() if key not in RESUME_KEYS and value != stored.get(key)]
    if "name" in refused and (folder is None or new["name"] == folder.name):
        refused.remove("name")
    if refused:
        raise SettingsError(
            f"A resumed run keeps its settings, but {', '.join(sorted(refused))} differ from {path}.",
            hint="Give another --name to start a new run." if plain["resume"] == AUTO else
            f"Only {', '.join(sorted(RESUME_KEYS))} may change.",
        )
    where = {key: plain[key] for key in _PLACE} if folder is None else {"project": str(folder.parent)}
    changed = {key: value for key, value in new.items() if key in RESUME_KEYS}
    return {**stored, **changed, **where, "resume": False}, content


def refuse_finished(
    folder: Path | None, *, over: bool, asked: bool | str, epochs: int, say: Callable[[str], None]
) -> None:
    """Ends the resumption of a run that has nothing left to do; one whose end was cut short does it again.

    Args:
        folder: its folder.
        over: whether all its epochs are done, or patience ran out.
        asked: how it was asked for; `auto`, and False where a run was started again, repeat the end.

    Raises:
        SettingsError: it has finished.
    """
    done = None if folder is None else folder / "results.json"
    if not over:
        if done is not None:
            with suppress(OSError):
                done.unlink(missing_ok=True)  # it speaks of an earlier end
        return
    if done is not None and done.is_file() and asked not in (AUTO, False):
        raise SettingsError(
            f"This run of {epochs} epochs has finished, or its patience is over: there is nothing to resume.",
            hint="Give more with --epochs or --patience, or start a new run with --weights.",
        )
    say("all epochs of this run are done; its final validation is done again")


def earlier_model(content: Mapping[str, Any], names: Mapping[int, str]) -> LoadedModel:
    """Returns the model of a run that goes on, still with random weights. The checkpoint alone says what it
    is: the file that the run began with may be gone, or another one by now.

    Args:
        content: the checkpoint.
        names: classes of the data set; another number of them than the model's is left to `data_changes`.
    """
    header = content["model"]
    kept = names if len(names) == header.get("classes") else header.get("names")
    model = from_header({**header, "names": kept})
    return LoadedModel(model, None, content["facts"].get("origin", "from a checkpoint"))


def earlier_plan(
    content: Mapping[str, Any] | None, asked: Mapping[str, Any], *, device: str, ranks: int
) -> MemoryPlan | None:
    """Returns the plan that a resumed run goes on with, so that its steps are cut as before and end the same.

    None where it has to be made anew: a run that starts, another device or number of ranks, or other wishes
    about memory.

    Args:
        content: the checkpoint.
        asked: the memory settings that hold now.
        device: the sentence about the device.
        ranks: processes that share a step.
    """
    if content is None or "plan" not in content["facts"]:
        return None
    facts, stored = content["facts"], content["settings"]
    if facts["device"] != device or facts.get("ranks") != ranks:
        return None
    if any(stored.get(key) != value for key, value in asked.items()):
        return None
    plan = MemoryPlan.from_dict(facts["plan"])
    again = "as in the part of the run before"
    return plan if again in plan.reasons else replace(plan, reasons=(*plan.reasons, again))


def compared(plan: MemoryPlan, content: Mapping[str, Any] | None) -> MemoryPlan:
    """Returns a plan that says, in a run that goes on, how it differs from the one before."""
    before = None if content is None else content["facts"].get("plan")
    if before is None:
        return plan
    now = plan.as_dict()
    keys = [key for key in ("micro_batch", "recompute", "precision") if now[key] != before.get(key)]
    if not keys:
        return plan
    changes = ", ".join(f"{key} {now[key]} instead of {before.get(key)}" for key in keys)
    close = "batch norm takes its statistics over other images" if "micro_batch" in keys else "up to rounding"
    text = f"not the plan of the part before: {changes}; results are not bit-identical, but close ({close})"
    return replace(plan, reasons=(*plan.reasons, text))


def folder_of_launch(project: Path, place: Place) -> Path | None:
    """Returns the folder of the run that this launch had begun before torchrun started its ranks again."""
    if not place.restarts or not place.launch:
        return None
    manifests = [path for path in project.glob("*/manifest.json") if _launch(path) == place.launch]
    newest = max(manifests, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else newest.parent


def _launch(manifest: Path) -> str:
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8")).get("launch", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _newest(project: Path) -> Path:
    found = sorted(project.glob("*/weights/last*.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise SettingsError(
            f"There is no run to resume in {project}.",
            hint="Name one: --resume runs/train/exp/weights/last.pt.",
        )
    return found[-1].with_name("last.pt")
