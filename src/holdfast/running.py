"""Training, validation and prediction from settings, as the command line and the `YOLO` object both ask for
them.

Unusual: thin on purpose. The parts that may not know each other (trainer, validator, reports) are handed to
each other here, and that is all. torch comes with the first model, not with this module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.errors import SettingsError
from holdfast.settings import PredictSettings, TrainSettings, ValSettings

if TYPE_CHECKING:
    from holdfast.load import LoadedFile, LoadedModel
    from holdfast.models.detector import Detector
    from holdfast.models.exported import Exported
    from holdfast.post.results import Results
    from holdfast.train.finish import TrainResult
    from holdfast.val.run import ValResult

Say = Callable[[str], None]
DataUser = TypeVar("DataUser", TrainSettings, ValSettings)
AnySettings = TypeVar("AnySettings", ValSettings, PredictSettings)


def run_train(settings: TrainSettings, *, say: Say = print) -> TrainResult:
    """Runs `holdfast train`: here, or in one process per device when settings name several or ask for
    supervision.
    """
    if settings.resume in (False, "auto"):
        settings.require("model", "data")
    say_notes(settings.notes, settings.verbose, say)
    from holdfast.launching import launch_train, processes

    settings = _with_data(_with_located(settings, "model", "weights", "pretrained"))
    count = processes(settings, say)
    return launch_train(settings, count, say=say) if count else train_here(settings, say=say)


def train_here(
    settings: TrainSettings,
    *,
    say: Say = print,
    folder: Path | None = None,
    made: Callable[[Path], None] | None = None,
) -> TrainResult:
    """Trains in this process, which may be one rank of several.

    Args:
        say: where lines go.
        folder: the run folder to write into; None makes one.
        made: told the run folder as soon as there is one.
    """
    from holdfast.downloads import images_folder, index_folder
    from holdfast.report import run as reporter
    from holdfast.train.session import fit
    from holdfast.val.run import Evaluator

    with _scan_line(settings.verbose and say is print) as scanned:
        return fit(
            settings,
            make_evaluator=Evaluator,
            reporter=reporter,
            say=say,
            index_cache=index_folder(),
            image_cache=images_folder(),
            scanned=scanned,
            folder=folder,
            made=made,
        )


def run_val(
    settings: ValSettings, *, loaded: LoadedModel | LoadedFile | None = None, say: Say = print
) -> ValResult:
    """Runs `holdfast val`; `loaded` spares loading what is there already.

    Without `data`, a model that was trained here is validated on what it was trained with.
    """
    settings.require("model")
    told: tuple[str, ...] = ()
    if loaded is None:
        loaded = opened(located(settings.model), dnn=settings.dnn)
        told = (f"model: {loaded.model.name}, {loaded.origin}",)
    settings = _on_trained_data(settings)
    settings.require("data")
    settings = fitted(_with_data(settings), loaded)
    from holdfast.downloads import images_folder, index_folder
    from holdfast.report.run import validation
    from holdfast.val.entry import validate_settings

    say_notes(told, settings.verbose, say)
    with _scan_line(settings.verbose and say is print) as scanned:
        return validate_settings(
            settings,
            model=loaded.model,
            report=validation,
            say=say,
            index_cache=index_folder(),
            image_cache=images_folder(),
            scanned=scanned,
        )


def run_predict(settings: PredictSettings, *, say: Say = print) -> tuple[int, str]:
    """Runs `holdfast predict`, holding one picture at a time.

    Returns:
        Number of pictures read, and the folder written to (empty when nothing was).
    """
    settings.require("model", "source")
    loaded = opened(located(settings.model), dnn=settings.dnn)
    say_notes((f"model: {loaded.model.name}, {loaded.origin}",), settings.verbose, say)
    count, folder = 0, ""
    for result in predict(fitted(settings, loaded), loaded.model, None, True, say):
        count, folder = count + 1, str(result.save_dir or "")
    return count, folder


def located(source: str | Path) -> str | Path:
    """The path as given, or the downloaded file of that name."""
    from holdfast.downloads import weights_folder
    from holdfast.weights.release import locate

    return locate(source, weights_folder())


def opened(source: str | Path, *, dnn: bool = False) -> LoadedModel | LoadedFile:
    """A model from a name or a weight file, or an exported file.

    Raises:
        SettingsError: OpenCV was asked for something else than an exported file.
    """
    from holdfast.load import load_exported, load_model
    from holdfast.models.exported import is_exported

    if is_exported(source):
        return load_exported(source, dnn=dnn)
    if dnn:
        raise SettingsError(
            f"dnn runs ONNX files by OpenCV, and {source} is none.",
            hint=f"Type 'holdfast export {source} --format onnx' first, or leave --dnn out.",
        )
    return load_model(source)


def _on_trained_data(settings: ValSettings) -> ValSettings:
    """Returns settings with the data set that our weight file names, unless one is given or it is gone."""
    path = Path(located(settings.model))
    if settings.data or path.suffix != ".pt" or not path.is_file():
        return settings
    from holdfast.load import read_checkpoint

    trained = (read_checkpoint(path) or {}).get("settings", {})
    data = str(trained.get("data", ""))
    if not data or not Path(data).exists():
        return settings
    single = settings.single_cls if "single_cls" in settings.given() else bool(trained.get("single_cls"))
    return settings.replace(data=data, single_cls=single)


def _with_data(settings: DataUser) -> DataUser:
    """Returns settings that name the data file in place of a zip file that holds it."""
    from holdfast.downloads import data_file

    found = data_file(settings.data)
    return settings if found == settings.data else settings.replace(data=found)


def _with_located(settings: TrainSettings, *keys: str) -> TrainSettings:
    """Returns settings that name downloaded files by their paths."""
    given = {key: getattr(settings, key) for key in keys}
    found = {key: str(located(value)) for key, value in given.items() if isinstance(value, str) and value}
    changes = {key: value for key, value in found.items() if value != given[key]}
    return settings.replace(**changes) if changes else settings


def fitted(settings: AnySettings, loaded: LoadedModel | LoadedFile) -> AnySettings:
    """Returns settings for what is loaded: its input size, where none is given by hand; a file's device.

    Raises:
        SettingsError: a model of another task than was asked for, or an exported file, which can be run in
            one way only, and another was asked for.
    """
    from holdfast.load import LoadedFile, require_task

    require_task(loaded.model, settings.task)
    if isinstance(loaded, LoadedFile):
        settings = _run_as_file(settings, loaded.model)
    side = loaded.imgsz or loaded.model.own_imgsz
    if side is None or "imgsz" in settings.given():
        return settings
    return settings.replace(imgsz=side)


def _run_as_file(settings: AnySettings, file: Exported) -> AnySettings:
    """Returns settings with the device on which a file is run; size and precision are the file's too."""
    size, device, asked = file.fixed_size, file.facts.device, settings.given()
    wrong, hint = "", ""
    if size is not None and "imgsz" in asked and settings.imgsz != max(size):
        wrong = f"takes {size[0]}x{size[1]} only, so imgsz={settings.imgsz}"
        hint = "Leave --imgsz out, or export with --dynamic."
    elif size is not None and size[0] != size[1] and isinstance(settings, ValSettings):
        wrong = f"takes {size[0]}x{size[1]}, and AP is measured on squares, so validating it"
        hint = "Export with one --imgsz, or with --dynamic."
    elif settings.half is True and not file.facts.half:
        wrong, hint = "computes in 32 bits, so half=True", "Leave --half out here, and export with it."
    elif settings.device and (settings.device == "cpu") != (device == "cpu"):
        wrong = f"is run on {device}, so device={settings.device}"
        hint = "Leave --device out; 'holdfast export --format torchscript --device 0' writes for a GPU."
    if wrong:
        raise SettingsError(f"{settings.model} {wrong} is not possible.", hint=hint)
    return settings.replace(device=device.removeprefix("cuda:"), half=False)  # it converts its input itself


def predict(
    settings: PredictSettings, model: Detector | Exported, source: Any, stream: bool, say: Say
) -> list[Results] | Iterator[Results]:
    from holdfast.predict.entry import predict_settings

    if stream:
        return predict_settings(settings, model=model, source=source, stream=True, say=say)
    return predict_settings(settings, model=model, source=source, say=say)


def say_notes(notes: tuple[str, ...], verbose: bool, say: Say) -> None:
    if verbose:
        for note in notes:
            say(note)


@contextmanager
def _scan_line(wanted: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Shows how far the scan of a data set is, once it takes longer than a moment."""
    if not wanted:
        yield None
        return
    from holdfast.console import Progress

    with Progress(sys.stdout, unit=lambda count: f"{count:,} images", after=1.0) as progress:

        def show(done: int, total: int) -> None:
            progress.show(done, total)
            if done >= total:
                progress.screen.clear()

        yield show
