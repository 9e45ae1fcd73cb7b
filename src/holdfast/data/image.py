"""Any image file as upright RGB uint8, or one sentence why not.

Two readers. Ordinary 8-bit JPEG and PNG go through OpenCV, fast and, for JPEG, optionally at 1/2, 1/4 or 1/8
of the size straight from the DCT coefficients. Everything else (CMYK, 16 bit, palettes, alpha, TIFF, WebP,
animations, files that do not end as they should) goes through Pillow, which notices truncation where OpenCV
would hand out gray rows.

Decisions: content counts, never the suffix; EXIF orientation is applied; the first frame of an animation is
the image; 16 bit is divided by 257 (full range to full range, the same for every file); transparent pixels
show the gray of the letterbox; images over `MAX_PIXELS` are refused before memory is taken.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image_header import Header, looks_complete, parse_header
from holdfast.errors import DataError

Image = npt.NDArray[np.uint8]

MAX_PIXELS = 178_956_970  # where Pillow, too, speaks of a decompression bomb: 512 MiB as RGB
FILL = 114  # gray of every pixel without content
# fmt: off
IMAGE_SUFFIXES = frozenset((
    ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".mpo", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
))
# fmt: on
_HEAD_BYTES = 32768
_TAIL_BYTES = 64


def read_image(source: Path | str | bytes, *, name: str | None = None) -> Image:
    """Reads an image.

    Args:
        source: a path, or the bytes of a file.
        name: what to call the image in an error when `source` is bytes.

    Returns:
        (H, W, 3) uint8, RGB, upright.

    Raises:
        DataError: missing, empty, not an image, truncated, too large, or of a kind without defined 8-bit
            pixels.
    """
    return read_reduced(source, 1, name=name)[0]


def read_reduced(
    source: Path | str | bytes, divisor: int, *, name: str | None = None
) -> tuple[Image, float, float]:
    """Reads an image at about 1/divisor of its size, averaging rather than skipping pixels.

    Args:
        source: a path, or the bytes of a file.
        divisor: a power of two; 1 reads at full size.
        name: what to call the image in an error when `source` is bytes.

    Returns:
        (H, W, 3) uint8 RGB, and how many of its pixels go into one original pixel in x and in y (about
        1/divisor).
    """
    data, where = (
        (source, name or "image") if isinstance(source, bytes) else (read_bytes(source), shown(source))
    )
    header = parse_header(data)
    if header is not None:
        _refuse_bomb(header.height, header.width, where)
        if header.plain and looks_complete(data, data[-_TAIL_BYTES:]):
            fast = _read_fast(data, header, divisor)
            if fast is not None:
                return fast
    full = _read_careful(data, header, where)
    return shrink(full, divisor)


def read_size(path: Path | str) -> tuple[int, int]:
    """Returns upright (height, width) from the header, decoding only files that look damaged.

    Raises:
        DataError: whenever `read_image` is known to fail: missing, empty, not an image, too large, cut short.
    """
    where = shown(path)
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
    except OSError as error:
        raise _unreadable(error, where) from None
    if not head:
        raise DataError("the file is empty (0 bytes).", path=where, hint="Delete it or copy it again.")
    header = parse_header(head)
    if header is not None and looks_complete(head, tail):
        _refuse_bomb(header.height, header.width, where)
        return header.upright
    if header is None and head[:3] != b"\xff\xd8\xff":
        size = _size_by_pillow(path, where)
        if size is not None:
            return size
    height, width = read_image(path).shape[:2]
    return height, width


def read_bytes(path: Path | str) -> bytes:
    """Reads a whole file.

    Raises:
        DataError: missing, empty or unreadable.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        raise _unreadable(error, shown(path)) from None
    if not data:
        raise DataError("the file is empty (0 bytes).", path=shown(path), hint="Delete it or copy it again.")
    return data


def _unreadable(error: OSError, where: str) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError("no such image file.", path=where, hint="Check the path.")
    return DataError(
        f"cannot be opened ({error.strerror}).", path=where, hint="Check the file and its permissions."
    )


