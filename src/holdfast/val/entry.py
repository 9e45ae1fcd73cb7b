"""`holdfast val`: settings into a validation, and its result into a table and the files of a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from holdfast.data.crops import read_side
from holdfast.data.dataset_file import DatasetFile, read_dataset_file
from holdfast.data.index import Index
from holdfast.data.reader import EvalReader
from holdfast.data.splits import split_index, spreads
from holdfast.data.storing import open_store
from holdfast.devices import choose_device, choose_precision
from holdfast.errors import DataError
from holdfast.evaluate.metrics import Metrics
from holdfast.evaluate.results_json import COCO_CATEGORY_IDS, image_key, write_results
from holdfast.evaluate.summary import results_summary, table
from holdfast.models.detector import Detector
from holdfast.models.exported import Exported
from holdfast.models.outputs import DetectOutputs
from holdfast.runs import new_run_folder, write_json
from holdfast.settings import ValSettings
from holdfast.val.run import Evaluator, ValResult
from holdfast.val.scoring import SCORINGS


def validate_settings(
    settings: ValSettings,
    *,
    model: Detector | Exported,
    report: Callable[[Path, Metrics], None] | None = None,
    say: Callable[[str], None] = print,
    index_cache: Path | None = None,
    image_cache: Path | None = None,
    scanned: Callable[[int, int], None] | None = None,
) -> ValResult:
    """Runs `holdfast val`: validates a model on a split, prints the table and writes the run folder.

    Args:
        report: draws the pictures of a result into a folder.
        say: where lines go.
        index_cache: folder for the indices of large data sets.
        image_cache: where `cache=disk` keeps images; a folder of the project when None.
        scanned: told how many images are scanned, and how many there are.

    Raises:
        DataError: the data set is missing, empty, or has other classes than the model.
    """
    device = choose_device(settings.device)
    if device.fallback and not settings.verbose:
        say(f"device: {device.note}")
    precision = choose_precision(device.device, amp=settings.half, amp_dtype="auto")
    dataset = read_dataset_file(settings.data)
    names = {0: "object"} if settings.single_cls else dataset.names
    if not settings.single_cls:
        require_classes(dataset, model.classes)
    _require_keypoints(dataset, model.keypoints)
    rect = settings.rect and model.fixed_size is None
    if rect != settings.rect and settings.verbose:
        say("rect: off, because the file takes one size only")
    workers = settings.threads
    index = split_index(
        dataset,
        settings.split,
        needs=model.needs,
        min_items=settings.min_items,
        single_cls=settings.single_cls,
        workers=workers,
        cache=index_cache,
        scanned=scanned,
    )
    side = read_side(index, settings.imgsz, whole=model.needs.whole)
    opened = open_store(
        settings.cache,
        index,
        use="val",
        side=side,
        budget=settings.cache_budget,
        folder=image_cache or Path(settings.project) / "images",
    )
    evaluator = Evaluator(
        index,
        names=names,
        imgsz=settings.imgsz,
        stride=max(model.strides),
        batch=settings.batch,
        workers=workers,
        rect=rect,
        say=say,
        device=device.device,
        precision=precision,
        conf=settings.conf,
        iou=settings.iou,
        max_det=settings.max_det,
        nms=settings.nms,
        single_cls=settings.single_cls,
        needs=model.needs,
        answers=model.answers,
        read=EvalReader(
            index, side=side, store=opened.store, timeout=settings.read_timeout
        ),
    )
    if settings.verbose:
        say(f"device: {device.note}; precision: {precision.note}")
        say(f"data: {len(index)} images of split '{settings.split}' in {dataset.path}")
        if index.sigmas:
            say(f"keypoints: {spreads(index.sigmas)}")
        if opened.note:
            say(f"cache: {opened.note}")
        for line in (*index.notes, *index.problems.lines()):
            say(line)
    try:
        result = evaluator(model)
    finally:
        evaluator.close()
        opened.close()
    folder = new_run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    write_json(folder / "results.json", results_summary(result.metrics, result.speed, unread=result.unread))
    if settings.save_json:
        save_predictions(
            result, index, folder / "predictions.json", answers=model.answers, coco=_is_coco(dataset.path)
        )
    if settings.save_txt:
        _save_txt(result, index, folder / "labels", answers=model.answers, save_conf=settings.save_conf)
    if settings.plots and report is not None:
        report(folder, result.metrics)
    if settings.verbose:
        say(table(result.metrics, result.speed))
        say(f"results in {folder}")
    return result


def require_classes(dataset: DatasetFile, classes: int) -> None:
    """Raises a DataError unless a data set has as many classes as a model."""
    count = len(dataset.names)
    if classes != count:
        raise DataError(
            f"names {count} class{'' if count == 1 else 'es'}, but the model has {classes}.",
            path=dataset.path,
            hint="Validate with the data set the model was trained on, or one with the same classes.",
        )


def _require_keypoints(dataset: DatasetFile, keypoints: tuple[int, int] | None) -> None:
    """Raises a DataError where labels have another number of keypoints than a model finds."""
    if keypoints and dataset.keypoints and dataset.keypoints[0] != keypoints[0]:
        raise DataError(
            f"says that objects have {dataset.keypoints[0]} keypoints, but the model finds {keypoints[0]}.",
            path=dataset.path,
            hint="Validate with the data set the model was trained on, or one with the same keypoints.",
        )


def save_predictions(
    result: ValResult, index: Index, path: Path, *, answers: type = DetectOutputs, coco: bool
) -> None:
    """Writes all that was found as COCO result rows.

    Args:
        answers: type of what the model says, `Detector.answers`.
        coco: use the category ids of COCO's list of 91 instead of class indices.
    """
    ids = dict(enumerate(COCO_CATEGORY_IDS)) if coco else None
    write_results(
        path,
        (
            row
            for number, found in result.predictions
            for row in SCORINGS[answers].json_rows(
                image_key(index.path(number)), found, ids, index.size(number)
            )
        ),
    )


def _save_txt(result: ValResult, index: Index, folder: Path, *, answers: type, save_conf: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, found in result.predictions:
        lines = SCORINGS[answers].text_rows(found, index.size(number), index.names, save_conf=save_conf)
        stem = Path(index.path(number)).stem
        (folder / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _is_coco(path: Path) -> bool:
    """Tells COCO itself by its file name, as the official programs do."""
    return path.name in ("coco.yaml", "coco-pose.yaml")
