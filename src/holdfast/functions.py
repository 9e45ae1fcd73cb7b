"""The verbs that need no model in hand, as functions under the names of the command line.

Unusual: thin on purpose, like the `YOLO` object: each makes the settings of its verb and calls the door.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.running import Say, run_train
from holdfast.settings import AdviseSettings, CheckSettings, ConvertSettings, DownloadSettings, TrainSettings

if TYPE_CHECKING:
    from holdfast.data.check import Inspection
    from holdfast.health.records import Finding
    from holdfast.train.finish import TrainResult


def resume(run: str | Path | None = None, *, say: Say = print, **keys: Any) -> TrainResult:
    """Goes on with a training as `holdfast resume` does.

    Args:
        run: a run folder or a checkpoint; None takes the newest run of `project`.
        say: where lines go.
        keys: keys of `holdfast train` that may change, such as `epochs`, `device`, `workers` and `data`.

    Returns:
        What the finished run leaves.

    Raises:
        SettingsError: a key that may not change, or a run that has finished.
        WeightsError: a checkpoint that cannot be used.
    """
    return run_train(TrainSettings(**{**keys, "resume": True if run is None else str(run)}), say=say)


def check(data: str | Path, *, say: Say = print, **keys: Any) -> Inspection:
    """Looks for what is wrong with a data set as `holdfast check` does.

    Args:
        data: data.yaml, or its folder.
        say: where the findings are told.
        keys: further keys of `holdfast check`, such as `fix="cleaned"`.

    Returns:
        The findings; `exit_code` is 0 when nothing is wrong, 1 for warnings, 2 when it cannot be trained on.

    Raises:
        SettingsError: a folder that cannot be written to.
    """
    from holdfast.checking import run_check

    return run_check(CheckSettings(data=str(data), **keys), say=say)


def advise(run: str | Path = "", *, say: Say = print, **keys: Any) -> list[Finding]:
    """Says what would make a training better as `holdfast advise` does.

    Args:
        run: the folder of the run; empty takes the newest.
        say: where the advice is told.
        keys: further keys of `holdfast advise`, such as `project`.

    Returns:
        The findings with their evidence, the greatest expected gain first.

    Raises:
        SettingsError: there is no such run.
    """
    from holdfast.advising import run_advise

    return run_advise(AdviseSettings(run=str(run), **keys), say=say)


def convert(source: str | Path, target: str | Path, *, say: Say = print, **keys: Any) -> Path:
    """Writes a weight file in another form as `holdfast convert` does.

    Args:
        source: a weight file, ours or an official one.
        target: the file to write, `.safetensors` or `.pt`.
        say: where the line about the outcome goes.
        keys: further keys of `holdfast convert`, such as `form="official"`.

    Returns:
        The file.

    Raises:
        SettingsError: a target that cannot be, or is there already.
        WeightsError: a source that cannot be read, or a target that cannot be written.
    """
    from holdfast.conversion import run_convert

    return run_convert(ConvertSettings(source=str(source), target=str(target), **keys), say=say)


def download(name: str, *, say: Say = print, **keys: Any) -> Path:
    """Downloads a released weight file as `holdfast download` does, unless it is there already.

    Args:
        name: `yolo26n` or `yolo26n.pt`.
        say: where the licence, the address and the outcome are told.
        keys: further keys of `holdfast download`, such as `folder`.

    Returns:
        The file.

    Raises:
        SettingsError: nobody released a file of that name.
        WeightsError: it cannot be had, or is not what was released.
    """
    from holdfast.downloads import run_download

    return run_download(DownloadSettings(names=(name,), **keys), say=say)[0]
