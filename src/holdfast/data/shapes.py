"""A generated data set of drawn shapes: something to train on where there is no data and no network.

Discs, squares and triangles of many sizes and angles on textured gray backgrounds, in images of several
shapes. Like traffic signs, each class keeps to its own part of the colour circle: a small model from random
weights can tell them apart after a few hundred steps, which form alone does not allow. Clutter (lines and
specks of any colour) belongs to no class, and some images hold no object. Labels are boxes, outlines,
keypoints (marks on the shapes), oriented boxes (of slim shapes) or the class of the one shape of an image.
Every picture is a function of (seed, split, number).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import Image
from holdfast.data.objects import Objects
from holdfast.data.random import draws
from holdfast.geometry.targets import BOXES, Needs

KEYPOINTS = 3  # the middle of a shape and two marks
NAMES = {0: "disc", 1: "square", 2: "triangle"}
_HUES = (0, 108, 50)  # red, blue, green-yellow on OpenCV's circle of 180
_SIZES = ((320, 320), (320, 256), (256, 320), (320, 240), (240, 320), (288, 320))  # height, width
_TRIES = 40
_SLIM = 0.5  # width of shapes with a direction, as a part of their length
_BACKGROUND_EVERY = 12  # one image in so many has no object


class Scene(NamedTuple):
    """A picture and what is on it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        objects: in pixels; outlines always, keypoints and corners where they were asked for.
    """

    image: Image
    objects: Objects


def write_demo(folder: Path | str, *, images: int = 128, seed: int = 0, needs: Needs = BOXES) -> Path:
    """Writes the data set: images/{train,val}, labels/{train,val} and data.yaml, or folders of classes.

    Args:
        folder: where to; made when missing, files of the same name are replaced.
        images: how many in all; a fifth goes to validation.
        seed: same seed, same files.
        needs: what the labels hold, of the model that they are for.

    Returns:
        What `data` is to be: the path of data.yaml, or the folder that holds those of the splits.
    """
    root = Path(folder)
    val = max(images // 5, 1)
    for split_number, (split, count) in enumerate((("train", max(images - val, 1)), ("val", val))):
        for number in range(count):
            if needs.whole:
                scene = draw_one(seed, split_number, number)
                _write_image(root / split / NAMES[int(scene.objects.classes[0])] / f"{number:04d}.jpg", scene)
                continue
            scene = draw_scene(seed, split_number, number, needs=needs)
            _write_image(root / "images" / split / f"{number:04d}.jpg", scene)
            path = root / "labels" / split / f"{number:04d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(_rows(scene, needs)), encoding="utf-8")
    if needs.whole:
        return root
    names = "".join(f"  {index}: {name}\n" for index, name in NAMES.items())
    pose = f"kpt_shape: [{KEYPOINTS}, 3]\nflip_idx: {list(range(KEYPOINTS))}\n" if needs.keypoints else ""
    path = root / "data.yaml"
    path.write_text(f"path: .\ntrain: images/train\nval: images/val\n{pose}names:\n{names}", encoding="utf-8")
    return path


def _write_image(path: Path, scene: Scene) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".jpg", scene.image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    path.write_bytes(data.tobytes())


def _rows(scene: Scene, needs: Needs) -> Iterator[str]:
    """Label rows: corners, outlines, or boxes and keypoints."""
    objects = scene.objects
    height, width = scene.image.shape[:2]
    for number, label in enumerate(objects.classes.tolist()):
        if objects.corners is not None or needs.mask_stride:
            around = objects.outline(number) if objects.corners is None else objects.corners[number]
            values = (around / (width, height)).ravel().tolist()
        else:
            x0, y0, x1, y1 = objects.boxes[number].tolist()
            values = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        if objects.keypoints is not None:
            values += (objects.keypoints[number] / (width, height, 1)).ravel().tolist()
        yield f"{label} {' '.join(f'{value:.6f}' for value in values)}\n"


def draw_scene(seed: int, split: int, number: int, *, needs: Needs = BOXES) -> Scene:
    """Draws one picture.

    Args:
        needs: with keypoints each shape has a white and a black mark; rotated ones are half as wide as long.
    """
    rng = draws(seed, split, number, 0)
    height, width = _SIZES[int(rng.random() * len(_SIZES))]
    image = _background(rng, height, width)
    _clutter(rng, image)
    drawn: list[_Shape] = []
    wanted = 0 if number % _BACKGROUND_EVERY == _BACKGROUND_EVERY - 1 else 2 + int(rng.random() * 4)
    for _ in range(_TRIES):
        if len(drawn) == wanted:
            break
        label = int(rng.random() * len(NAMES))
        radius = 17.0 * (66.0 / 17.0) ** rng.random()  # as many small as large ones
        x = radius + rng.random() * (width - 2 * radius)
        y = radius + rng.random() * (height - 2 * radius)
        shape = _Shape.of(label, x, y, radius, rng.random() * 2 * math.pi, _SLIM if needs.rotated else 1.0)
        if any(_overlap(shape.box, other.box) > 0.08 for other in drawn):
            continue
        _draw(rng, image, shape.outline, label, radius)
        if needs.keypoints:
            _mark(image, shape.marks, radius)
        drawn.append(shape)
    return Scene(image, _objects(drawn, needs))


def draw_one(seed: int, split: int, number: int) -> Scene:
    """Draws a picture of one shape, for a classifier."""
    rng = draws(seed, split, number, 0)
    height, width = (side // 2 for side in _SIZES[int(rng.random() * len(_SIZES))])
    image = _background(rng, height, width)
    _clutter(rng, image)
    label = number % len(NAMES)  # each class is there, however few pictures are drawn
    radius = (0.25 + 0.2 * rng.random()) * min(height, width)
    x, y = width * (0.4 + 0.2 * rng.random()), height * (0.4 + 0.2 * rng.random())
    shape = _Shape.of(label, x, y, radius, rng.random() * 2 * math.pi, 1.0)
    _draw(rng, image, shape.outline, label, radius)
    return Scene(image, _objects([shape], BOXES))


class _Shape(NamedTuple):
    label: int
    outline: npt.NDArray[np.float64]  # (p, 2)
    corners: npt.NDArray[np.float64]  # (4, 2) of the rectangle around it along its own axes
    marks: npt.NDArray[np.float64]  # (KEYPOINTS, 2) middle, white mark, black mark

    @property
    def box(self) -> tuple[float, ...]:
        return (*self.outline.min(axis=0).tolist(), *self.outline.max(axis=0).tolist())

    @staticmethod
    def of(label: int, x: float, y: float, radius: float, turn: float, slim: float) -> _Shape:
        """A shape within a circle of `radius` around (x, y), `slim` times as wide as long."""
        corners = (72, 4, 3)[label]
        first = math.pi / 4 if slim < 1 and corners == 4 else 0.0  # a slim square is a bar
        angles = first + np.arange(corners) * (2 * math.pi / corners)
        own = np.stack([radius * np.cos(angles), slim * radius * np.sin(angles)], axis=1)
        low, high = own.min(axis=0), own.max(axis=0)
        around = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
        marks = np.array([[0.0, 0.0], [0.4 * radius, 0.0], [-0.4 * radius, 0.0]])
        cos, sin = math.cos(turn), math.sin(turn)
        turned = (points @ np.array([[cos, sin], [-sin, cos]]) + (x, y) for points in (own, around, marks))
        return _Shape(label, *turned)


def _objects(drawn: list[_Shape], needs: Needs) -> Objects:
    count = len(drawn)
    none = np.zeros((0, 2))
    keypoints = np.full((count, KEYPOINTS, 3), 2, np.float32)
    for number, shape in enumerate(drawn):
        keypoints[number, :, :2] = shape.marks
    return Objects(
        np.array([shape.label for shape in drawn], np.int64),
        np.array([shape.box for shape in drawn], np.float32).reshape(-1, 4),
        np.concatenate([none, *(shape.outline for shape in drawn)]).astype(np.float32),
        np.cumsum([0, *(len(shape.outline) for shape in drawn)], dtype=np.int64),
        keypoints if needs.keypoints else None,
        np.array([shape.corners for shape in drawn], np.float32).reshape(-1, 4, 2) if needs.rotated else None,
    )


def _mark(image: Image, marks: npt.NDArray[np.float64], radius: float) -> None:
    """Puts a white and a black spot on a shape."""
    for (x, y), level in zip(marks[1:].tolist(), (255, 0), strict=True):
        spot = round((x - 0.5) * 16), round((y - 0.5) * 16)
        cv2.circle(image, spot, round(radius * 0.16 * 16), (level, level, level), -1, cv2.LINE_AA, shift=4)


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
