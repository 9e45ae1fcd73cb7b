"""Small data sets made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from holdfast.data.index import Index, build_index

Rect = tuple[int, tuple[int, int, int, int]]  # class, xyxy in pixels

PAINT = ((255, 0, 0), (0, 255, 0), (0, 0, 255))  # RGB of class 0, 1, 2


@pytest.fixture
def painted(tmp_path: Path) -> Callable[..., Index]:
    """Builds an index of PNG images on which coloured rectangles are exactly the labelled boxes."""

    def build(images: list[tuple[tuple[int, int], list[Rect]]], *, ground: int = 60) -> Index:
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
        for number, ((height, width), rects) in enumerate(images):
            picture = np.full((height, width, 3), ground, dtype=np.uint8)
            rows = []
            for label, (x0, y0, x1, y1) in rects:
                picture[y0:y1, x0:x1] = PAINT[label]
                box = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height
                rows.append(" ".join(map(str, (label, *box))))
            assert cv2.imwrite(str(tmp_path / "images" / f"{number:03d}.png"), picture[:, :, ::-1])
            (tmp_path / "labels" / f"{number:03d}.txt").write_text("\n".join(rows))
        return build_index([tmp_path / "images"], names={0: "red", 1: "green", 2: "blue"})

    return build
