"""How much objects overlap what is predicted at anchors, in the measure of each task; numbers of at least 0.

Assignment asks twice: for all candidate pairs of a chunk, and for single pairs later on.

Dimensions: U candidate anchors of the batch, G objects, M pairs of a chunk, K keypoints, P prototypes, H W
    height and width of masks.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from holdfast.geometry.iou import box_parts, ciou_of_parts
from holdfast.geometry.keypoints import BOX_TO_OBJECT, object_keypoint_similarity
from holdfast.geometry.rotated import probiou
from holdfast.losses.candidates import Candidates, Pairs

_LOST = 1e-9 ** (1 / 6)  # of likeness: its sixth power is as small as what the assigner adds to it
_MASKS = 3  # masks are compared for this many times the anchors that an object may pick


class Overlap(Protocol):
    """The overlap of objects with predictions."""

    def of_pairs(self, pairs: Pairs, score: Tensor) -> Tensor:
        """(M,) float32 of the pairs of a chunk, given their scores (M,)."""

    def __call__(self, target: Tensor, anchor: Tensor) -> Tensor:
        """Float32 of objects and candidate anchors, int64 numbers that broadcast."""


class BoxOverlap:
    """CIoU of boxes.

    Args:
        candidates: the objects.
        boxes: (U, 4) float32 predicted boxes, xyxy in input pixels.
    """

    def __init__(self, candidates: Candidates, boxes: Tensor) -> None:
        self.truth = candidates.truth
        self.predicted = box_parts(boxes)

    def of_pairs(self, pairs: Pairs, score: Tensor) -> Tensor:
        """As in `Overlap`."""
        return ciou_of_parts(pairs.truth, self.predicted.take(pairs.anchor)).clamp_(min=0)

    def __call__(self, target: Tensor, anchor: Tensor) -> Tensor:
        """As in `Overlap`."""
        return ciou_of_parts(self.truth.take(target), self.predicted.take(anchor)).clamp_(min=0)


class RotatedOverlap:
    """ProbIoU of rotated boxes; 0 where the anchor is outside of the object.

    Args:
        candidates: the objects.
        truth: (G, 5) their boxes.
        boxes: (U, 5) float32 predicted boxes in input pixels and radians.
    """

    def __init__(self, candidates: Candidates, truth: Tensor, boxes: Tensor) -> None:
        self.candidates, self.truth, self.boxes = candidates, truth, boxes

    def of_pairs(self, pairs: Pairs, score: Tensor) -> Tensor:
        """As in `Overlap`."""
        return self(pairs.target, pairs.anchor)

    def __call__(self, target: Tensor, anchor: Tensor) -> Tensor:
        """As in `Overlap`."""
        shared = probiou(self.truth[target], self.boxes[anchor]).clamp_(min=0)
        return shared * self.candidates.holds(target, anchor)


class KeypointOverlap:
    """Likeness of keypoints (OKS); of boxes for objects without a labelled keypoint.

    Of boxes also for objects whose keypoints are far from what is predicted at every anchor, which the
    published rule leaves without one: a small person of whom only the face is labelled would be taught as
    background, so that its keypoints could never come nearer.

    Args:
        boxes: overlap of boxes.
        truth: (G, K, 3) keypoints of the objects in input pixels.
        true_boxes: (G, 4) their boxes.
        points: (U, K, 2) float32 predicted keypoints.
        sigmas: (K,).
    """

    def __init__(
        self, boxes: BoxOverlap, truth: Tensor, true_boxes: Tensor, points: Tensor, sigmas: Tensor
    ) -> None:
        self.boxes, self.truth, self.points, self.sigmas = boxes, truth, points, sigmas
        sides = true_boxes[:, 2:] - true_boxes[:, :2]
        self.area = sides.prod(1) * BOX_TO_OBJECT
        self.by_points = (truth[..., 2] != 0).any(1)

    def of_pairs(self, pairs: Pairs, score: Tensor) -> Tensor:
        """As in `Overlap`; remembers which objects have nothing alike."""
        alike = self._alike(pairs.target, pairs.anchor)
        best = torch.zeros_like(self.area).scatter_reduce_(0, pairs.target, alike, "amax")
        self.by_points[pairs.objects] &= best[pairs.objects] > _LOST
        return torch.where(self.by_points[pairs.target], alike, self.boxes.of_pairs(pairs, score))

    def __call__(self, target: Tensor, anchor: Tensor) -> Tensor:
        """As in `Overlap`."""
        return torch.where(self.by_points[target], self._alike(target, anchor), self.boxes(target, anchor))

    def _alike(self, target: Tensor, anchor: Tensor) -> Tensor:
        return object_keypoint_similarity(
            self.points[anchor], self.truth[target], self.area[target], self.sigmas
        )


class TrueMasks(NamedTuple):
    """Which pixels belong to which object.

    Attributes:
        numbers: (B, L, H, W) integers, i at the i-th object of the image, from 1.
        image: (G,) int64 of the objects.
        number: (G,) int64, i.
    """

    numbers: Tensor
    image: Tensor
    number: Tensor

    @staticmethod
    def of(masks: Tensor, image: Tensor) -> TrueMasks:
        """The masks of `Targets`."""
        first = torch.searchsorted(image, image)
        return TrueMasks(masks, image, torch.arange(len(image), device=image.device) - first + 1)

    def window(self, index: int, y1: int, y2: int, x1: int, x2: int) -> Tensor:
        """The part (y2 - y1, x2 - x1) of an object's mask, bool."""
        here = self.numbers[self.image[index], :, y1:y2, x1:x2] == self.number[index]
        return here.any(0)

    def areas(self) -> Tensor:
        """(G,) float32 pixels of each object."""
        most = int(self.number.max()) + 1 if len(self.number) else 1
        flat = self.numbers.flatten(1).long().clamp(max=most)
        counts = flat.new_zeros(len(flat), most + 1).scatter_add_(1, flat, torch.ones_like(flat))
        return counts[self.image, self.number].float()


