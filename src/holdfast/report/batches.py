"""Batches as pictures: what the network is fed, what it should find and what it found.

Dimensions: B images of one batch, (B, 3, H, W) uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from holdfast.errors import DataError
from holdfast.geometry.rotated import rotated_corners
from holdfast.geometry.targets import Targets
from holdfast.post.draw import mosaic_grid
from holdfast.post.draw_parts import draw_keypoints, draw_masks
from holdfast.post.original import Found

LIMIT = 16  # images on one picture


def draw_targets(
    path: Path, images: Tensor, targets: Targets, names: Mapping[int, str], files: Sequence[str]
) -> Path:
    """Writes a batch with its true boxes, upright or not, masks and keypoints.

    Args:
        path: the picture, .jpg or .png.
        images: (B, 3, H, W) uint8 RGB.
        targets: in pixels of `images`.
        names: class index to name.
        files: B paths; their last parts become captions.

    Returns:
        `path`.
    """
    targets = targets.to("cpu")
    mine = [targets.image == i for i in range(min(len(images), LIMIT))]
    pictures = _pictures(images)
    for number, picture in enumerate(pictures):
        _draw_parts(picture, targets.of_images(number, number + 1))
    turned = targets.rotated
    shapes = None if turned is None else [rotated_corners(turned[m]).numpy() for m in mine]
    grid = mosaic_grid(
        pictures,
        [targets.boxes[m].numpy() for m in mine],
        [targets.classes[m].tolist() for m in mine],
        names,
        titles=[Path(file).name for file in files[:LIMIT]],
        corners=shapes,
        limit=LIMIT,
    )
    return _write(path, grid)


def _draw_parts(picture: NDArray[np.uint8], targets: Targets) -> None:
    """Draws masks and keypoints of one image's objects on it."""
    classes = targets.classes.tolist()
    if targets.masks is not None:
        layers, size = targets.masks[0].numpy(), picture.shape[1::-1]
        masks = ((layers == number).any(0) for number in range(1, len(classes) + 1))
        large = (cv2.resize(one.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for one in masks)
        draw_masks(picture, large, classes)
    if targets.keypoints is not None:
        draw_keypoints(picture, targets.keypoints.numpy(), classes)


def draw_found(
    path: Path,
    images: Tensor,
    found: Sequence[Found],
    names: Mapping[int, str],
    files: Sequence[str],
    *,
    conf: float = 0.25,
) -> Path:
    """Writes a batch with what was found above `conf`: boxes, upright or not, masks and keypoints.

    Args:
        path: the picture, .jpg or .png.
        images: (B, 3, H, W) uint8 RGB.
        found: per image, in its pixels, as `post.original.in_input` has it.
        names: class index to name.
        files: B paths; their last parts become captions.
        conf: least confidence that is drawn.

    Returns:
        `path`.
    """
    pictures, rows, shapes = _pictures(images), [], []
    for picture, one in zip(pictures, found, strict=False):
        kept = (one.rows[:, 4] >= conf).nonzero()[:, 0].flip(0)  # the best end on top
        rows.append(one.rows[kept].float())
        classes = rows[-1][:, 5].int().tolist()
        if one.masks is not None and len(kept):
            draw_masks(picture, one.masks()[kept].numpy(), classes)
        if one.keypoints is not None:
            draw_keypoints(picture, one.keypoints[kept].float().numpy(), classes)
        if one.obb is not None:
            shapes.append(rotated_corners(one.obb[kept, :5].float()).numpy())
    grid = mosaic_grid(
        pictures,
        [r[:, :4].numpy() for r in rows],
        [r[:, 5].int().tolist() for r in rows],
        names,
        scores=[r[:, 4].tolist() for r in rows],
        titles=[Path(file).name for file in files[:LIMIT]],
        corners=shapes if len(shapes) == len(rows) else None,
        limit=LIMIT,
    )
    return _write(path, grid)


def _pictures(images: Tensor) -> list[NDArray[np.uint8]]:
    """(B, 3, H, W) -> up to LIMIT arrays (H, W, 3)."""
    return [np.ascontiguousarray(image) for image in images[:LIMIT].permute(0, 2, 3, 1).cpu().numpy()]


def _write(path: Path, rgb: NDArray[np.uint8]) -> Path:
    good, data = cv2.imencode(
        path.suffix, np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 90]
    )
    if not good:
        raise DataError(
            "the picture cannot be encoded.", path=path, hint="Use a name that ends in .jpg or .png."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())
    return path
