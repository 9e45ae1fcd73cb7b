"""`holdfast check`: what is wrong with a data set, as text, JSON and a page, and mended in a copy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from holdfast.data.check import Inspection, inspect
from holdfast.data.clean import refuse_filled, write_clean
from holdfast.downloads import data_file
from holdfast.report.check_page import write_check
from holdfast.report.check_text import check_lines
from holdfast.runs import new_run_folder
from holdfast.settings import CheckSettings


def run_check(
    settings: CheckSettings,
    *,
    say: Callable[[str], None] = print,
    report: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Runs `holdfast check`.

    Args:
        settings: what to look at, and what to write.
        say: where the outcome goes.
        report: is told how many images were opened, and how many there are.

    Returns:
        The findings, with the exit code.

    Raises:
        SettingsError: no data set given, or a folder that cannot be written to.
    """
    settings.require("data")
    if settings.fix:
        refuse_filled(Path(settings.fix))
    result = inspect(
        data_file(settings.data),
        imgsz=settings.imgsz,
        single_cls=settings.single_cls,
        pictures=settings.pictures,
        workers=settings.workers,
        progress=report or (lambda done, total: None),
    )
    told = say if settings.verbose and not settings.as_json else _silent
    for line in check_lines(result, fixed=bool(settings.fix)):
        told(line)
    written: dict[str, str] = {}
    if settings.plots and result.splits:
        folder = new_run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
        written["page"] = str(write_check(folder, result))
        told(f"Pictures of the worst cases: {written['page']}")
    if settings.fix and result.splits:
        copy = write_clean(result, Path(settings.fix))
        written["copy"] = str(copy.path)
        for line in copy.lines():
            told(line)
    if settings.as_json:
        say(json.dumps({**result.as_dict(), **written}))
    return result


def _silent(text: str) -> None:
    pass
