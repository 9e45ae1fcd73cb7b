"""Masks: from prototypes to the pixels of an image, cut to boxes, and their overlap.

Dimensions: N, K masks, M prototypes, H W height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def mix(coefficients: Tensor, prototypes: Tensor) -> Tensor:
    """Mask logits (N, H, W) of coefficients (N, M) and the prototypes (M, H, W) of one image."""
    return (coefficients @ prototypes.flatten(1)).view(len(coefficients), *prototypes.shape[1:])


def inside_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels (N, height, width) boxes (N, 4) hold; a pixel belongs where its number is in [x1, x2).

    Args:
        boxes: xyxy in pixels of that grid, not rounded.
    """
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)  # (N, 1)
    x = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
    y = torch.arange(height, device=boxes.device, dtype=boxes.dtype)
    return ((y >= y1) & (y < y2)).unsqueeze(2) & ((x >= x1) & (x < x2)).unsqueeze(1)


def crop_masks(masks: Tensor, boxes: Tensor) -> Tensor:
    """Masks or logits (N, H, W) with 0 outside boxes (N, 4), xyxy in pixels of the masks."""
    return masks * inside_boxes(boxes, masks.shape[1], masks.shape[2])


def resize_masks(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits (N, H, W) at another size, bilinear between pixel centres."""
    return F.interpolate(logits[None], size=(height, width), mode="bilinear", align_corners=False)[0]


def mask_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU (N, K), in [0, 1], of all boolean masks of a (N, H, W) with all of b (K, H, W); 0 for empty."""
    a, b = a.flatten(1).float(), b.flatten(1).float()
    inter = a @ b.T
    union = a.sum(1, keepdim=True) + b.sum(1) - inter
    return inter / union.clamp(min=1)
