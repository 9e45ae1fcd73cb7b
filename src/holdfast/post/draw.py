"""Boxes and labels on pictures, made to be read: sharp text in any script, no label outside the image.

Colours are picked to stay apart for colour-blind readers (Okabe-Ito first, then lighter and darker
relatives). Text is rendered as a coverage mask by Pillow and blended in place, so only the few pixels under a
label are touched. Images are used in the channel order they come in; say `bgr=True` for OpenCV's.

Dimensions: N boxes of one image, images are (H, W, 3) uint8.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PALETTE: tuple[Color, ...] = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233),
    (240, 228, 66), (102, 37, 131), (136, 34, 85), (17, 119, 51), (221, 204, 119), (51, 34, 136),
    (170, 68, 153), (68, 170, 153), (153, 153, 51), (204, 102, 119), (90, 90, 90), (136, 204, 238),
    (166, 86, 40), (178, 223, 138),
)  # fmt: skip

# Labels of hundreds of small objects would hide the picture: after the first twenty each must find a free
# place, and all together get a tenth of the image.
ALWAYS_LABELLED = 20
LABELLED_SHARE = 0.1

# Asked for by file name when a label has letters that DejaVu lacks (Chinese, Japanese, Korean).
WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc",
    "wqy-zenhei.ttc", "msyh.ttc", "simsun.ttc", "malgun.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc", "DroidSansFallbackFull.ttf", "Arial Unicode.ttf",
)  # fmt: skip


def class_color(index: int) -> Color:
    """Returns the RGB colour of a class; after the palette is used up, lighter and darker versions follow."""
    turn, place = divmod(int(index), len(PALETTE))
    r, g, b = PALETTE[place]
    if turn == 0:
        return r, g, b
    # Alternate towards white and black, further on every second turn, never all the way.
    amount = 0.35 * (1 - 0.5 ** ((turn + 1) // 2)) * 2
    target = 255 if turn % 2 else 0
    return tuple(round(c + (target - c) * amount) for c in (r, g, b))  # type: ignore[return-value]


def text_color(background: Color) -> Color:
    """Returns black or white, whichever stands out more on the background (relative luminance, WCAG)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if luminance > 0.24 else (255, 255, 255)


def auto_line_width(height: int, width: int) -> int:
    """Returns a line width in pixels that looks alike on images of any size."""
    return max(1, round(0.0032 * math.sqrt(height * width)))


def auto_font_size(height: int, width: int) -> int:
    """Returns a text height in pixels that is readable on images of any size."""
    return max(10, round(0.024 * math.sqrt(height * width)))


def load_font(size: int, text: str = "") -> Font:
    """Returns a scalable font that has the letters of `text`, as far as this machine has one."""
    if any(ord(letter) >= 0x1100 for letter in text):
        for name in WIDE_FONTS:
            with contextlib.suppress(OSError):
                return ImageFont.truetype(name, size)
    spec = importlib.util.find_spec("matplotlib")  # finds the font that ships with it, imports nothing
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            # The simple layout is three times as fast and all that Latin letters need.
            engine = ImageFont.Layout.BASIC if text.isascii() else None
            return ImageFont.truetype(str(path), size, layout_engine=engine)
    return ImageFont.load_default(size)


