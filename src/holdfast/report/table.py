"""results.csv as columns of numbers.

Dimensions: E epochs.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import DataError

Columns = dict[str, NDArray[np.float64]]


def read_results(path: Path) -> Columns:
    """Reads a results.csv.

    Returns:
        Column name to (E,) values, NaN for empty cells.

    Raises:
        DataError: the file is missing or is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot be read: {why}.", path=path, hint="Give the run's results.csv.") from None
    names = [name for name in rows[0] if name is not None] if rows else []
    if "epoch" not in {name.strip() for name in names}:
        raise DataError("has no rows with an 'epoch' column.", path=path, hint="Give the run's results.csv.")
    table = [[_number(row.get(name)) for name in names] for row in rows]
    columns = np.array(table, dtype=np.float64).T
    return {name.strip(): values for name, values in zip(names, columns, strict=True)}


def _number(cell: str | None) -> float:
    try:
        return float(cell) if cell and cell.strip() else float("nan")
    except ValueError:
        return float("nan")
