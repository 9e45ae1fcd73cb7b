"""Box formats, clipping and area.

Everything inside the system is xyxy in input pixels; other formats exist at the borders only. All functions
work on any leading dimensions and keep dtype and device.
"""

from __future__ import annotations

import torch
from torch import Tensor


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Turns corners (..., 4) into centre and size (..., 4)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Turns centre and size (..., 4) into corners (..., 4)."""
    cx, cy, w, h = boxes.unbind(-1)
    return torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), dim=-1)


def clip_boxes(boxes: Tensor, height: float, width: float) -> Tensor:
    """Returns xyxy boxes (..., 4) clipped to an image; boxes wholly outside become empty."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    xs, ys = (0, width), (0, height)
    return torch.stack((x1.clamp(*xs), y1.clamp(*ys), x2.clamp(*xs), y2.clamp(*ys)), dim=-1)


def box_area(boxes: Tensor) -> Tensor:
    """Returns the area (...) of xyxy boxes (..., 4), in squared units; 0 for inverted boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
