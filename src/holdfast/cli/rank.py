"""One rank of a training that `launching.py` has started: reads what to train, trains, leaves word."""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import traceback
from pathlib import Path

import yaml

from holdfast.errors import HoldfastError, RankError


def main(settings: str, folder: str) -> None:
    """Trains as one rank and ends this process.

    Args:
        settings: file of the settings that were given.
        folder: where parent and ranks leave notes.
    """
    from holdfast.train.launch import CRASHED, end_with_parent

    end_with_parent()
    faulthandler.enable()  # a library that crashes leaves a word about where
    whole_lines()
    try:
        code = _train(Path(settings), Path(folder))
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = CRASHED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads and groups of a rank that lost the others would keep the process waiting


def _train(settings: Path, folder: Path) -> int:
    from holdfast.launching import Notes
    from holdfast.running import train_here
    from holdfast.settings import TrainSettings
    from holdfast.train.handover import hand_over

    notes, rank = Notes(folder), int(os.environ["RANK"])
    try:
        values = yaml.safe_load(settings.read_text(encoding="utf-8"))
        result = train_here(TrainSettings.from_mapping(values), folder=notes.folder, made=notes.tell_folder)
    except RankError as error:
        print(f"holdfast: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except HoldfastError as error:
        notes.tell_error(rank, error)
        return error.exit_code
    if rank == 0:
        hand_over(notes.result, result)
    return 0


def whole_lines() -> None:
    """Has each printed line leave this process in one piece, also where Python was told not to buffer: ranks
    share the terminal, and what one says must not end in the middle of what another says.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, write_through=False)
