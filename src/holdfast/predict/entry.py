"""`holdfast predict` and `YOLO.predict`: settings in; results, lines on the terminal and files out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, overload

from holdfast.devices import choose_device, choose_inference_precision
from holdfast.errors import SettingsError
from holdfast.models.detector import Detector
from holdfast.models.exported import Exported
from holdfast.models.outputs import ClassOutputs
from holdfast.post.results import Results
from holdfast.predict.run import Found, Predictor
from holdfast.predict.save import Saver
from holdfast.predict.screen import Screen
from holdfast.predict.source import Frame, Source, SourceLike, Unreadable
from holdfast.runs import new_run_folder
from holdfast.settings import PredictSettings


@overload
def predict_settings(
    settings: PredictSettings,
    *,
    model: Detector | Exported,
    source: SourceLike | None = ...,
    stream: Literal[False] = ...,
    say: Callable[[str], None] = ...,
) -> list[Results]: ...


@overload
def predict_settings(
    settings: PredictSettings,
    *,
    model: Detector | Exported,
    source: SourceLike | None = ...,
    stream: Literal[True],
    say: Callable[[str], None] = ...,
) -> Iterator[Results]: ...


def predict_settings(
    settings: PredictSettings,
    *,
    model: Detector | Exported,
    source: SourceLike | None = None,
    stream: bool = False,
    say: Callable[[str], None] = print,
) -> list[Results] | Iterator[Results]:
    """Detects on everything the source holds.

    A file that cannot be read gives one line (also when `verbose` is off) and no result; the run goes on, and
    the last line counts such files.

    Args:
        settings: the verb's settings; `settings.source` is used when `source` is None.
        model: a detector; it stays as it is.
        source: anything `Source` takes.
        stream: return an iterator that holds one result at a time instead of a list. Use it for videos and
            big folders.
        say: where lines go.

    Raises:
        DataError: the source does not exist or holds nothing to read. Raised at once, with `stream` too.
        SettingsError: no source, or crops of a model that finds no boxes.
    """
    wanted: SourceLike = settings.source if source is None else source
    if isinstance(wanted, str) and not wanted:
        raise SettingsError(
            "predict needs a source.", hint="Give --source with an image, a folder, a pattern or a video."
        )
    if settings.save_crop and model.outputs is ClassOutputs:
        raise SettingsError(
            f"{model.name} classifies whole pictures, so there is nothing to cut out.",
            hint="Leave out save_crop.",
        )
    pictures = Source(wanted, vid_stride=settings.vid_stride)
    device = choose_device(settings.device)
    if device.fallback and not settings.verbose:
        say(f"device: {device.note}")
    precision = choose_inference_precision(device.device, settings.half)
    predictor = Predictor(
        model,
        device=device.device,
        dtype=precision.dtype,
        imgsz=settings.imgsz,
        conf=settings.conf,
        iou=settings.iou,
        max_det=settings.max_det,
        nms=settings.nms,
        classes=settings.classes,
        agnostic=settings.agnostic_nms,
        retina_masks=settings.retina_masks,
        batch=settings.batch,
        say=say,
    )
    look = {
        "boxes": settings.show_boxes,
        "labels": settings.show_labels,
        "conf": settings.show_conf,
        "line_width": settings.line_width,
    }
    saver = None
    if settings.save or settings.save_txt or settings.save_crop:
        saver = Saver(
            new_run_folder(settings.project, settings.name, exist_ok=settings.exist_ok),
            pictures=settings.save,
            txt=settings.save_txt,
            conf=settings.save_conf,
            crops=settings.save_crop,
            look=look,
        )
    screen = Screen(look, say) if settings.show else None
    if settings.verbose:
        say(f"device: {device.note}; precision: {precision.note}")
    results = _run(predictor, pictures, saver, screen, say, verbose=settings.verbose)
    return results if stream else list(results)


def _run(
    predictor: Predictor,
    pictures: Source,
    saver: Saver | None,
    screen: Screen | None,
    say: Callable[[str], None],
    *,
    verbose: bool,
) -> Iterator[Results]:
    tally = _Tally()
    found = predictor(pictures)
    try:
        for item in found:
            if isinstance(item, Unreadable):
                tally.unreadable += 1
                say(f"{_place(item, len(pictures))}not read: {item.reason}")
                continue
            tally.add(item.result)
            if saver is not None:
                item.result.save_dir = str(saver.folder)
                saver.save(item.frame, item.result)
            if screen is not None:
                screen.show(item.frame, item.result)
            if verbose:
                say(_line(item, len(pictures)))
            yield item.result
        if verbose or tally.unreadable:
            for line in tally.lines(saver):
                say(line)
    finally:
        found.close()
        if saver is not None:
            saver.close()


class _Tally:
    """Counts for the last lines of a run."""

    def __init__(self) -> None:
        self.pictures = self.boxes = self.unreadable = 0
        self.speed = {"preprocess": 0.0, "inference": 0.0, "postprocess": 0.0}

    def add(self, result: Results) -> None:
        self.pictures += 1
        self.boxes += len(result)
        for name in self.speed:
            self.speed[name] += result.speed[name] or 0.0

    def lines(self, saver: Saver | None) -> Iterator[str]:
        skipped = f", {self.unreadable} not readable" if self.unreadable else ""
        yield f"{_count(self.pictures, 'picture')}, {_count(self.boxes, 'detection')}{skipped}"
        if self.pictures:
            parts = ", ".join(f"{spent / self.pictures:.1f} ms {name}" for name, spent in self.speed.items())
            yield f"speed: {parts} per picture"
        if saver is not None:
            labels = (
                f", {_count(saver.labels, 'label file')} in {saver.folder / 'labels'}" if saver.txt else ""
            )
            yield f"results in {saver.folder}{labels}"


def _line(item: Found, total: int) -> str:
    height, width = item.frame.image.shape[:2]
    text = item.result.verbose()
    spent = sum(v or 0.0 for v in item.result.speed.values())
    return f"{_place(item.frame, total)}{width}x{height} {text}, {spent:.1f} ms"


def _place(item: Frame | Unreadable, total: int) -> str:
    frame = ""
    if isinstance(item, Frame) and item.video is not None:
        frame = f" frame {item.video.at + 1}" + (f"/{item.video.frames}" if item.video.frames else "")
    return f"{item.number + 1}/{total} {item.path}{frame}: "


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
