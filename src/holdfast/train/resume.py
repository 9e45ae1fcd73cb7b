"""From where a run goes on: a checkpoint that was named, the newest one, or the one of the same launch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdfast.errors import SettingsError
from holdfast.train.checkpoint import read_checkpoint
from holdfast.train.dist import Place
from holdfast.train.plan import MemoryPlan

RESUME_KEYS = frozenset(
    ("device", "ranks", "ddp_timeout", "sync_bn", "workers", "cache", "cache_budget", "epochs", "patience")
) | {"val_interval", "save_period", "save_every", "nosave", "noval", "verbose", "plots"} | {
    "micro_batch", "ckpt", "memory_limit", "headroom", "read_timeout"
}


def resume_path(asked: bool | str, project: Path, folder: Path | None, place: Place) -> Path | None:
    """Returns the checkpoint to go on from; None starts anew.

    Args:
        asked: True takes the newest run of `project`, a text names a checkpoint or a run folder.
        folder: the run folder of an earlier attempt of the same run; its checkpoint comes first.
        place: names the launch; one that torchrun has started again finds the run it had begun.

    Raises:
        SettingsError: True, and there is no run.
    """
    folder = folder or (None if asked else folder_of_launch(project, place))
    if folder is not None and (folder / "weights" / "last.pt").is_file():
        return folder / "weights" / "last.pt"
    if asked is True:
        return _newest(project)
    path = Path(asked) if asked else None
    return path / "weights" / "last.pt" if path is not None and path.is_dir() else path


def resume(
    path: Path, plain: Mapping[str, Any], given: Mapping[str, Any], say: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the values of settings, and the checkpoint, of a run that goes on.

    The run's own settings hold; of the new ones only `RESUME_KEYS` count, others that differ are refused.

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
        read.replace(path)  # or the next checkpoint would keep the damaged file as the previous one
        say(f"{path} is damaged; going on from the checkpoint before it")
    stored = content["settings"]
    new = {key: plain[key] for key in given if key not in ("resume", "project", "hyp")}
    refused = [key for key, value in new.items() if key not in RESUME_KEYS and value != stored.get(key)]
    if refused:
        raise SettingsError(
            f"A resumed run keeps its settings, but {', '.join(sorted(refused))} differ from {path}.",
            hint=f"Only {', '.join(sorted(RESUME_KEYS))} may change.",
        )
    return {**stored, **{key: value for key, value in new.items() if key in RESUME_KEYS}}, content


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
    found = sorted(project.glob("*/weights/last.pt"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise SettingsError(
            f"There is no run to resume in {project}.",
            hint="Name one: --resume runs/train/exp/weights/last.pt.",
        )
    return found[-1]