class MaskOverlap:
    """Mean of the overlaps of boxes and of masks, as the published rule has it.

    Masks are compared only for each object's best candidates by score and box, three times as many as it may
    pick; the overlap of masks counts as 0 for the others. A predicted mask is cut to the predicted box.

    Args:
        candidates: the objects.
        boxes: (U, 4) predicted boxes, xyxy in input pixels.
        coefficients: (U, P) float32 predicted.
        prototypes: (B, P, H, W) float32.
        truth: masks of the objects, of that size.
        scale: mask pixels per input pixel.
        topk, alpha, beta: of the assignment.
    """

    def __init__(
        self,
        candidates: Candidates,
        boxes: Tensor,
        coefficients: Tensor,
        prototypes: Tensor,
        truth: TrueMasks,
        *,
        scale: float,
        topk: int,
        alpha: float,
        beta: float,
    ) -> None:
        self.boxes = BoxOverlap(candidates, boxes)
        self.image = candidates.image
        self.windows = mask_windows(boxes * scale, int(prototypes.shape[2]), int(prototypes.shape[3]))
        self.coefficients, self.prototypes, self.truth = coefficients, prototypes, truth
        self.areas = truth.areas()
        self.topk, self.alpha, self.beta = _MASKS * topk, alpha, beta
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def of_pairs(self, pairs: Pairs, score: Tensor) -> Tensor:
        """As in `Overlap`; remembers the masks that it compares."""
        boxes = self.boxes.of_pairs(pairs, score)
        metric = score**self.alpha * boxes**self.beta
        table = metric.new_full((len(pairs.objects) * pairs.longest,), -1.0)
        table[pairs.place] = metric
        number = torch.zeros_like(table, dtype=torch.int64)
        number[pairs.place] = pairs.anchor
        best, column = table.view(-1, pairs.longest).topk(min(self.topk, pairs.longest), dim=1)
        row, rank = (best >= 0).nonzero(as_tuple=True)
        place = row * pairs.longest + column[row, rank]
        target, anchor = pairs.objects[row], number[place]
        masks = self._compare(target, anchor)
        self._keys.append(self._key(target, anchor))
        self._values.append(masks)
        compared = torch.zeros_like(table)
        compared[place] = masks
        return (boxes + compared[pairs.place]) / 2

    def __call__(self, target: Tensor, anchor: Tensor) -> Tensor:
        """As in `Overlap`."""
        boxes = self.boxes(target, anchor)
        if not self._keys:
            return boxes / 2
        keys, order = torch.cat(self._keys).sort()
        wanted = self._key(target, anchor)
        place = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        masks = torch.cat(self._values)[order][place]
        return (boxes + torch.where(keys[place] == wanted, masks, 0.0)) / 2

    def _key(self, target: Tensor, anchor: Tensor) -> Tensor:
        return target * len(self.coefficients) + anchor

    def _compare(self, target: Tensor, anchor: Tensor) -> Tensor:
        """IoU of masks; entries of one object follow each other."""
        windows = self.windows[anchor]  # (E, 4) y1, y2, x1, x2
        result = windows.new_zeros(len(target), dtype=torch.float32)
        objects, counts = torch.unique_consecutive(target, return_counts=True)
        low = torch.split(windows[:, ::2], counts.tolist())
        high = torch.split(windows[:, 1::2], counts.tolist())
        around = [torch.cat((a.amin(0), b.amax(0))) for a, b in zip(low, high, strict=True)]
        frames = torch.stack(around).tolist() if around else []
        start = 0
        for index, count, (y1, x1, y2, x2) in zip(objects.tolist(), counts.tolist(), frames, strict=True):
            rows = slice(start, start + count)
            start += count
            if y2 <= y1 or x2 <= x1:
                continue
            prototypes = self.prototypes[self.image[index], :, y1:y2, x1:x2]
            logits = self.coefficients[anchor[rows]] @ prototypes.flatten(1)
            found = (logits > 0).view(count, y2 - y1, x2 - x1)
            y = torch.arange(y1, y2, device=found.device)
            x = torch.arange(x1, x2, device=found.device)
            top, bottom, left, right = windows[rows].unsqueeze(2).unbind(1)
            found &= ((y >= top) & (y < bottom)).unsqueeze(2) & ((x >= left) & (x < right)).unsqueeze(1)
            both = (found & self.truth.window(index, y1, y2, x1, x2)).flatten(1).sum(1)
            union = found.flatten(1).sum(1) + self.areas[index] - both
            result[rows] = both / union.clamp(min=1)
        return result


def mask_windows(boxes: Tensor, height: int, width: int) -> Tensor:
    """The pixels y1 to y2 - 1, x1 to x2 - 1 that boxes hold: (N, 4) int64 y1, y2, x1, x2.

    Args:
        boxes: (N, 4) xyxy in mask pixels; a pixel belongs where its number is in [x1, x2).
    """
    x1, y1, x2, y2 = boxes.nan_to_num().ceil().unbind(-1)
    edges = (y1.clamp(0, height), y2.clamp(0, height), x1.clamp(0, width), x2.clamp(0, width))
    return torch.stack(edges, -1).long()
