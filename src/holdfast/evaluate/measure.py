"""What makes a detection right: the overlap of boxes, masks, keypoints or oriented boxes.

The evaluator asks a measure and knows nothing else about what it counts. Truth without a labelled keypoint
can be neither found nor missed, as COCO has it; its area is taken to be a share of its box.

Dimensions: N detections, M objects of one image, K keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.evaluate.match import iou_matrix
from holdfast.geometry.keypoints import BOX_TO_OBJECT, object_keypoint_similarity
from holdfast.geometry.rotated import rotated_iou

Shapes = Sequence[Any]


class BoxMeasure:
    """Upright boxes, which detections and truth have in any case: shapes mean nothing here.

    Attributes:
        most: detections per image and class that count, by COCO's rule where it has one.
        kind: the evaluator's word for it.
        known: whether the evaluator can compute the overlap itself.
        sigmas: (K,) spread of keypoints, of the measure that has them.
    """

    most: ClassVar[int] = 100
    kind: ClassVar[str] = "bbox"
    known: ClassVar[bool] = True
    sigmas: NDArray[np.float64] | None = None

    def overlap(
        self,
        boxes: NDArray[np.float32],
        shapes: Shapes,
        truth_boxes: NDArray[np.float32],
        truth_shapes: Shapes,
        size: tuple[int, int],
    ) -> NDArray[np.float64]:
        """(N, M) in [0, 1].

        Args:
            boxes: (N, 4) xyxy.
            shapes: N of what the measure compares.
            truth_boxes: (M, 4) xyxy.
            truth_shapes: M likewise.
            size: height and width of the image.
        """
        return iou_matrix(boxes, truth_boxes)

    def counts(self, truth_shapes: Shapes, number: int) -> NDArray[np.bool_]:
        """(M,) which objects can be found or missed; `number` is M."""
        return np.ones(number, dtype=bool)

    def annotation(self, shape: Any, size: tuple[int, int]) -> dict[str, Any]:
        """What an annotation says beyond its box; without `area` that is the box's."""
        return {}

    def truth_annotation(self, shape: Any, size: tuple[int, int], box_area: float) -> dict[str, Any]:
        """The same of an object."""
        return self.annotation(shape, size)


class MaskMeasure(BoxMeasure):
    """Masks; a shape is COCO's compressed run lengths (`evaluate.rle`)."""

    kind = "segm"

    def overlap(
        self,
        boxes: NDArray[np.float32],
        shapes: Shapes,
        truth_boxes: NDArray[np.float32],
        truth_shapes: Shapes,
        size: tuple[int, int],
    ) -> NDArray[np.float64]:
        """IoU of pixels; arguments as in `BoxMeasure`."""
        from faster_coco_eval.core import mask

        if not len(shapes) or not len(truth_shapes):
            return np.zeros((len(shapes), len(truth_shapes)))
        found, there = ([_runs(s, size) for s in some] for some in (shapes, truth_shapes))
        return np.asarray(mask.iou(found, there, [0] * len(there)), dtype=np.float64)

    def annotation(self, shape: str, size: tuple[int, int]) -> dict[str, Any]:
        """The mask and its area."""
        from faster_coco_eval.core import mask

        runs = _runs(shape, size)
        return {"segmentation": runs, "area": float(mask.area(runs))}


class KeypointMeasure(BoxMeasure):
    """Likeness of keypoints (OKS); a shape is (K, 2 or more), x and y first, of truth (K, 3) with labels.

    Args:
        sigmas: (K,) spread of each keypoint.
    """

    most = 20
    kind = "keypoints"

    def __init__(self, sigmas: Sequence[float]) -> None:
        self.sigmas = np.asarray(sigmas, dtype=np.float64)

    def overlap(
        self,
        boxes: NDArray[np.float32],
        shapes: Shapes,
        truth_boxes: NDArray[np.float32],
        truth_shapes: Shapes,
        size: tuple[int, int],
    ) -> NDArray[np.float64]:
        """OKS; arguments as in `BoxMeasure`."""
        if not len(shapes) or not len(truth_shapes):
            return np.zeros((len(shapes), len(truth_shapes)))
        found, there = (torch.from_numpy(np.stack(s).astype(np.float64)) for s in (shapes, truth_shapes))
        corners = torch.from_numpy(truth_boxes.astype(np.float64))
        area = (corners[:, 2:] - corners[:, :2]).prod(1) * BOX_TO_OBJECT
        alike = object_keypoint_similarity(found[:, None], there, area, torch.from_numpy(self.sigmas))
        return np.asarray(alike.numpy(), dtype=np.float64)

    def counts(self, truth_shapes: Shapes, number: int) -> NDArray[np.bool_]:
        """Those with a labelled keypoint."""
        return np.array([bool((shape[:, 2] > 0).any()) for shape in truth_shapes], dtype=bool)

    def annotation(self, shape: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Any]:
        """The keypoints and the area of the box around them."""
        place = shape[:, :2].astype(np.float64)
        low, high = place.min(0), place.max(0)
        flat = np.concatenate([place, np.ones((len(place), 1))], 1).ravel().tolist()
        return {"keypoints": flat, "area": float((high - low).prod())}

    def truth_annotation(
        self, shape: NDArray[np.float32], size: tuple[int, int], box_area: float
    ) -> dict[str, Any]:
        """The keypoints, how many are labelled, and the area taken for the object."""
        return {
            "keypoints": shape.astype(np.float64).ravel().tolist(),
            "num_keypoints": int((shape[:, 2] > 0).sum()),
            "area": box_area * BOX_TO_OBJECT,
        }


class RotatedMeasure(BoxMeasure):
    """Oriented boxes; a shape is (5,) cx, cy, w, h, angle.

    All detections count: an aerial image can show hundreds of ships, and DOTA's rules set no limit.
    """

    most = 1_000_000
    known = False

    def overlap(
        self,
        boxes: NDArray[np.float32],
        shapes: Shapes,
        truth_boxes: NDArray[np.float32],
        truth_shapes: Shapes,
        size: tuple[int, int],
    ) -> NDArray[np.float64]:
        """Exact IoU; arguments as in `BoxMeasure`."""
        result = np.zeros((len(shapes), len(truth_shapes)))
        # Boxes apart have none, and the exact test costs a hundred times that of their hulls.
        rows, columns = np.nonzero(iou_matrix(boxes, truth_boxes) > 0)
        if len(rows):
            found, there = (torch.from_numpy(np.stack(s)) for s in (shapes, truth_shapes))
            result[rows, columns] = rotated_iou(found[rows], there[columns]).numpy()
        return result

    def annotation(self, shape: NDArray[np.float32], size: tuple[int, int]) -> dict[str, Any]:
        """The oriented box and its area."""
        return {"rotated": shape, "area": float(shape[2]) * float(shape[3])}


def _runs(counts: str, size: tuple[int, int]) -> dict[str, Any]:
    return {"size": [int(size[0]), int(size[1])], "counts": counts}
