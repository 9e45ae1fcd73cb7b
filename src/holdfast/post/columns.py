"""What each kind of branch adds to the six numbers of a detection, and how its boxes come about.

Dimensions: "..." anchors, E further columns, M prototypes, K keypoints of D numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from holdfast.geometry.nms import nms
from holdfast.geometry.rotated import rotated_nms
from holdfast.models.outputs import Angles, Keypoints, Masks


class BoxColumns:
    """Upright boxes and nothing else."""

    @staticmethod
    def maps(extra: Any) -> Sequence[Tensor]:
        """Per level (B, E, H, W), where the columns are read; empty without any."""
        return ()

    @staticmethod
    def boxes(distances: Tensor, raw: Tensor, points: Tensor, scale: Tensor) -> Tensor:
        """Boxes (..., 4), xyxy in pixels.

        Args:
            distances: (..., 4) left, top, right, bottom in cells.
            raw: (..., E) from the maps.
            points: (..., 2) anchors in cells.
            scale: (...) pixels per cell.
        """
        low, high = points - distances[..., :2], points + distances[..., 2:]
        return torch.cat([low, high], dim=-1) * scale.unsqueeze(-1)

    @staticmethod
    def decode(raw: Tensor, points: Tensor, scale: Tensor, extra: Any) -> Tensor:
        """Columns (..., E) as users of rows find them."""
        return raw

    @staticmethod
    def suppress(
        boxes: Tensor, columns: Tensor, scores: Tensor, iou: float, *, max_keep: int, groups: Tensor | None
    ) -> Tensor:
        """Indices of the kept rows, as in `geometry.nms.nms`."""
        return nms(boxes, scores, iou, max_keep=max_keep, groups=groups)


class MaskColumns(BoxColumns):
    """M coefficients, raw."""

    @staticmethod
    def maps(extra: Masks) -> Sequence[Tensor]:
        """The coefficients."""
        return extra.coefficients


class KeypointColumns(BoxColumns):
    """K keypoints: x and y in pixels and, where D is 3, the probability of being labelled."""

    @staticmethod
    def maps(extra: Keypoints) -> Sequence[Tensor]:
        """The points."""
        return extra.points

    @staticmethod
    def decode(raw: Tensor, points: Tensor, scale: Tensor, extra: Keypoints) -> Tensor:
        """As in `BoxColumns`."""
        each = raw.view(*raw.shape[:-1], raw.shape[-1] // extra.dims, extra.dims)
        place = (each[..., :2] + points.unsqueeze(-2)) * scale[..., None, None]
        return torch.cat((place, each[..., 2:].sigmoid()), -1).flatten(-2)


class AngleColumns(BoxColumns):
    """One angle in radians; boxes are cx, cy, w, h in the direction it says."""

    @staticmethod
    def maps(extra: Angles) -> Sequence[Tensor]:
        """The angles."""
        return extra.angles

    @staticmethod
    def boxes(distances: Tensor, raw: Tensor, points: Tensor, scale: Tensor) -> Tensor:
        """Boxes (..., 4), cx, cy, w, h in pixels; distances are those in the box's own frame."""
        low, high = distances[..., :2], distances[..., 2:]
        x, y = ((high - low) / 2).unbind(-1)
        cos, sin = raw[..., 0].cos(), raw[..., 0].sin()
        centre = points + torch.stack((x * cos - y * sin, x * sin + y * cos), -1)
        return torch.cat((centre, low + high), -1) * scale.unsqueeze(-1)

    @staticmethod
    def suppress(
        boxes: Tensor, columns: Tensor, scores: Tensor, iou: float, *, max_keep: int, groups: Tensor | None
    ) -> Tensor:
        """By the overlap of Gaussians, as published."""
        turned = torch.cat((boxes, columns), 1)
        return rotated_nms(turned, scores, iou, max_keep=max_keep, groups=groups)
