"""Masks: from prototypes to the pixels of an image, cut to boxes, and their overlap.

Dimensions: N, K masks, M prototypes, H W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator

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


def paint(
    coefficients: Tensor,
    prototypes: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    offset: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Masks (N, height, width) bool of one image on a grid of any size, cut to their boxes.

    Args:
        coefficients, prototypes, boxes, height, width, scale, offset: as in `mask_windows`.
    """
    masks = torch.zeros(len(boxes), height, width, dtype=torch.bool, device=boxes.device)
    windows = mask_windows(coefficients, prototypes, boxes, height, width, scale=scale, offset=offset)
    for mask, (top, left, window) in zip(masks, windows, strict=True):
        mask[top : top + window.shape[0], left : left + window.shape[1]] = window
    return masks


def mask_windows(
    coefficients: Tensor,
    prototypes: Tensor,
    boxes: Tensor,
    height: int,
    width: int,
    *,
    scale: tuple[float, float],
    offset: tuple[float, float] = (0.0, 0.0),
) -> Iterator[tuple[int, int, Tensor]]:
    """The part of each mask that lies in its box, one after the other: memory follows the largest box.

    Logits are bilinear between the centres of prototypes' cells, as `resize_masks` has them.

    Args:
        coefficients: (N, M).
        prototypes: (M, H, W) of one image.
        boxes: (N, 4) xyxy in pixels of the grid, not rounded; a pixel belongs where its number is in
            [x1, x2).
        height, width: of the grid.
        scale: cells of the prototypes per pixel of the grid, horizontally and vertically.
        offset: place, in cells from the corner of the prototypes, of the grid's corner.

    Yields:
        top, left, and (h, w) bool.
    """
    dtype = torch.float32
    rows = _taps(height, prototypes.shape[1], scale[1], offset[1]).to(boxes.device, dtype)
    columns = _taps(width, prototypes.shape[2], scale[0], offset[0]).to(boxes.device, dtype)
    limit = boxes.new_tensor([width, height] * 2)
    edges = boxes.ceil().clamp(min=0).minimum(limit).long().tolist()
    for weights, (left, top, right, bottom) in zip(coefficients.to(dtype), edges, strict=True):
        logits = (weights @ prototypes.to(dtype).flatten(1)).view(prototypes.shape[1:])
        yield top, left, rows[top:bottom] @ logits @ columns[left:right].T > 0


def _taps(count: int, cells: int, scale: float, offset: float) -> Tensor:
    """Weights (count, cells) of linear interpolation along one axis; ends are continued."""
    place = ((torch.arange(count, dtype=torch.float64) + 0.5) * scale + offset - 0.5).clamp(0, cells - 1)
    low = place.floor().long().clamp(max=max(cells - 2, 0))
    share = place - low
    weights = torch.zeros(count, cells, dtype=torch.float64)
    weights.scatter_(1, low.unsqueeze(1), (1 - share).unsqueeze(1))
    if cells > 1:
        weights.scatter_(1, low.unsqueeze(1) + 1, share.unsqueeze(1))
    return weights
