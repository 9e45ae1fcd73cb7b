"""Whatever a user points at, as one lazy stream of RGB pictures.

`Source` resolves names at once (so that a mistyped path fails before a model is loaded) and reads pixels only
while it is iterated, one picture or video frame at a time: memory does not grow with the number of files or
the length of a video.

A file that cannot be read does not stop the run: it comes out as `Unreadable` in its place. Only what makes
the whole request pointless (a missing path, an empty folder, a pattern without matches) raises `DataError`.

Trap: arrays are taken as BGR, the order `cv2.imread` returns; PIL pictures, tensors and encoded bytes carry
their own order.
"""

from __future__ import annotations

import glob
import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from holdfast.data.image import read_image
from holdfast.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_IMAGES = "avif bmp dng heic heif jp2 jpeg jpg mpo pfm pgm png pnm ppm tif tiff webp"
_VIDEOS = "asf avi gif m4v mkv mov mp4 mpeg mpg ts wmv webm"
IMAGE_SUFFIXES = frozenset(f".{name}" for name in _IMAGES.split())
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEOS.split())
LIST_SUFFIXES = frozenset((".txt", ".csv"))
_MOST_BYTES = 1 << 28  # of a picture at an address
STREAM_PREFIXES = ("rtsp://", "rtmp://", "tcp://", "udp://", "http://", "https://")

Picture: TypeAlias = NDArray[np.uint8]
Item: TypeAlias = "str | Path | bytes | bytearray | io.BytesIO | NDArray[Any] | torch.Tensor | Image"
SourceLike: TypeAlias = "Item | int | list[Any] | tuple[Any, ...]"


class VideoFrame(NamedTuple):
    """Where a frame stands in its video.

    Attributes:
        at: frame number in the file from 0 (steps of `vid_stride`).
        frames: frames that the container announces, 0 when unknown.
        fps: frames per second of the file divided by `vid_stride`.
    """

    at: int
    frames: int
    fps: float


class Frame(NamedTuple):
    """One picture to look at.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        path: file it came from; `image0.jpg`, `image1.jpg`, ... for pictures from memory.
        number: which of the source's items it belongs to, from 0.
        seconds: time spent reading and decoding.
        video: place in the video, None for a single picture.
        ready: (3, H, W) float32 RGB in [0, 1] when the user gave a tensor: it goes to the network as it is.
    """

    image: Picture
    path: str
    number: int = 0
    seconds: float = 0.0
    video: VideoFrame | None = None
    ready: torch.Tensor | None = None


class Unreadable(NamedTuple):
    """A file that was asked for and gave no picture.

    Attributes:
        path: the file.
        reason: one line for the user, without the path.
        number: which of the source's items it is, from 0.
    """

    path: str
    reason: str
    number: int = 0


class Source:
    """Lazy pictures of one request; iterate it as often as needed.

    Args:
        source: an image or video file, a folder (its own files, sorted, not its subfolders), a glob pattern
            (`**` allowed), a `.txt` or `.csv` file with one source per line (relative to the working
            directory or to the list), the address of a picture (`https://.../a.jpg`) or of a stream, a webcam
            number, an array ((H, W, 3) BGR, (H, W, 4)
            BGRA, (H, W) gray, or a stack of them; uint8), a PIL picture, a tensor ((3, H, W) or (B, 3, H, W)
            RGB, float in [0, 1] or uint8), encoded bytes, or a list of any.
        vid_stride: of every so many video frames one is taken.

    Raises:
        DataError: nothing to read at all; the message says what to change.
    """

    def __init__(self, source: SourceLike, *, vid_stride: int = 1) -> None:
        if vid_stride < 1:
            raise DataError(f"vid_stride is {vid_stride}, expected 1 or more.")
        self.vid_stride = vid_stride
        self.items: list[Item] = _expand(source, strict=True)

    def __len__(self) -> int:
        """Number of files, arrays and streams; a video counts once."""
        return len(self.items)

    def __iter__(self) -> Iterator[Frame | Unreadable]:
        unnamed = 0
        for number, item in enumerate(self.items):
            named = isinstance(item, str)
            for read in (
                _read_file(item, self.vid_stride) if isinstance(item, str) else _read_memory(item, unnamed)
            ):
                unnamed += not named
                yield read._replace(number=number)


