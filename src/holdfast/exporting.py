"""`holdfast export`: a model written into files that other runtimes run, each checked before it is there.

A file is written under another name, opened by its own runtime and compared with the model on drawn pictures
and noise; with `data`, AP of both is compared too. Only what passes gets its name, so a file that failed
replaces nothing.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import SettingsError, WeightsError
from holdfast.running import Say, located
from holdfast.settings import ExportSettings
from holdfast.settings.types import usable_cores

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from holdfast.export.graph import Graph
    from holdfast.export.suppress import Suppression
    from holdfast.load import LoadedModel
    from holdfast.models.detector import Detector
    from holdfast.models.exported import Exported, Facts

LEAST_AP = 0.01
AP_LIMIT, AP_LIMIT_ROUGH = 0.005, 0.02  # most that AP may differ; the second in 16 bits, or with suppression


@dataclass(frozen=True)
class _Job:
    """What is written, in whatever format, and how it is checked.

    Attributes:
        settings: as asked.
        model: what files are compared with.
        graph: the network that is written.
        facts: what a file says of itself.
        suppression: what it does inside; None leaves that to whoever runs it.
        told: where lines go.
    """

    settings: ExportSettings
    model: Detector
    graph: Graph
    facts: Facts
    suppression: Suppression | None
    told: Say


def run_export(
    settings: ExportSettings, *, loaded: LoadedModel | None = None, say: Say = print
) -> list[Path]:
    """Runs `holdfast export`.

    Args:
        settings: what to write, how, and how to check it.
        loaded: the model, where it is loaded already; it stays as it is.
        say: where lines go.

    Returns:
        The files, in the order of the formats.

    Raises:
        SettingsError: a combination that cannot be.
        MissingExtraError: a package that a format needs is not installed.
        WeightsError: the model cannot be written, or the file does not say what the model says.
    """
    settings.require("model")
    from holdfast.devices import choose_device
    from holdfast.export.graph import Graph
    from holdfast.load import load_model

    told = say if settings.verbose else _silent
    for note in settings.notes:
        told(note)
    source = located(settings.model)
    loaded = loaded or load_model(source)
    nms = None if settings.end2end is None else not settings.end2end
    model = copy.deepcopy(loaded.model.deploy(nms=nms))
    device = choose_device(settings.device or "cpu")
    if device.fallback or device.device.type != "cpu":
        say(f"device: {device.note}")
    model = model.to(device.device).float()
    told(f"model: {model.name}, deployed, {loaded.origin}")
    size = _size(settings, loaded, told)
    anchors = sum(size[0] // step * (size[1] // step) for step in model.strides)
    stored = copy.deepcopy(model).half() if settings.half else model
    graph = Graph(stored, max_det=settings.max_det, anchors=None if settings.dynamic else anchors).eval()
    suppression = _suppression(settings, graph, told)
    facts = _facts(settings, model, size, device.device, suppression)
    job = _Job(settings, model, graph, facts, suppression, told)
    paths = [_target(settings, source, model, form) for form in settings.format]
    for path in paths:
        draft = path.with_name(f"{path.stem}.unchecked-{os.getpid()}{path.suffix}")
        try:
            how = _write(job, draft)
            file = _checked(job, draft, path)
            if settings.data:
                _compare_ap(job, file, path)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        told(f"{path}: {how}, {_layout(job)}, {path.stat().st_size:,} bytes")
    return paths


def _suppression(settings: ExportSettings, graph: Graph, told: Say) -> Suppression | None:
    from holdfast.export.suppress import Suppression

    if not settings.nms:
        idle = [key for key in ("conf", "agnostic_nms") if key in settings.given()]
        if idle:
            told(f"{', '.join(idle)}: without effect, as nothing is suppressed in the file; add --nms")
        return None
    if graph.end_to_end:
        told("nms: nothing to do, as this branch needs no suppression; --end2end no takes the other one")
        return None
    return Suppression(settings.conf, settings.iou, settings.max_det, settings.agnostic_nms)


def _size(settings: ExportSettings, loaded: LoadedModel, told: Say) -> tuple[int, int]:
    """Height and width of the input: as asked, else as trained; rounded up to the stride, which is said."""
    sides = settings.imgsz
    if loaded.imgsz is not None and "imgsz" not in settings.given():
        sides = (loaded.imgsz,)
    stride = max(loaded.model.strides)
    height, width = (-(-side // stride) * stride for side in (sides * 2)[:2])
    if (height, width) != (sides * 2)[:2]:
        told(f"imgsz: {height}x{width}, as sides are multiples of {stride}")
    return height, width


def _facts(
    settings: ExportSettings,
    model: Detector,
    size: tuple[int, int],
    device: torch.device,
    suppression: Suppression | None,
) -> Facts:
    from holdfast import __version__
    from holdfast.models.exported import Facts

    return Facts(
        names=model.names,
        stride=max(model.strides),
        imgsz=size,
        batch=settings.batch,
        dynamic=settings.dynamic,
        half=settings.half,
        device=str(device),
        task=model.task,
        description=f"{model.name}, written by Holdfast {__version__}",
        suppression=str(suppression or ""),
    )


def _target(settings: ExportSettings, source: str | Path, model: Detector, form: str) -> Path:
    """The file to write: beside the weights; of the download folder's and random ones here.

    Raises:
        SettingsError: no such folder, or another suffix than the format's.
    """
    given = Path(settings.model)
    folder = given.parent if given.is_file() else Path()
    stem = given.stem if Path(source).is_file() else model.name
    path = Path(settings.file) if settings.file else folder / f"{stem}.{form}"
    if path.suffix != f".{form}":
        raise SettingsError(f"'{path}' is to hold {form}, so its name must end in .{form}.")
    if not path.parent.is_dir():
        raise SettingsError(f"There is no folder '{path.parent}' to write {path.name} into.")
    if path.is_dir():
        raise SettingsError(f"{path} is a folder.", hint="Choose another file.")
    return path


def _write(job: _Job, path: Path) -> str:
    """Writes a file, and returns what it is in words.

    Raises:
        WeightsError: the folder takes no files, or the network cannot be written.
        SettingsError: an operator set that cannot be.
    """
    import torch

    from holdfast.export.write import write_onnx, write_pt2, write_torchscript

    graph, facts, settings = job.graph, job.facts, job.settings
    try:
        path.touch()  # so that no writer of torch has to say it
    except OSError as fault:
        raise WeightsError(
            f"Nothing can be written into '{path.parent}' ({fault.strerror}).",
            hint="Give --file in a folder you may write to.",
        ) from fault
    count = max(facts.batch, 2) if facts.dynamic else facts.batch  # torch.export takes a 1 for a constant
    example = torch.zeros(count, 3, *facts.imgsz, device=facts.device)
    example = example.half() if facts.half else example
    if path.suffix == ".torchscript":
        write_torchscript(path, graph, example, facts)
        return f"TorchScript for {facts.device}"
    if path.suffix == ".pt2":
        write_pt2(path, graph, example, facts)
        return "torch.export"
    opset = write_onnx(
        path,
        graph,
        example,
        facts,
        opset=settings.opset,
        simplify=settings.simplify,
        suppression=job.suppression,
    )
    if settings.opset not in (None, opset):
        raise SettingsError(
            f"torch wrote opset {opset} where {settings.opset} was asked for.", hint="Leave --opset out."
        )
    return f"ONNX of opset {opset}"


def _checked(job: _Job, draft: Path, path: Path) -> Exported:
    """Opens a file with its own runtime and compares it with the model.

    Raises:
        WeightsError: they differ by more than they may.
    """
    import torch

    from holdfast.export.parity import FULL, HALF, Difference, compare, expected
    from holdfast.models.exported import open_exported
    from holdfast.models.outputs import Rows

    facts, settings = job.facts, job.settings
    file = open_exported(draft)
    limit = HALF if facts.half else FULL
    worst = Difference(0.0, 0.0)
    images, empty = 0, True
    with torch.inference_mode():
        for pixels in _pictures(facts):
            given = pixels.to(facts.device)
            wanted = expected(
                job.model, given, max_det=settings.max_det, suppression=job.suppression
            )
            difference = compare(file(given), wanted, thresholded=job.suppression is not None)
            worst = Difference(*(max(pair) for pair in zip(worst, difference, strict=True)))
            images += len(pixels)
            empty = empty and isinstance(wanted, Rows) and not bool((wanted.rows[..., 4] > 0).any())
    runtime = {".onnx": "onnxruntime", ".torchscript": "TorchScript"}.get(path.suffix, "torch.export")
    if not worst.within(limit):
        raise WeightsError(
            f"{path}: not written, because what {runtime} computes differs from the model by {worst}, and at "
            f"most {limit} is allowed.",
            hint="Leave --half out." if facts.half else "Try another --format or --opset.",
        )
    job.told(f"parity: {runtime} against the model on {images} images: {worst} at most (allowed: {limit})")
    if empty:
        what = f"both found nothing above {settings.conf:g} on drawn pictures"
        job.told(f"parity: {what}; --data compares on real ones")
    return file


def _pictures(facts: Facts) -> list[Tensor]:
    """Batches (B, 3, H, W) float32 in [0, 1]: drawn scenes and noise, of two sizes where these are free."""
    import cv2
    import torch

    from holdfast.data.shapes import draw_scene

    height, width = facts.imgsz
    noise = torch.rand(facts.batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    batches = [noise]
    shapes = [(facts.batch, height, width)]
    if facts.dynamic:
        shapes.append((facts.batch + 1, height + facts.stride, width + 2 * facts.stride))
    for count, rows, columns in shapes:
        scenes = [cv2.resize(draw_scene(0, 1, number)[0], (columns, rows)) for number in range(count)]
        pixels = torch.stack([torch.from_numpy(scene) for scene in scenes]).permute(0, 3, 1, 2)
        batches.append(pixels.float() / 255)
    return batches


def _compare_ap(job: _Job, file: Exported, path: Path) -> None:
    """Measures AP of file and model on the same images.

    Raises:
        WeightsError: they differ by more than they may.
        SettingsError: an input that is not a square.
    """
    import torch

    from holdfast.data.dataset_file import read_dataset_file
    from holdfast.data.splits import split_index
    from holdfast.devices import choose_precision
    from holdfast.downloads import data_file
    from holdfast.evaluate.coco import DetectionMetrics
    from holdfast.val.entry import require_classes
    from holdfast.val.run import Evaluator

    facts, settings, suppression = job.facts, job.settings, job.suppression
    height, width = facts.imgsz
    if height != width:
        raise SettingsError("AP is measured on squares.", hint="Give --imgsz one side, or leave data out.")
    dataset = read_dataset_file(data_file(settings.data))
    require_classes(dataset, job.model.classes)
    workers = min(settings.workers, usable_cores())
    index = split_index(
        dataset, settings.split, single_cls=False, fraction=settings.fraction, workers=workers
    )
    device = torch.device(facts.device)
    evaluator = Evaluator(
        index,
        names=dataset.names,
        imgsz=height,
        stride=facts.stride,
        batch=facts.batch,
        workers=workers,
        rect=False,
        device=device,
        precision=choose_precision(device, amp=False, amp_dtype="auto"),
        conf=suppression.conf if suppression else 0.001,
        iou=settings.iou,
        max_det=settings.max_det,
        nms=None,
        single_cls=False,
    )
    try:
        found = [evaluator(network).metrics for network in (job.model, file)]
    finally:
        evaluator.close()
    ours, theirs = (metrics.map for metrics in found if isinstance(metrics, DetectionMetrics))
    limit = AP_LIMIT_ROUGH if settings.half or suppression else AP_LIMIT
    line = f"mAP50-95 of the file {theirs:.4f}, of the model {ours:.4f}, on {len(index)} images"
    if not abs(theirs - ours) <= limit:
        raise WeightsError(
            f"{path}: not written: {line}; at most {limit} apart is allowed.",
            hint="Leave --half out." if settings.half else "Try another --format.",
        )
    job.told(f"AP: {line} (allowed: {limit} apart)")
    if max(ours, theirs) < LEAST_AP:
        job.told("AP: so low that comparing it says nothing; the model hardly finds what is on these images")


def _layout(job: _Job) -> str:
    from holdfast.models.exported import INPUT, OUTPUT

    facts, graph = job.facts, job.graph
    height, width = facts.imgsz
    count = "B" if facts.dynamic else str(facts.batch)
    size = "3 x height x width" if facts.dynamic else f"3 x {height} x {width}"
    rows = f"{graph.max_det} x 6 (xyxy, score, class)"
    anchors = f"{4 + len(facts.names)} x {graph.anchors or 'anchors'} (centre, size, scores)"
    answer = rows if graph.end_to_end or facts.suppression else anchors
    inside = f", suppression inside ({facts.suppression})" if facts.suppression else ""
    return f"{INPUT} {count} x {size} float{16 if facts.half else 32} -> {OUTPUT} {count} x {answer}{inside}"


def _silent(text: str) -> None:
    """Takes a line and drops it."""
