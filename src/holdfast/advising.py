"""`holdfast advise`: what the rules say of a run, the greatest expected gain first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from holdfast.health.folder import history_of, locate
from holdfast.health.lines import advice_lines, run_line
from holdfast.health.records import Finding, to_row
from holdfast.health.rules import examine
from holdfast.settings import AdviseSettings


def run_advise(settings: AdviseSettings, *, say: Callable[[str], None] = print) -> list[Finding]:
    """Runs `holdfast advise`.

    Args:
        settings: which run.
        say: where lines go.

    Raises:
        SettingsError: there is no such run.
    """
    folder = locate(settings.run, Path(settings.project))
    history = history_of(folder)
    found = examine(history)
    if settings.as_json:
        say(json.dumps({"run": str(folder), "findings": [to_row(finding) for finding in found]}))
        return found
    for line in (f"{folder}: {run_line(history)}", *advice_lines(found)):
        say(line)
    return found