def _expand(source: Any, *, strict: bool, base: Path | None = None) -> list[Item]:
    """Flattens a request into names and objects; `strict` raises on missing paths, else reading tells."""
    if isinstance(source, list | tuple):
        if not source:
            raise DataError("The list of sources is empty.", hint="Give at least one image, folder or video.")
        return [
            item for entry in source for item in _expand(entry, strict=strict and len(source) == 1, base=base)
        ]
    if isinstance(source, int) and not isinstance(source, bool):
        return [str(source)]
    if isinstance(source, str | os.PathLike):
        return _expand_name(os.fspath(source), strict=strict, base=base)
    if isinstance(source, bytes | bytearray | io.BytesIO | np.ndarray | torch.Tensor) or _is_pil(source):
        return [source]
    raise DataError(
        f"Cannot read pictures from a {type(source).__name__}.",
        hint="Give a path, a pattern, a list, an array (BGR), a PIL image, a tensor or encoded bytes.",
    )


def _expand_name(name: str, *, strict: bool, base: Path | None) -> list[Item]:
    if name.isdecimal() and not os.path.exists(name):
        return [name]  # webcam number
    if name.lower().startswith(STREAM_PREFIXES):
        return [name]
    path = Path(name).expanduser()
    if base is not None and not path.is_absolute() and not path.exists():
        path = base / path
    if path.is_dir():
        return _expand_folder(path)
    if path.exists():
        # A text file under an image name is still asked for as an image; only list suffixes are lists.
        return _expand_list(path) if path.suffix.lower() in LIST_SUFFIXES else [str(path)]
    if glob.has_magic(name):
        matches = sorted(
            m for m in glob.glob(str(path), recursive=True) if os.path.isfile(m) and _is_media(m)
        )
        if matches or not strict:
            return list(matches)
        raise DataError(
            "no image or video matches this pattern.",
            path=name,
            hint="Check the pattern; ** searches subfolders.",
        )
    if strict:
        parent = next((p for p in path.parents if p.is_dir()), Path())
        raise DataError(
            "no such image, folder, video or pattern.",
            path=name,
            hint=f"The nearest folder that exists is '{parent.resolve()}'; check the spelling after it.",
        )
    return [str(path)]


def _expand_folder(folder: Path) -> list[Item]:
    files: list[Item] = [str(p) for p in sorted(folder.iterdir()) if p.is_file() and _is_media(p)]
    if files:
        return files
    inside = sum(1 for p in folder.iterdir() if p.is_dir())
    raise DataError(
        "the folder holds no image or video.",
        path=folder,
        hint=f"It has {inside} subfolder(s): use the pattern '{folder / '**' / '*'}' to search them."
        if inside
        else f"Known types: {' '.join(sorted(s[1:] for s in IMAGE_SUFFIXES | VIDEO_SUFFIXES))}.",
    )


def _expand_list(path: Path) -> list[Item]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the list of sources cannot be read ({error}).", path=path, hint="Save it as UTF-8 text."
        ) from error
    rows = [
        line.split(",")[0].strip() if path.suffix.lower() == ".csv" else line.strip()
        for line in text.splitlines()
    ]
    rows = [row for row in rows if row and not row.startswith("#")]
    if not rows:
        raise DataError(
            "the list of sources is empty.", path=path, hint="Write one image, folder or video per line."
        )
    return [item for row in rows for item in _expand_name(row, strict=False, base=path.parent)]


def _is_media(path: str | Path) -> bool:
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES


def _is_pil(value: object) -> bool:
    # Asked by module name so that PIL is not imported for users who never hand over a PIL picture.
    return any(c.__module__ == "PIL.Image" and c.__name__ == "Image" for c in type(value).__mro__)


def is_stream(name: str) -> bool:
    """Whether a source name is a webcam number or a network stream, so that its length is unknown."""
    address = name.lower().startswith(STREAM_PREFIXES) and not _is_picture_address(name)
    return address or (name.isdecimal() and not os.path.exists(name))


def _is_picture_address(name: str) -> bool:
    path = re.split(r"[?#]", name, maxsplit=1)[0].lower()
    return path.startswith(("http://", "https://")) and os.path.splitext(path)[1] in IMAGE_SUFFIXES


def _read_file(name: str, vid_stride: int) -> Iterator[Frame | Unreadable]:
    if is_stream(name) or os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
        yield from _read_video(name, vid_stride)
        return
    start = time.perf_counter()
    try:
        content = _fetched(name) if _is_picture_address(name) else name
        image: Picture = read_image(content, name=name)
    except DataError as error:
        yield Unreadable(name, _reason(error, name))
        return
    yield Frame(image, name, seconds=time.perf_counter() - start)


