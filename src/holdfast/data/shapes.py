"""A generated data set of drawn shapes: something to train on where there is no data and no network.

Discs, squares and triangles of many sizes and angles on textured gray backgrounds, in images of several
shapes. Like
traffic signs, each class keeps to its own part of the colour circle: a small model from random weights can
tell them apart after a few hundred steps, which form alone does not allow. Clutter (lines and specks of any
colour) belongs to no class, and some images hold no object. Every picture is a function of (seed, split,
number).
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import Image
from holdfast.data.random import draws

NAMES = {0: "disc", 1: "square", 2: "triangle"}
_HUES = (0, 108, 50)  # red, blue, green-yellow on OpenCV's circle of 180
_SIZES = ((320, 320), (320, 256), (256, 320), (320, 240), (240, 320), (288, 320))  # height, width
_TRIES = 40
_BACKGROUND_EVERY = 12  # one image in so many has no object


def write_demo(folder: Path | str, *, images: int = 128, seed: int = 0) -> Path:
    """Writes the data set in YOLO layout: images/{train,val}, labels/{train,val}, data.yaml.

    Args:
        folder: where to; made when missing, files of the same name are replaced.
        images: how many in all; a fifth goes to validation.
        seed: same seed, same files.

    Returns:
        The path of data.yaml.
    """
    root = Path(folder)
    val = max(images // 5, 1)
    for split_number, (split, count) in enumerate((("train", max(images - val, 1)), ("val", val))):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image, classes, boxes = draw_scene(seed, split_number, number)
            height, width = image.shape[:2]
            done, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            assert done
            (root / "images" / split / f"{number:04d}.jpg").write_bytes(data.tobytes())
            rows = [
                f"{label} {(x0 + x1) / 2 / width:.6f} {(y0 + y1) / 2 / height:.6f} "
                f"{(x1 - x0) / width:.6f} {(y1 - y0) / height:.6f}\n"
                for label, (x0, y0, x1, y1) in zip(classes.tolist(), boxes.tolist(), strict=True)
            ]
            (root / "labels" / split / f"{number:04d}.txt").write_text("".join(rows), encoding="utf-8")
    names = "".join(f"  {index}: {name}\n" for index, name in NAMES.items())
    path = root / "data.yaml"
    path.write_text(f"path: .\ntrain: images/train\nval: images/val\nnames:\n{names}", encoding="utf-8")
    return path


def draw_scene(
    seed: int, split: int, number: int
) -> tuple[Image, npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Draws one picture.

    Returns:
        (H, W, 3) uint8 RGB, classes (M,) int64, boxes (M, 4) float32 xyxy in pixels.
    """
    rng = draws(seed, split, number, 0)
    height, width = _SIZES[int(rng.random() * len(_SIZES))]
    image = _background(rng, height, width)
    _clutter(rng, image)
    classes: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    wanted = 0 if number % _BACKGROUND_EVERY == _BACKGROUND_EVERY - 1 else 2 + int(rng.random() * 4)
    for _ in range(_TRIES):
        if len(boxes) == wanted:
            break
        label = int(rng.random() * len(NAMES))
        radius = 17.0 * (66.0 / 17.0) ** rng.random()  # as many small as large ones
        x = radius + rng.random() * (width - 2 * radius)
        y = radius + rng.random() * (height - 2 * radius)
        outline = _outline(label, x, y, radius, rng.random() * 2 * math.pi)
        box = (*outline.min(axis=0).tolist(), *outline.max(axis=0).tolist())
        if any(_overlap(box, other) > 0.08 for other in boxes):
            continue
        _draw(rng, image, outline, label, radius)
        classes.append(label)
        boxes.append(box)
    return image, np.array(classes, dtype=np.int64), np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _background(rng: np.random.Generator, height: int, width: int) -> Image:
    """A smooth gradient between two grays with soft blotches and fine grain."""
    ends = 70 + rng.random((2, 1)) * 100 + rng.random((2, 3)) * 20
    angle = rng.random() * 2 * math.pi
    y, x = np.mgrid[0:height, 0:width]
    along = (np.cos(angle) * x / width + np.sin(angle) * y / height + 1) / 2
    blotches = cv2.resize(rng.random((6, 6)), (width, height), interpolation=cv2.INTER_CUBIC) - 0.5
    grain = rng.random((height, width, 1)) - 0.5
    picture = ends[0] + along[:, :, None] * (ends[1] - ends[0]) + blotches[:, :, None] * 40 + grain * 24
    return np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))


def _clutter(rng: np.random.Generator, image: Image) -> None:
    """Thin lines and specks that belong to no class."""
    height, width = image.shape[:2]
    for _ in range(int(rng.random() * 5)):
        ends = (rng.random(4) * (width, height, width, height)).astype(int).tolist()
        cv2.line(image, tuple(ends[:2]), tuple(ends[2:]), _colour(rng), 1, cv2.LINE_AA)
    for _ in range(int(rng.random() * 15)):
        spot = (rng.random(2) * (width, height)).astype(int).tolist()
        cv2.circle(image, tuple(spot), 2, _colour(rng), -1, cv2.LINE_AA)


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (rng.random(3) * 256).astype(int).tolist()
    return red, green, blue


def _outline(label: int, x: float, y: float, radius: float, turn: float) -> npt.NDArray[np.float64]:
    """Returns the corners (K, 2) of a shape within a circle of `radius` around (x, y)."""
    corners = (72, 4, 3)[label]
    angles = turn + np.arange(corners) * (2 * math.pi / corners)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def _draw(
    rng: np.random.Generator, image: Image, outline: npt.NDArray[np.float64], label: int, radius: float
) -> None:
    """Fills a shape in a colour of its class, half of them with a white or black rim inside."""
    middle = outline.mean(axis=0)
    around = np.rint((outline - 0.5) * 16).astype(np.int32)  # outlines are edges, OpenCV wants pixel centres
    hue = (_HUES[label] + int(rng.random() * 21) - 10) % 180
    shade = np.array([[[hue, 170 + int(rng.random() * 86), 140 + int(rng.random() * 116)]]], dtype=np.uint8)
    red, green, blue = cv2.cvtColor(shade, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    cv2.fillPoly(image, [around], (red, green, blue), cv2.LINE_AA, shift=4)
    if rng.random() < 0.5:
        rim = max(int(radius / 10), 1)
        inner = np.rint((middle + (outline - middle) * 0.8 - 0.5) * 16).astype(np.int32)
        level = 255 if rng.random() < 0.5 else 0
        cv2.polylines(image, [inner], True, (level, level, level), rim, cv2.LINE_AA, shift=4)


def _overlap(box: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Shared area as a part of the smaller box."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return width * height / smaller