def draw_boxes(
    image: Picture,
    boxes: ArrayLike,
    labels: Sequence[str],
    classes: Sequence[int],
    *,
    corners: ArrayLike | None = None,
    line_width: int | None = None,
    font_size: int | None = None,
    text: Color | None = None,
    bgr: bool = False,
) -> Picture:
    """Draws boxes and their labels on a copy of the image; later boxes lie on top.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4) xyxy in pixels.
        labels: N texts; an empty text draws the box alone. Where there is no room for all, the topmost boxes
            have theirs.
        classes: N class indices, which choose the colours.
        corners: (N, P, 2) of the shapes to draw in place of the upright boxes.
        line_width: pixels; by image size when absent.
        font_size: text height in pixels; by image size when absent.
        text: RGB colour of all texts; black or white by contrast when absent.
        bgr: the image has OpenCV's channel order.

    Returns:
        A new image of the same shape and channel order.
    """
    canvas: Picture = np.array(image, dtype=np.uint8, order="C")
    height, width = canvas.shape[:2]
    thickness = max(1, line_width or auto_line_width(height, width))
    size = font_size or auto_font_size(height, width)
    upright = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    colors = [class_color(c) for c in classes]
    if corners is None:
        for (x1, y1, x2, y2), color in zip(upright, colors, strict=True):
            low = (_pixel(x1, width), _pixel(y1, height))
            high = (_pixel(x2, width), _pixel(y2, height))
            cv2.rectangle(canvas, low, high, color[::-1] if bgr else color, thickness)
    else:
        for shape, color in zip(np.asarray(corners, dtype=np.float64), colors, strict=True):
            # Sixteenths of a pixel, so that the sides of small shapes keep their direction.
            points = np.nan_to_num(shape * 16).clip(-(2**26), 2**26).round().astype(np.int32)
            paint = color[::-1] if bgr else color
            cv2.polylines(canvas, [points], True, paint, thickness, cv2.LINE_AA, shift=4)
    font = load_font(size, "".join(labels))
    taken: list[tuple[int, int, int, int]] = []
    # Places are given to the topmost (last) first, so that the best detection keeps the best place.
    placed = []
    masks: dict[str, NDArray[np.uint8]] = {}
    room = LABELLED_SHARE * height * width
    for box, label, color in reversed(list(zip(upright, labels, colors, strict=True))):
        if label and (len(taken) < ALWAYS_LABELLED or room > 0):
            if label not in masks:
                masks[label] = text_mask(label, font, size)
            mask = masks[label]
            spot = _place(box, mask.shape[1], mask.shape[0], height, width, thickness, taken)
            if len(taken) >= ALWAYS_LABELLED and any(_meet(spot, other) for other in taken):
                continue
            taken.append(spot)
            room -= mask.size
            placed.append((spot, mask, color))
    for (left, top, _, _), mask, color in reversed(placed):
        blend(canvas, left, top, mask, color, text or text_color(color), bgr)
    return canvas


def mosaic_grid(
    images: Sequence[Picture],
    boxes: Sequence[ArrayLike],
    classes: Sequence[Sequence[int]],
    names: Mapping[int, str],
    *,
    scores: Sequence[Sequence[float]] | None = None,
    titles: Sequence[str] | None = None,
    corners: Sequence[ArrayLike] | None = None,
    limit: int = 16,
    side: int = 1920,
) -> Picture:
    """Draws a batch as one picture: a square grid of annotated images.

    Args:
        images: (H, W, 3) uint8 each, any sizes.
        boxes: per image (N, 4) xyxy in its pixels.
        classes: per image N class indices.
        names: class index to name.
        scores: per image N confidences, shown behind the name.
        titles: per image a caption, usually the file name.
        corners: per image (N, P, 2) of the shapes to draw in place of the boxes.
        limit: most images shown.
        side: longest side of the result in pixels; images are shrunk, never enlarged more than twice.

    Returns:
        (H', W', 3) uint8 in the channel order of the images.
    """
    count = min(len(images), limit)
    if count == 0:
        return np.full((64, 64, 3), 255, dtype=np.uint8)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tall = max(image.shape[0] for image in images[:count])
    wide = max(image.shape[1] for image in images[:count])
    gap, caption = 6, 0 if titles is None else 20
    scale = min(2.0, ((side - gap) / columns - gap) / wide, ((side - gap) / rows - gap - caption) / tall)
    cell_h, cell_w = max(1, round(tall * scale)), max(1, round(wide * scale))
    step_h, step_w = cell_h + gap + caption, cell_w + gap
    canvas = np.full((rows * step_h + gap, columns * step_w + gap, 3), 255, dtype=np.uint8)
    size = min(18, max(10, round(0.03 * math.sqrt(cell_h * cell_w))))
    for i in range(count):
        image = images[i]
        h, w = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        shrunk = np.asarray(cv2.resize(image, (w, h), interpolation=method), dtype=np.uint8)
        upright = np.asarray(boxes[i], dtype=np.float64).reshape(-1, 4) * scale
        shapes = None if corners is None else np.asarray(corners[i], dtype=np.float64) * scale
        labels = [names.get(int(c), str(int(c))) for c in classes[i]]
        if scores is not None:
            labels = [f"{label} {score:.2f}" for label, score in zip(labels, scores[i], strict=True)]
        numbers = [int(c) for c in classes[i]]
        drawn = draw_boxes(
            shrunk, upright, labels, numbers, corners=shapes, font_size=size, line_width=2
        )
        row, column = divmod(i, columns)
        cell_top, cell_left = gap + row * step_h, gap + column * step_w
        if titles is not None and titles[i]:
            font = load_font(13, titles[i])
            mask = text_mask(_fit(titles[i], font, cell_w - 8), font, 13)[:caption, :cell_w]
            blend(canvas, cell_left, cell_top, mask, (255, 255, 255), (40, 40, 40), False)
        top = cell_top + caption + (cell_h - h) // 2
        left = cell_left + (cell_w - w) // 2
        canvas[top : top + h, left : left + w] = drawn
    return canvas


