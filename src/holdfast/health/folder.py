"""What a run folder says of its run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from holdfast.errors import SettingsError
from holdfast.health.log import NAME, read
from holdfast.health.records import Epoch, Facts, History

TABLE = "results.csv"


def locate(text: str, project: Path) -> Path:
    """The folder of a run.

    Args:
        text: the folder, or a file in it or in its `weights`; empty takes the newest run.
        project: where the newest run is looked for.

    Raises:
        SettingsError: there is no such run.
    """
    if not text:
        folders = [path.parent for path in project.glob(f"*/{NAME}")]
        if not folders:
            raise SettingsError(
                f"There is no run in {project}.", hint="Name its folder, for example runs/train/exp."
            )
        return max(folders, key=lambda folder: (folder / NAME).stat().st_mtime)
    path = Path(text)
    if not path.exists():
        raise SettingsError(
            f"{path}: there is no such folder.", hint="Name the folder of a run, for example runs/train/exp."
        )
    for folder in (path, *path.parents[:2]):
        if (folder / NAME).is_file() or (folder / TABLE).is_file():
            return folder
    raise SettingsError(
        f"{path} is no folder of a training: it has neither {NAME} nor {TABLE}.",
        hint="Name one such as runs/train/exp.",
    )


def history_of(folder: Path) -> History:
    """All that is known of a run: from health.jsonl or, where it has none, the less that results.csv says."""
    records = read(folder / NAME)
    if records:
        return History.of(records)
    settings, manifest = _mapping(folder / "args.yaml"), _mapping(folder / "manifest.json")
    return History.of([Facts.of(settings, manifest), *_epochs(folder / TABLE)])


def _mapping(path: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file; nothing where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _epochs(path: Path) -> Iterator[Epoch]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return
    for row in rows:
        values = {key: float(value) for key, value in row.items() if key and value}
        if "epoch" in values:
            yield Epoch(
                epoch=int(values["epoch"]),
                losses=_terms(values, "train"),
                val_losses=_terms(values, "val"),
                metrics={key: value for key, value in values.items() if key.startswith("metrics/")},
                rates=tuple(value for key, value in values.items() if key.startswith("lr/")),
            )


def _terms(values: dict[str, float], split: str) -> dict[str, float]:
    """`train/box_loss` -> box."""
    names = {key: key.removeprefix(f"{split}/").removesuffix("_loss") for key in values}
    return {name: values[key] for key, name in names.items() if key.startswith(f"{split}/")}
