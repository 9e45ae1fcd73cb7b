"""Claim: the loss never builds a table of objects x anchors, however many objects an image has."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from holdfast.geometry.targets import Targets
from holdfast.losses import candidates
from holdfast.losses.branch import combine
from holdfast.losses.detect import DetectionLoss
from holdfast.models.outputs import Branch, DetectOutputs


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor any operation returned."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(item, torch.Tensor):
                self.size = max(self.size, item.numel() * item.element_size())
        return result


def test_largest_tensor_is_a_map_or_a_chunk_with_thousands_of_image_filling_boxes() -> None:
    size, boxes, classes = 320, 2500, 8
    shapes = [(size // s, size // s) for s in (8, 16, 32)]
    anchors = sum(h * w for h, w in shapes)
    maps = [tuple(torch.randn(2, c, *s).requires_grad_() for s in shapes) for c in (64, classes)]
    corner = torch.rand(boxes, 2) * 8
    targets = Targets(
        torch.ones(boxes, dtype=torch.int64),
        torch.randint(0, classes, (boxes,)),
        torch.cat((corner, size - corner), 1),
    )
    with Largest() as seen:
        loss = DetectionLoss(strides=(8, 16, 32))
        total, _ = combine(loss(DetectOutputs(Branch(*maps)), targets), 2)
        total.backward()
    chunk = candidates._CHUNK_HOST * 8  # int64
    largest_map = 2 * 64 * shapes[0][0] * shapes[0][1] * 4
    assert seen.size <= max(chunk, largest_map)
    assert seen.size < boxes * anchors * 4 / 8  # a float32 table of pairs, with room to spare
