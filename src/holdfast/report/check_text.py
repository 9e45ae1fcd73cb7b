"""The outcome of a check for the terminal: a table of the splits, the findings, the verdict."""

from __future__ import annotations

from holdfast.data.check import Inspection
from holdfast.data.findings import Finding

_MARGIN = " " * 9


def check_lines(result: Inspection, *, fixed: bool = False) -> list[str]:
    """The lines to print, the verdict last.

    Args:
        result: what the check found.
        fixed: a cleaned copy is being written, so there is no need to offer it.
    """
    lines = [*_splits(result), ""] if result.splits else []
    for finding in result.findings:
        lines += _finding(finding)
    if result.findings:
        lines.append("")
    lines.append(result.verdict)
    mendable = sum(finding.level == "warning" and finding.mendable for finding in result.findings)
    labelled = result.dataset is not None and not result.dataset.class_folders
    if result.exit_code == 1 and mendable and labelled and not fixed:
        warnings = sum(finding.level == "warning" for finding in result.findings)
        lines.append(f"Add --fix FOLDER for a cleaned copy, free of {mendable} of {warnings} warnings.")
    return lines


def _splits(result: Inspection) -> list[str]:
    heads = ("images", "left out", "background", "boxes", "rows left out", "small/medium/large")
    rows: list[tuple[str, ...]] = [("", *heads)]
    for split in result.splits:
        problems, total = split.index.problems, max(len(split.index.boxes), 1)
        counts = len(split.index), problems.dropped_images, split.index.backgrounds, len(split.index.boxes)
        sizes = "/".join(f"{100 * count / total:.0f}" for count in split.facts.area) + " %"
        rows.append((split.name, *(f"{count:,}" for count in (*counts, problems.dropped_rows)), sizes))
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads) + 1)]
    return [
        "  ".join(cell.rjust(width) if column else cell.ljust(width)
                  for column, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip


def _finding(finding: Finding) -> list[str]:
    lines = [f"{finding.level:<9}{finding.title}"]
    if finding.examples:
        lines.append(f"{_MARGIN}for example {finding.examples[0]}")
    if finding.remedy:
        lines.append(f"{_MARGIN}-> {finding.remedy}")
    return lines