def _fetched(address: str) -> bytes:
    from http.client import HTTPException
    from urllib.request import urlopen

    try:
        with urlopen(address, timeout=30) as answer:
            content: bytes = answer.read(_MOST_BYTES)
    except (OSError, HTTPException, ValueError) as error:
        raise DataError(f"cannot be fetched ({getattr(error, 'reason', '') or error}).") from error
    return content


def _reason(error: DataError, name: str) -> str:
    return str(error).removeprefix(f"{name}: ")


def _read_video(name: str, vid_stride: int) -> Iterator[Frame | Unreadable]:
    import cv2

    stream = is_stream(name)
    if not stream and not os.path.isfile(name):
        yield Unreadable(name, "no such file.")
        return
    if not stream and os.path.getsize(name) == 0:
        yield Unreadable(name, "the file is empty (0 bytes).")
        return
    capture = cv2.VideoCapture(int(name) if name.isdecimal() else name)
    try:
        if not capture.isOpened():
            what = "the stream or camera cannot be opened" if stream else "not a video that OpenCV can read"
            yield Unreadable(name, f"{what}.")
            return
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = (fps if 0 < fps < 1000 else 30.0) / vid_stride
        frames = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        index = 0
        while True:
            start = time.perf_counter()
            # grab() without retrieve() skips the colour conversion of frames that nobody looks at.
            if not capture.grab():
                break
            if index % vid_stride == 0:
                good, image = capture.retrieve()
                if not good:
                    break
                rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
                yield Frame(
                    rgb, name, seconds=time.perf_counter() - start, video=VideoFrame(index, frames, fps)
                )
            index += 1
        if index == 0:
            yield Unreadable(name, "the video holds no frame that can be decoded.")
    finally:
        capture.release()


def _read_memory(item: Any, first: int) -> Iterator[Frame | Unreadable]:
    start = time.perf_counter()
    name = f"image{first}.jpg"
    if isinstance(item, bytes | bytearray | io.BytesIO):
        try:
            image = read_image(item.getvalue() if isinstance(item, io.BytesIO) else bytes(item), name=name)
        except DataError as error:
            yield Unreadable(name, _reason(error, name))
            return
        yield Frame(image, name, seconds=time.perf_counter() - start)
    elif isinstance(item, torch.Tensor):
        yield from _read_tensor(item, first)
    elif isinstance(item, np.ndarray):
        arrays = item if item.ndim == 4 else item[None]
        for i, array in enumerate(arrays):
            yield Frame(_array_to_rgb(array), f"image{first + i}.jpg", seconds=time.perf_counter() - start)
    else:
        from PIL import ImageOps

        name = getattr(item, "filename", "") or name
        upright = ImageOps.exif_transpose(item) or item
        yield Frame(np.array(upright.convert("RGB")), name, seconds=time.perf_counter() - start)


def _array_to_rgb(array: NDArray[Any]) -> Picture:
    """(H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA, uint8 -> (H, W, 3) RGB."""
    import cv2

    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(
            f"An array of shape {tuple(array.shape)} and type {array.dtype} is not a picture.",
            hint="Expected (height, width, 3) uint8 in BGR order, as cv2.imread returns it.",
        )
    channels = 1 if array.ndim == 2 else array.shape[2]
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if channels not in codes:
        raise DataError(
            f"An array of shape {tuple(array.shape)} has {channels} channels.",
            hint="Expected (height, width, 3): channels last, BGR.",
        )
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(array), codes[channels]), np.uint8)


def _read_tensor(tensor: torch.Tensor, first: int) -> Iterator[Frame]:
    """(3, H, W) or (B, 3, H, W) -> frames that skip the letterbox."""
    batch = tensor if tensor.ndim == 4 else tensor[None]
    if batch.ndim != 4 or batch.shape[1] != 3 or 0 in batch.shape:
        raise DataError(
            f"A tensor of shape {tuple(tensor.shape)} is not a picture.",
            hint="Expected (3, height, width) or (batch, 3, height, width), RGB.",
        )
    for i, image in enumerate(batch):
        start = time.perf_counter()
        if image.dtype == torch.uint8:
            pixels, ready = image, image.float() / 255
        else:
            low, high = (float(v) for v in image.detach().float().aminmax())
            if not (low >= 0 and high <= 1):
                raise DataError(
                    f"A float tensor has values from {low:g} to {high:g}.",
                    hint="Expected RGB in [0, 1]; divide by 255.",
                )
            ready = image.detach().float()
            pixels = (ready * 255).round().to(torch.uint8)
        hwc = np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())
        yield Frame(hwc, f"image{first + i}.jpg", seconds=time.perf_counter() - start, ready=ready)
