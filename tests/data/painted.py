"""Finds painted rectangles again, whatever was done to the picture."""

from __future__ import annotations

import cv2
import numpy as np


def mask(image: np.ndarray, label: int) -> np.ndarray:
    """Pixels that are mostly the colour of a class."""
    rest = [channel for channel in range(3) if channel != label]
    return (image[:, :, label] > 150) & (image[:, :, rest].max(axis=2) < 110)


def extent(image: np.ndarray, label: int) -> tuple[int, int, int, int] | None:
    """Hull xyxy of all pixels of a class."""
    ys, xs = np.nonzero(mask(image, label))
    return None if not len(xs) else (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def components(image: np.ndarray, label: int) -> np.ndarray:
    """Hulls (K, 4) xyxy of the connected areas of a class."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask(image, label).astype(np.uint8), connectivity=8)
    left, top, width, height = stats[1:, :4].T
    return np.stack([left, top, left + width, top + height], axis=1)
