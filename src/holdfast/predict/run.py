"""Models on a stream of pictures: letterbox, folded network, answers in original pixels.

Pictures of one forward pass always have one input shape: a batch is split by shape instead of padding
everything to a square. So `batch` changes speed and memory, never a result, and neither does the order or
company of the files.

The network is folded once. Reading, decoding and resizing of the next pictures happen in a thread while it
computes.

Dimensions: B batch, H W input height and width, n detections.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor

from holdfast.data.batch import scaled
from holdfast.data.crops import middle
from holdfast.data.letterbox import Letterbox, apply, fit, smallest_shape
from holdfast.errors import DataError
from holdfast.memory.recover import Pieces
from holdfast.models.detector import Detector
from holdfast.models.exported import Exported
from holdfast.models.outputs import ClassOutputs
from holdfast.post.decode import answer
from holdfast.post.masks import has_pixels
from holdfast.post.original import Found as Parts
from holdfast.post.original import in_original
from holdfast.post.results import Results
from holdfast.predict.prefetch import prefetch
from holdfast.predict.source import Frame, Picture, Unreadable


class Found(NamedTuple):
    """A picture and what is on it."""

    frame: Frame
    result: Results


class _Prepared(NamedTuple):
    """A picture ready for the network.

    Attributes:
        pixels: (3, H, W); uint8 from the letterbox, float in [0, 1] when the user gave a tensor.
        bgr: the picture as Results shows it.
        letterbox: how it was placed.
        seconds: time that took.
    """

    frame: Frame
    pixels: Tensor
    bgr: Picture
    letterbox: Letterbox
    seconds: float


_Ready: TypeAlias = "_Prepared | Unreadable"


class Predictor:
    """Runs one model over pictures. Holds the folded network, so that several sources can follow each other.

    Args:
        model: a detector of `holdfast.models`, or an exported file; it stays as it is.
        device: where the network runs.
        dtype: number format of the network: torch.float32, bfloat16 or float16. Boxes are decoded in float32
            always.
        imgsz: longer side of the input in pixels, rounded up to the largest stride.
        conf: only scores above it count.
        iou: overlap above which the weaker of two boxes is dropped.
        max_det: most detections per picture.
        classes: keep these class numbers only.
        nms: which branch answers, as in `Detector.deploy`.
        agnostic: boxes of different classes suppress each other too.
        batch: pictures per forward pass.
        rect: pad to the smallest multiple of the stride; False pads to the full square.
        retina_masks: masks on the original picture instead of the network's input.
        ahead: pictures decoded in advance, at least `batch`.
        say: told when memory ran out and a batch goes through the network in pieces.

    Raises:
        DataError: a class number the model does not have.
    """

    def __init__(
        self,
        model: Detector | Exported,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        imgsz: int = 640,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        nms: bool | None = None,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
        batch: int = 1,
        rect: bool = True,
        retina_masks: bool = False,
        ahead: int = 4,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.names: Mapping[int, str] = model.names
        self.strides: Sequence[int] = model.strides
        self.reg_max = model.reg_max
        self.device = torch.device(device)
        self.dtype = dtype
        self.stride = max(self.strides)
        self.imgsz = -(-imgsz // self.stride) * self.stride
        self.fixed_size = model.fixed_size
        self.conf, self.iou, self.max_det, self.agnostic = conf, iou, max_det, agnostic
        self.retina_masks = retina_masks
        self.whole = model.outputs is ClassOutputs  # looks at the middle of pictures, without letterbox
        self.classes = None if classes is None else tuple(classes)
        self.batch, self.rect, self.ahead = batch, rect, max(ahead, batch)
        self.pieces = Pieces(batch, device=self.device, say=say)
        unknown = sorted(set(self.classes or ()) - set(self.names))
        if unknown:
            raise DataError(
                f"The model has no class {unknown[0]}.",
                hint=f"It has the classes 0 to {len(self.names) - 1}.",
            )
        deployed = model.deploy(nms=nms)
        if deployed is model and any(p.dtype != dtype or p.device != self.device for p in model.parameters()):
            deployed = copy.deepcopy(model)  # it was folded before and belongs to the user
        self.network = deployed.to(self.device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, source: Iterable[Frame | Unreadable]) -> Generator[Found | Unreadable, None, None]:
        """Yields one item per picture or unreadable file, in the order of the source."""
        waiting: list[_Ready] = []
        pictures = 0
        ready = prefetch(map(self._prepare, source), depth=self.ahead)
        try:
            for item in ready:
                waiting.append(item)
                pictures += not isinstance(item, Unreadable)
                if pictures == self.batch or not pictures:
                    yield from self._answer(waiting)
                    waiting, pictures = [], 0
            yield from self._answer(waiting)
        finally:
            ready.close()

    def _prepare(self, item: Frame | Unreadable) -> _Ready:
        """Runs in the reading thread."""
        if isinstance(item, Unreadable):
            return item
        bgr = np.asarray(cv2.cvtColor(item.image, cv2.COLOR_RGB2BGR), np.uint8)
        start = time.perf_counter()
        if item.ready is not None:
            height, width = item.ready.shape[1:]
            if height % self.stride or width % self.stride:
                raise DataError(
                    f"A tensor of {height}x{width} does not fit the network.",
                    hint=f"Its sides must be multiples of {self.stride}; an array (BGR uint8) is resized.",
                )
            placed = Letterbox(1.0, 1.0, 0, 0, height, width)
            return _Prepared(item, item.ready, bgr, placed, time.perf_counter() - start)
        height, width = item.image.shape[:2]
        if self.whole:
            canvas = middle(item.image, np.empty((self.imgsz, self.imgsz, 3), np.uint8))
            placed = Letterbox(1.0, 1.0, 0, 0, height, width)  # there is nothing to map back
            pixels = torch.from_numpy(canvas).permute(2, 0, 1)
            return _Prepared(item, pixels, bgr, placed, time.perf_counter() - start)
        shape = self.fixed_size or (self.imgsz, self.imgsz)
        if self.rect and self.fixed_size is None:
            shape = smallest_shape(height, width, self.imgsz, stride=self.stride)
        letterbox = fit(height, width, *shape)
        canvas = apply(item.image, letterbox, np.empty((*shape, 3), np.uint8))
        # (H, W, 3) viewed as (3, H, W): the memory order that channels_last wants, so nothing is copied.
        pixels = torch.from_numpy(canvas).permute(2, 0, 1)
        return _Prepared(item, pixels, bgr, letterbox, time.perf_counter() - start)

    def _answer(self, items: Sequence[_Ready]) -> list[Found | Unreadable]:
        """Pictures of one shape and type go through the network together; the order of `items` is kept."""
        groups: dict[tuple[torch.dtype, torch.Size], list[int]] = {}
        for number, item in enumerate(items):
            if not isinstance(item, Unreadable):
                groups.setdefault((item.pixels.dtype, item.pixels.shape), []).append(number)
        answers: dict[int, Found] = {}
        for numbers in groups.values():
            group = [item for item in (items[n] for n in numbers) if not isinstance(item, Unreadable)]
            pieces = self.pieces.run(
                len(group),
                lambda start, stop: self._detect(group[start:stop]),  # noqa: B023
            )
            answers.update(zip(numbers, (found for piece in pieces for found in piece), strict=True))
        return [item if isinstance(item, Unreadable) else answers[n] for n, item in enumerate(items)]

    def _detect(self, group: Sequence[_Prepared]) -> list[Found]:
        with torch.inference_mode():
            start = self._now()
            x = _stack([item.pixels for item in group]).to(self.device, non_blocking=True)
            if x.dtype == torch.uint8:
                x = scaled(x, dtype=self.dtype, channels_last=True)
            else:
                x = x.to(self.dtype, memory_format=torch.channels_last)
            prepared = self._now()
            outputs = self.network(x)
            computed = self._now()
            found = answer(
                outputs,
                strides=self.strides,
                reg_max=self.reg_max,
                conf=self.conf,
                iou=self.iou,
                max_det=self.max_det,
                agnostic=self.agnostic,
                classes=self.classes,
            )
            boxes = [item.letterbox for item in group]
            size = None if self.retina_masks else (int(x.shape[2]), int(x.shape[3]))
            parts = in_original(outputs, found, boxes, input_size=size)
            done = self._now()
        share = 1000.0 / len(group)
        shared = {
            "preprocess": (prepared - start) * share,
            "inference": (computed - prepared) * share,
            "postprocess": (done - computed) * share,
        }
        answers = []
        for item, part in zip(group, parts, strict=True):
            speed = {**shared, "preprocess": shared["preprocess"] + 1000.0 * item.seconds}
            # Outside inference mode: users may change and differentiate the copies.
            own = _without_empty(part)._asdict()
            result = Results(item.bgr, path=item.frame.path, names=self.names, speed=speed, **own)
            answers.append(Found(item.frame, result))
        return answers

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _stack(pixels: Sequence[Tensor]) -> Tensor:
    """Tensors (3, H, W) of one shape -> (B, 3, H, W); a single one is not copied."""
    return pixels[0].unsqueeze(0) if len(pixels) == 1 else torch.stack(list(pixels))


def _without_empty(parts: Parts) -> Parts:
    """Copies of all parts, without the objects whose mask has no pixel."""
    if parts.masks is not None:  # they are large, and ours already
        kept = has_pixels(parts.masks)
        if not kept.all():
            parts = Parts(*(None if part is None else part[kept] for part in parts))
    return Parts(*(None if part is None else part if part is parts.masks else part.clone() for part in parts))