def _pixel(value: float, length: int) -> int:
    """Nearest pixel inside the image; a box that reaches outside is drawn along the border."""
    return int(min(max(round(float(value)), 0), length - 1)) if math.isfinite(value) else 0


def text_mask(text: str, font: Font, size: int) -> NDArray[np.uint8]:
    """Coverage (h, w) of a text with its padding; the height depends on the font size only."""
    pad = max(2, size // 4)
    width = math.ceil(font.getlength(text)) + 2 * pad
    height = round(size * 1.32) + pad // 2
    mask = Image.new("L", (max(1, width), height), 0)
    # Anchor "lm" (left, middle) keeps descenders inside for any letters; bitmap fonts know no anchors.
    if isinstance(font, ImageFont.FreeTypeFont):
        ImageDraw.Draw(mask).text((pad, height / 2), text, fill=255, font=font, anchor="lm")
    else:
        ImageDraw.Draw(mask).text((pad, pad // 2), text, fill=255, font=font)
    return np.asarray(mask)


def _fit(text: str, font: Font, width: int) -> str:
    """Shortens a text from its front until it is not wider than `width` pixels (the end names the file)."""
    if font.getlength(text) <= width:
        return text
    kept = text
    while len(kept) > 1 and font.getlength("\u2026" + kept) > width:
        kept = kept[1:]
    return "\u2026" + kept


def _place(
    box: NDArray[np.float64],
    w: int,
    h: int,
    height: int,
    width: int,
    thickness: int,
    taken: Sequence[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Finds a place for a label of w x h: above the box, inside its top, below it; inside the image, off the
    others."""
    half = thickness // 2 + thickness % 2
    x1, y1, x2, y2 = (_pixel(v, limit) for v, limit in zip(box, (width, height, width, height), strict=True))
    tops = np.array([y1 - half - h + 1, y1 + half, y2 + half, y2 - half - h])
    lefts = np.array([x1 - half, x2 + half - w])
    top, left = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))  # 8 spots, best first
    outside = (top < 0) | (top + h > height)
    top = np.minimum(np.maximum(top, 0), max(0, height - h))
    left = np.minimum(np.maximum(left, 0), max(0, width - w))
    covered = np.zeros(len(top))
    if taken:
        others = np.array(taken)  # (n, 4)
        wide = np.minimum(others[:, 2], left[:, None] + w) - np.maximum(others[:, 0], left[:, None])
        tall = np.minimum(others[:, 3], top[:, None] + h) - np.maximum(others[:, 1], top[:, None])
        covered = (np.maximum(wide, 0) * np.maximum(tall, 0)).sum(axis=1)  # (8,)
    # Least covered first, then inside; the sort is stable, so the order of preference decides among equals.
    best = int(np.lexsort((outside, covered))[0])
    x, y = int(left[best]), int(top[best])
    return x, y, x + w, y + h


def _meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def blend(
    canvas: Picture, left: int, top: int, mask: NDArray[np.uint8], back: Color, front: Color, bgr: bool
) -> None:
    """Paints a filled label with its text into the canvas, cut off at the border."""
    view = canvas[top : top + mask.shape[0], left : left + mask.shape[1]]
    if view.size == 0:
        return
    order = slice(None, None, -1) if bgr else slice(None)
    cover = mask[: view.shape[0], : view.shape[1], None].astype(np.float32) / 255.0
    low = np.array(back[order], dtype=np.float32)
    high = np.array(front[order], dtype=np.float32)
    view[...] = np.rint(low + (high - low) * cover).astype(np.uint8)
