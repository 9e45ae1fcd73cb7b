"""Pictures of single cases for a page: an image with its boxes, small enough to be embedded."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.findings import Split, View
from holdfast.data.image import Image, read_reduced
from holdfast.errors import DataError
from holdfast.post.draw import draw_boxes
from holdfast.report.page import data_uri

WIDE, TALL = 480, 360  # most pixels of a picture
_FULL_PIXELS = 24_000_000  # larger images are read at half of their size or less
_SPECK_SHARE = 0.06  # boxes smaller than this part of the image are shown enlarged
_AROUND = 6.0  # how many times its size is shown around a small box
_LEAST_WINDOW = 96  # pixels
_RING = 18.0  # least side in pixels of what is drawn


def picture(view: View, split: Split) -> str | None:
    """Draws an image with its boxes, those in question bold and named.

    Args:
        view: the image, and the boxes in question.
        split: where it is.

    Returns:
        A JPEG as a data URI; None when the image cannot be read.
    """
    index = split.index
    height, width = (int(side) for side in index.sizes[view.image])
    divisor = 1
    while height * width / divisor**2 > _FULL_PIXELS:
        divisor *= 2
    try:
        image, scale_x, scale_y = read_reduced(index.path(view.image), divisor)
    except DataError:
        return None
    start, stop = int(index.offsets[view.image]), int(index.offsets[view.image + 1])
    centres, sides = index.boxes[start:stop, :2], index.boxes[start:stop, 2:]
    extent = np.array([width * scale_x, height * scale_y])
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1) * np.tile(extent, 2)
    bold = np.isin(np.arange(start, stop), view.boxes)
    image, boxes = _window(image, boxes, bold)
    seen = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < (image.shape[1], image.shape[0])).all(axis=1)
    scale = min(WIDE / image.shape[1], TALL / image.shape[0], 6.0)
    small = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    canvas = np.asarray(cv2.resize(image, small, interpolation=method), dtype=np.uint8)
    boxes = boxes[seen] * scale
    bold, classes = bold[seen], index.classes[start:stop][seen]
    rest = [int(label) for label in classes[~bold]]
    canvas = draw_boxes(canvas, boxes[~bold], [""] * len(rest), rest, line_width=1)
    named = [int(label) for label in classes[bold]]
    labels = [index.names[label] for label in named] if len(named) <= 8 else [""] * len(named)
    least = np.maximum(_RING - (boxes[:, 2:] - boxes[:, :2]), 0) / 2
    boxes += np.concatenate([-least, least], axis=1)  # a ring around specks, not a blot on them
    canvas = draw_boxes(canvas, boxes[bold], labels, named, line_width=2, font_size=13)
    bgr = np.ascontiguousarray(canvas[:, :, ::-1])
    good, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert good
    return data_uri(data.tobytes(), "jpeg")


def _window(
    image: Image, boxes: npt.NDArray[np.float64], bold: npt.NDArray[np.bool_]
) -> tuple[Image, npt.NDArray[np.float64]]:
    """Cuts out the surroundings of the first box in question when it would not be seen in the whole."""
    if not bold.any():
        return image, boxes
    height, width = image.shape[:2]
    box = boxes[bold][0]
    side = float(max(box[2] - box[0], box[3] - box[1]))
    if side > _SPECK_SHARE * max(height, width):
        return image, boxes
    reach = max(side * _AROUND, _LEAST_WINDOW) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, right = (int(min(max(x + way * reach, 0), width)) for way in (-1, 1))
    top, bottom = (int(min(max(y + way * reach, 0), height)) for way in (-1, 1))
    if right - left < 2 or bottom - top < 2:
        return image, boxes
    return image[top:bottom, left:right], boxes - np.array([left, top, left, top])
