"""`holdfast report`: the pictures and the page of a run folder, also of one whose run is not complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from holdfast.errors import SettingsError
from holdfast.health.folder import locate
from holdfast.report.run import finish
from holdfast.settings import ReportSettings


def run_report(settings: ReportSettings, *, say: Callable[[str], None] = print) -> Path:
    """Runs `holdfast report`.

    Args:
        settings: which run.
        say: told the path of the page, and what could not be made.

    Returns:
        report.html in the folder of the run.

    Raises:
        SettingsError: there is no such run, or its folder cannot be written to.
    """
    folder = locate(settings.run, Path(settings.project))
    page = finish(folder, say)
    if page is None:
        raise SettingsError(
            f"No page could be written to {folder}.", hint="Free some space, or copy the folder elsewhere."
        )
    say(f"report: {page}")
    return page
