"""How what was found is scored and written, by the type of what a model says; `SCORINGS` lists them.

Dimensions: n objects found on an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from holdfast.data.objects import Objects
from holdfast.evaluate import rle
from holdfast.evaluate.coco import DetectionEvaluator, DetectionMetrics
from holdfast.evaluate.measure import KeypointMeasure, MaskMeasure, RotatedMeasure
from holdfast.evaluate.metrics import (
    ClassifyEvaluator,
    ClassifyMetrics,
    Metrics,
    PoseMetrics,
    SegmentMetrics,
)
from holdfast.evaluate.results_json import result_rows
from holdfast.geometry.rotated import smallest_rotated
from holdfast.models.outputs import Angles, ClassOutputs, DetectOutputs, DualOutputs, Keypoints, Masks
from holdfast.post.boxes import OBB, Boxes
from holdfast.post.keypoints import Keypoints as KeypointPart
from holdfast.post.masks import Masks as MaskPart
from holdfast.post.original import Found, Windows
from holdfast.post.probs import Probs
from holdfast.post.text import class_lines, label_lines

Ids = Mapping[int, int] | None
Size = tuple[int, int]


def runs(windows: Windows, count: int, height: int, width: int) -> list[str]:
    """Masks as run lengths, one at a time: dense ones of a large image would not fit."""
    return [rle.of_window(w.cpu().numpy(), top, left, height, width) for top, left, w in windows]


class BoxScoring:
    """Upright boxes.

    Args:
        names: class names by index.
        sigmas: (K,) spread of the labels of each keypoint of the data set; empty without.
    """

    metrics: ClassVar[type[Metrics]] = DetectionMetrics

    def __init__(self, names: Mapping[int, str], sigmas: Sequence[float]) -> None:
        self.boxes = DetectionEvaluator(names)

    def add(self, number: int, found: Found, truth: Objects, size: Size) -> None:
        """Adds one image: its number in the data set, what was found, what is there, height and width."""
        _update(self.boxes, number, found, truth, size)

    def compute(self) -> Metrics:
        """The metrics of all images."""
        return self.boxes.compute()

    @staticmethod
    def json_rows(image: int | str, found: Found, ids: Ids, size: Size) -> list[dict[str, Any]]:
        """What results files in COCO's form say of an image.

        Args:
            ids: class index to category id.
        """
        return result_rows(image, found.rows.numpy(), ids)

    @staticmethod
    def text_rows(found: Found, size: Size, names: Mapping[int, str], *, save_conf: bool) -> list[str]:
        """What its label file says."""
        return label_lines(Boxes(found.boxes, size), save_conf=save_conf)


class MaskScoring(BoxScoring):
    """Boxes and masks."""

    metrics = SegmentMetrics

    def __init__(self, names: Mapping[int, str], sigmas: Sequence[float]) -> None:
        super().__init__(names, sigmas)
        self.masks = DetectionEvaluator(names, MaskMeasure())

    def add(self, number: int, found: Found, truth: Objects, size: Size) -> None:
        """As in `BoxScoring`; objects without an outline have their box for it."""
        super().add(number, found, truth, size)
        outlines = [truth.outline(i) for i in range(len(truth))]
        there = [
            rle.of_outline(outline, *size) if len(outline) else rle.of_box(box, *size)
            for outline, box in zip(outlines, truth.boxes, strict=True)
        ]
        _update(self.masks, number, found, truth, size, found.masks, there)

    def compute(self) -> Metrics:
        """Of both."""
        return SegmentMetrics(self.boxes.compute(), self.masks.compute())

    @staticmethod
    def json_rows(image: int | str, found: Found, ids: Ids, size: Size) -> list[dict[str, Any]]:
        """With masks in run lengths."""
        return [
            row | {"segmentation": {"size": list(size), "counts": mask}}
            for row, mask in zip(BoxScoring.json_rows(image, found, ids, size), found.masks, strict=True)
        ]

    @staticmethod
    def text_rows(found: Found, size: Size, names: Mapping[int, str], *, save_conf: bool) -> list[str]:
        """Outlines."""
        masks = rle.pixels(found.masks, *size)
        return label_lines(Boxes(found.boxes, size), MaskPart(masks, size), save_conf=save_conf)


class KeypointScoring(BoxScoring):
    """Boxes and keypoints."""

    metrics = PoseMetrics

    def __init__(self, names: Mapping[int, str], sigmas: Sequence[float]) -> None:
        super().__init__(names, sigmas)
        self.keypoints = DetectionEvaluator(names, KeypointMeasure(sigmas))

    def add(self, number: int, found: Found, truth: Objects, size: Size) -> None:
        """As in `BoxScoring`."""
        super().add(number, found, truth, size)
        assert found.keypoints is not None
        assert truth.keypoints is not None
        _update(self.keypoints, number, found, truth, size, found.keypoints.numpy(), truth.keypoints)

    def compute(self) -> Metrics:
        """Of both."""
        return PoseMetrics(self.boxes.compute(), self.keypoints.compute())

    @staticmethod
    def json_rows(image: int | str, found: Found, ids: Ids, size: Size) -> list[dict[str, Any]]:
        """With x, y and confidence of each keypoint."""
        assert found.keypoints is not None
        numbers = found.keypoints.double()
        if numbers.shape[2] == 2:
            numbers = torch.cat((numbers, torch.ones_like(numbers[..., :1])), 2)
        return [
            row | {"keypoints": [round(v, 3) for v in flat]}
            for row, flat in zip(
                BoxScoring.json_rows(image, found, ids, size), numbers.flatten(1).tolist(), strict=True
            )
        ]

    @staticmethod
    def text_rows(found: Found, size: Size, names: Mapping[int, str], *, save_conf: bool) -> list[str]:
        """Boxes and keypoints."""
        points = KeypointPart(found.keypoints, size)
        return label_lines(Boxes(found.boxes, size), keypoints=points, save_conf=save_conf)


class RotatedScoring(BoxScoring):
    """Oriented boxes."""

    def __init__(self, names: Mapping[int, str], sigmas: Sequence[float]) -> None:
        self.boxes = DetectionEvaluator(names, RotatedMeasure())

    def add(self, number: int, found: Found, truth: Objects, size: Size) -> None:
        """As in `BoxScoring`."""
        assert found.obb is not None
        assert truth.corners is not None
        there = smallest_rotated(torch.from_numpy(truth.corners)).numpy()
        _update(self.boxes, number, found, truth, size, found.obb[:, :5].numpy(), there)

    @staticmethod
    def json_rows(image: int | str, found: Found, ids: Ids, size: Size) -> list[dict[str, Any]]:
        """With cx, cy, w, h and angle, and with corners."""
        part = OBB(found.obb, size)
        boxes, corners = part.xywhr.tolist(), part.xyxyxyxy.flatten(1).tolist()
        rows = zip(BoxScoring.json_rows(image, found, ids, size), boxes, corners, strict=True)
        return [
            row | {"rbox": [round(v, 5) for v in box], "poly": [round(v, 3) for v in corner]}
            for row, box, corner in rows
        ]

    @staticmethod
    def text_rows(found: Found, size: Size, names: Mapping[int, str], *, save_conf: bool) -> list[str]:
        """Corners."""
        return label_lines(OBB(found.obb, size), save_conf=save_conf)


class ClassScoring(BoxScoring):
    """Classes of whole images."""

    metrics = ClassifyMetrics

    def __init__(self, names: Mapping[int, str], sigmas: Sequence[float]) -> None:
        self.classes = ClassifyEvaluator(names)

    def add(self, number: int, found: Found, truth: Objects, size: Size) -> None:
        """As in `BoxScoring`; an image that could not be read counts as wrong."""
        there = int(truth.classes[0])
        if found.probs is None:
            self.classes.miss(there)
        else:
            self.classes.update(found.probs.numpy(), there)

    def compute(self) -> Metrics:
        """The accuracies."""
        return self.classes.compute()

    @staticmethod
    def json_rows(image: int | str, found: Found, ids: Ids, size: Size) -> list[dict[str, Any]]:
        """The five most probable classes."""
        if found.probs is None:
            return []
        part = Probs(found.probs, size)
        pairs = zip(part.top5, part.top5conf.tolist(), strict=True)
        return [{"image_id": image, "category_id": c, "score": round(p, 5)} for c, p in pairs]

    @staticmethod
    def text_rows(found: Found, size: Size, names: Mapping[int, str], *, save_conf: bool) -> list[str]:
        """The same, by name."""
        return [] if found.probs is None else class_lines(Probs(found.probs, size), lambda c: names[c])


SCORINGS: dict[type, type[BoxScoring]] = {
    DetectOutputs: BoxScoring, DualOutputs: BoxScoring, Masks: MaskScoring, Keypoints: KeypointScoring,
    Angles: RotatedScoring, ClassOutputs: ClassScoring,
}  # fmt: skip


def _update(
    evaluator: DetectionEvaluator,
    number: int,
    found: Found,
    truth: Objects,
    size: Size,
    shapes: Sequence[Any] | np.ndarray[Any, Any] = (),
    truth_shapes: Sequence[Any] | np.ndarray[Any, Any] = (),
) -> None:
    evaluator.update(
        number,
        detections=found.rows,
        truth_classes=truth.classes,
        truth_boxes=truth.boxes,
        size=size,
        shapes=list(shapes),
        truth_shapes=list(truth_shapes),
    )
