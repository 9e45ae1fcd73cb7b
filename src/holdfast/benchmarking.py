"""`holdfast benchmark`: a deployed model at several input sizes: speed, memory, scores where data is given.

What is timed is the deployed network and the way from its outputs to boxes, on pixels that are on the device
already. Memory is the most that was held beyond what was there before the model's first pass at that size.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import SettingsError
from holdfast.settings import BenchmarkSettings, ValSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from holdfast.devices import Precision
    from holdfast.load import LoadedModel
    from holdfast.models.detector import Detector

_IOU, _MAX_DET = 0.7, 300


@dataclass(frozen=True)
class Row:
    """A size in a number format.

    Attributes:
        imgsz: side of the input, pixels.
        precision: number format.
        network_ms, boxes_ms: medians per image: of the forward pass, and from outputs to boxes.
        fps: images per second of both together.
        spread: of the times of a pass, (longest - shortest) / median.
        memory_bytes: most that was held beyond what was there before.
        gflops: of an image in the deployed form.
        scores: on the data, by the names of the task's own two metrics, such as mAP50-95 of boxes or
            mAP50-95(M) of masks; empty without data.
    """

    imgsz: int
    precision: str
    network_ms: float
    boxes_ms: float
    fps: float
    spread: float
    memory_bytes: int
    gflops: float
    scores: dict[str, float]


def run_benchmark(
    settings: BenchmarkSettings, *, loaded: LoadedModel | None = None, say: Callable[[str], None] = print
) -> list[Row]:
    """Runs `holdfast benchmark`.

    Args:
        settings: what to time, and how.
        loaded: the model, where it is loaded already.
        say: where the table goes.

    Returns:
        A row for each size and number format.

    Raises:
        SettingsError: no model or no size.
        DataError: a data set that is missing, or has other classes than the model.
    """
    settings.require("model")
    if not settings.sizes:
        raise SettingsError("benchmark needs a size.", hint="Give --sizes 320,640.")
    import torch

    from holdfast.devices import choose_device, choose_inference_precision
    from holdfast.downloads import weights_folder
    from holdfast.evaluate.fitness import fitness_weights, short
    from holdfast.load import load_model
    from holdfast.models.profile import gflops
    from holdfast.running import run_val
    from holdfast.runs import new_run_folder, write_json
    from holdfast.val.scoring import SCORINGS
    from holdfast.weights.release import locate

    told = say if settings.verbose and not settings.as_json else _silent
    loaded = loaded or load_model(locate(settings.model, weights_folder()))
    device = choose_device(settings.device)
    deployed = loaded.model.deploy(nms=settings.nms)
    stride = max(deployed.strides)
    sizes = sorted({max(-(-size // stride) * stride, 2 * stride) for size in settings.sizes})
    formats = [choose_inference_precision(device.device, half) for half in (False, True)[: 1 + settings.half]]
    if len(formats) == 2 and formats[0].dtype == formats[1].dtype:
        told(f"16 bits are left out: {formats.pop().note}")
    told(f"{loaded.model.name}, deployed, batch {settings.batch}, {device.note}, {loaded.origin}")
    folder = new_run_folder(settings.project, settings.name, exist_ok=settings.exist_ok)
    columns = list(fitness_weights(SCORINGS[loaded.model.answers].metrics.columns))[-2:]  # the task's own
    measured = {short(column): column for column in columns}
    rows: list[Row] = []
    told(_head(measured))
    for size in sizes:
        cost = gflops(deployed, size)
        for precision in formats:
            half = precision.dtype is not torch.float32
            timed = _timed(deployed, size, device.device, precision, settings)
            scores: dict[str, float] = {}
            if settings.data:
                keys: dict[str, Any] = {"model": settings.model, "data": settings.data, "imgsz": size}
                keys |= {"split": settings.split, "half": half, "nms": settings.nms, "plots": False}
                keys |= {"device": settings.device, "workers": settings.workers, "verbose": False}
                keys |= {"project": str(folder), "name": f"val-{size}{'-half' if half else ''}"}
                found = run_val(ValSettings(**keys), loaded=loaded, say=_silent).metrics.results_dict
                scores = {name: found[column] for name, column in measured.items()}
            rows.append(Row(size, _name(precision.dtype), *timed, gflops=cost, scores=scores))
            told(_line(rows[-1], measured))
    content = {
        "model": loaded.model.name,
        "weights": str(settings.model),
        "device": device.note,
        "batch": settings.batch,
        "rounds": settings.rounds,
        "data": settings.data or None,
        "rows": [asdict(row) for row in rows],
    }
    write_json(folder / "benchmark.json", content)
    if settings.as_json:
        say(json.dumps(content))
    told(f"medians of {settings.rounds} passes after {settings.warmup}; {folder / 'benchmark.json'}")
    return rows


def _timed(
    deployed: Detector, size: int, device: torch.device, precision: Precision, settings: BenchmarkSettings
) -> tuple[float, float, float, float, int]:
    """Milliseconds per image of network and boxes, images per second, spread, bytes."""
    import torch

    from holdfast.memory.budget import Peak, give_back
    from holdfast.post.decode import answer

    give_back(device)
    with torch.inference_mode(), Peak(device) as peak:
        network = copy.deepcopy(deployed).to(device, precision.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pixels = _pixels(size, settings.batch).to(device, precision.dtype)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        times: list[tuple[float, float]] = []
        for _ in range(settings.warmup + settings.rounds):
            began = _now(device)
            outputs = network(pixels)
            between = _now(device)
            answer(
                outputs,
                strides=network.strides,
                reg_max=network.reg_max,
                conf=settings.conf,
                iou=_IOU,
                max_det=_MAX_DET,
            )
            times.append((between - began, _now(device) - between))
            del outputs
        del network, pixels
    times = times[settings.warmup :]
    first, second = (statistics.median(part) for part in zip(*times, strict=True))
    whole = [sum(each) for each in times]
    middle = statistics.median(whole)
    per_image = 1000.0 / settings.batch
    spread = (max(whole) - min(whole)) / middle
    return first * per_image, second * per_image, settings.batch / middle, spread, peak.grown


def _pixels(size: int, batch: int) -> Tensor:
    """(B, 3, size, size) float32 in [0, 1]: drawn scenes, so that there is something to find."""
    import cv2
    import torch

    from holdfast.data.shapes import draw_scene

    scenes = [cv2.resize(draw_scene(0, 1, number)[0], (size, size)) for number in range(min(batch, 8))]
    pixels = torch.stack([torch.from_numpy(scenes[n % len(scenes)]) for n in range(batch)])
    return pixels.permute(0, 3, 1, 2).float() / 255


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _head(scores: Iterable[str]) -> str:
    names = "".join(f"  {name}" for name in scores)
    return f"  size  format         FPS    network     boxes    memory  GFLOPs{names}"


def _line(row: Row, scores: Iterable[str]) -> str:
    found = ((name, f"{row.scores[name]:.3f}" if name in row.scores else "-") for name in scores)
    said = "".join(f"  {score:>{len(name)}}" for name, score in found)
    return (
        f"{row.imgsz:>6}  {row.precision:<9} {row.fps:>8.1f} {row.network_ms:>7.1f} ms "
        f"{row.boxes_ms:>6.1f} ms {row.memory_bytes / 2**20:>5.0f} MiB {row.gflops:>7.1f}{said}"
    )


def _silent(text: str) -> None:
    """Takes a line and drops it."""
