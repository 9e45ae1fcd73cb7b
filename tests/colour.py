"""A detector without weights: every red cell of a picture is a box of class 0, every blue one of class 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.geometry.targets import BOXES
from holdfast.models.outputs import Branch, DetectOutputs


class ColourDetector(nn.Module):
    """Cells of 8 pixels whose colour is clear become boxes of exactly that cell."""

    name = "colour"
    task = "detect"
    classes = 2
    strides = (8, 16, 32)
    reg_max = 1
    deployed = False
    outputs = answers = DetectOutputs
    fixed_size = None
    needs = BOXES
    keypoints: tuple[int, int] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.names = {0: "red", 1: "blue"}
        self.shapes: list[tuple[int, ...]] = []

    def deploy(self, *, nms: bool | None = None) -> ColourDetector:
        return self

    def forward(self, x: Tensor) -> DetectOutputs:
        self.shapes.append(tuple(x.shape))
        boxes, scores = [], []
        for stride in self.strides:
            red, green, blue = F.avg_pool2d(x, stride).split(1, 1)
            seen = torch.cat((red - green - blue, blue - green - red), 1)
            scores.append(20 * (seen - 0.8) if stride == 8 else torch.full_like(seen, -20))
            boxes.append(torch.full_like(seen, 0.5).repeat(1, 2, 1, 1))
        return DetectOutputs(Branch(tuple(boxes), tuple(scores)))
