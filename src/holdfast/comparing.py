"""`holdfast compare`: runs side by side, as a table, JSON and one picture of all curves."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from holdfast.errors import SettingsError
from holdfast.report.compare import comparison, comparison_lines, plot_comparison
from holdfast.report.run_record import read_runs
from holdfast.runs import new_run_folder, write_json
from holdfast.settings import CompareSettings


def run_compare(settings: CompareSettings, *, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Runs `holdfast compare`.

    Args:
        settings: which runs, and what to write.
        say: where the table goes.

    Returns:
        The comparison as plain data; `files` names what was written.

    Raises:
        SettingsError: fewer than two runs, or a folder that cannot be written to.
        DataError: a folder that is no run.
    """
    if len(settings.runs) < 2:
        raise SettingsError(
            f"compare needs two runs or more, and {len(settings.runs)} were given.",
            hint="Type 'holdfast compare runs/train/exp runs/train/exp2'.",
        )
    runs = read_runs(settings.runs)
    found = comparison(runs)
    folder = new_run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    found["files"] = {"json": str(folder / "compare.json")}
    if settings.plots:
        found["files"]["picture"] = str(plot_comparison(runs, folder / "compare.png"))
    write_json(folder / "compare.json", found)
    if settings.as_json:
        say(json.dumps(found))
    elif settings.verbose:
        for line in comparison_lines(runs):
            say(line)
        say(f"* best of its row; {' and '.join(found['files'].values())}")
    return found