def shown(path: Path | str) -> str:
    """A path that can always be printed, whatever bytes its name holds."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _refuse_bomb(height: int, width: int, where: str) -> None:
    if height * width > MAX_PIXELS:
        raise _too_large(f"{width} x {height} pixels", where)


def _too_large(size: str, where: str) -> DataError:
    return DataError(
        f"{size} is more than the limit of {MAX_PIXELS:,}.",
        path=where,
        hint="Cut the image into tiles or make it smaller.",
    )


def _read_fast(data: bytes, header: Header, divisor: int) -> tuple[Image, float, float] | None:
    reduction = min(divisor, 8) if header.kind == "jpeg" else 1
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[reduction]
    rgb = getattr(cv2, "IMREAD_COLOR_RGB", 0)  # from OpenCV 4.11: no second pass to swap channels
    if rgb:
        flags = flags & ~cv2.IMREAD_COLOR | rgb
    try:
        # Orientation is applied below: which formats OpenCV turns by itself depends on its version.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    if image is None:
        return None
    if not rgb:
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    image = _upright(_as_image(image), header.orientation)
    if reduction == divisor:
        return image, 1.0 / reduction, 1.0 / reduction
    image, scale_x, scale_y = shrink(image, divisor // reduction)
    return image, scale_x / reduction, scale_y / reduction


def _upright(image: Image, orientation: int) -> Image:
    """Undoes an EXIF orientation (1 to 8)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def shrink(image: Image, divisor: int) -> tuple[Image, float, float]:
    """Shrinks an image to about 1/divisor by area; also returns the exact factors in x and in y."""
    if divisor == 1:
        return image, 1.0, 1.0
    height, width = image.shape[:2]
    small = max(round(width / divisor), 1), max(round(height / divisor), 1)
    return (
        _as_image(cv2.resize(image, small, interpolation=cv2.INTER_AREA)),
        small[0] / width,
        small[1] / height,
    )


def _size_by_pillow(path: Path | str, where: str) -> tuple[int, int] | None:
    """Size from the header through Pillow; None when only decoding can tell."""
    import PIL

    try:
        with _open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(0x0112, 1)
            if image.format == "TIFF" and orientation != 1:
                return (
                    None  # turned while loading; whether the header's size already is depends on the version
                )
    except PIL.UnidentifiedImageError:
        return None
    except Exception as error:  # decoders of damaged files raise whatever they like
        raise _damaged(error, where) from None
    _refuse_bomb(height, width, where)
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _read_careful(data: bytes, header: Header | None, where: str) -> Image:
    if header is not None and header.deep:  # Pillow keeps only the high byte of 16-bit colour
        return _from_opencv(data, where)
    import PIL
    import PIL.ImageOps

    try:
        with _open(io.BytesIO(data)) as opened:
            _refuse_bomb(opened.height, opened.width, where)
            opened.load()
            image = PIL.ImageOps.exif_transpose(opened)
            return _from_pillow(image, where)
    except PIL.UnidentifiedImageError:
        return _from_opencv(data, where)
    except DataError:
        raise
    except Exception as error:  # decoders of damaged files raise whatever they like
        raise _damaged(error, where) from None


def _from_pillow(image: Any, where: str) -> Image:
    """Any Pillow mode as RGB."""
    mode = image.mode
    if mode == "F":
        raise DataError(
            "pixels are 32-bit floats, which have no fixed range.",
            path=where,
            hint="Save as 8-bit or 16-bit.",
        )
    if mode.startswith("I"):  # I;16 and its byte orders; I is what 16-bit gray was in older Pillow
        deep = np.asarray(image).astype(np.int64)
        gray = ((np.clip(deep, 0, 65535) + 128) // 257).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        colour = np.asarray(image.convert("RGBA")).astype(np.float32)
        alpha = colour[:, :, 3:] / 255.0
        return _as_image(np.rint(colour[:, :, :3] * alpha + FILL * (1.0 - alpha)).astype(np.uint8))
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _from_opencv(data: bytes, where: str) -> Image:
    """16-bit files and formats Pillow does not know."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _damaged(error, where) from None
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise DataError(
            "not an image that can be read (damaged, or another kind of file with an image's name).",
            path=where,
            hint="Open it in a viewer; delete it or save it again as JPEG or PNG.",
        )
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return _as_image(np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2))
    colour = np.ascontiguousarray(image[:, :, 2::-1])
    if image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.float32) / 255.0
        colour = np.rint(colour * alpha + FILL * (1.0 - alpha)).astype(np.uint8)
    return _as_image(colour)


def _open(source: Path | str | io.BytesIO) -> Any:
    """Opens with Pillow, which must not warn of sizes below the limit."""
    import PIL.Image

    with warnings.catch_warnings():  # threads that meet here may leave this one filter behind, no more
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        return PIL.Image.open(source)


def _damaged(error: Exception, where: str) -> DataError:
    if type(error).__name__ == "DecompressionBombError":
        pixels = re.search(r"\d+", str(error))
        return _too_large(f"{int(pixels[0]):,} pixels" if pixels else "this size", where)
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    return DataError(
        f"the image is damaged or cut short ({reason}).", path=where, hint="Delete it or copy it again."
    )


def _as_image(array: Any) -> Image:
    return np.ascontiguousarray(array, dtype=np.uint8)
