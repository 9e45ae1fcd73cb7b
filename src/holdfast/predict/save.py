"""What a prediction run writes: annotated pictures and videos, label files, crops.

Names follow the source's stem. Two files of one stem (`a/1.jpg` and `b/1.png`) do not overwrite each other:
the second becomes `1_2`. Frames of a video share its stem; their label files end in the frame number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from holdfast.errors import DataError
from holdfast.post.results import Results
from holdfast.predict.source import Frame, is_stream

# What OpenCV writes without loss of meaning; everything else is saved as JPEG.
WRITABLE = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))


class Saver:
    """Writes results into one run folder, as they come.

    Args:
        folder: the run folder; it exists.
        pictures: write annotated pictures and videos.
        txt: write `labels/<stem>.txt`.
        conf: add the confidence to label rows.
        crops: write `crops/<class>/<stem>.jpg`.
        look: how pictures are drawn, options of `Results.plot`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pictures: bool,
        txt: bool = False,
        conf: bool = False,
        crops: bool = False,
        look: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.pictures, self.txt, self.conf, self.crops = pictures, txt, conf, crops
        self.look = look
        self.labels = 0
        self._stems: dict[str, str] = {}
        self._taken: set[str] = set()
        self._video: _Video | None = None

    def save(self, frame: Frame, result: Results) -> None:
        """Writes everything that was asked for about one picture."""
        stem = self._stem(frame)
        numbered = stem if frame.video is None else f"{stem}_{frame.video.at}"
        if self.txt and len(result):
            labels = self.folder / "labels"
            labels.mkdir(exist_ok=True)
            target = labels / f"{numbered}.txt"
            target.unlink(missing_ok=True)  # rows are appended, and --exist-ok may find an older run's file
            result.save_txt(target, save_conf=self.conf)
            self.labels += 1
        if self.crops and len(result):
            result.save_crop(self.folder / "crops", file_name=f"{numbered}.jpg")
        if self.pictures:
            if frame.video is None:
                suffix = Path(frame.path).suffix.lower()
                result.save(self.folder / f"{stem}{suffix if suffix in WRITABLE else '.jpg'}", **self.look)
            else:
                self._write_frame(frame, stem, result.plot(**self.look))

    def close(self) -> None:
        """Finishes the video that is open."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def _stem(self, frame: Frame) -> str:
        if frame.path not in self._stems:
            base = "stream" if is_stream(frame.path) else Path(frame.path).stem
            stem, number = base, 1
            # Lower case, because some file systems do not tell A.jpg from a.jpg.
            while stem.lower() in self._taken:
                number += 1
                stem = f"{base}_{number}"
            self._taken.add(stem.lower())
            self._stems[frame.path] = stem
        return self._stems[frame.path]

    def _write_frame(self, frame: Frame, stem: str, drawn: NDArray[np.uint8]) -> None:
        assert frame.video is not None
        if self._video is None or self._video.source != frame.path:
            self.close()
            self._video = _Video(
                self.folder / f"{stem}.mp4", frame.path, frame.video.fps, drawn.shape[1], drawn.shape[0]
            )
        self._video.write(drawn)


class _Video:
    """One mp4 file being written."""

    def __init__(self, path: Path, source: str, fps: float, width: int, height: int) -> None:
        self.source = source
        self.size = (width, height)
        self.writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, self.size)
        if not self.writer.isOpened():
            raise DataError(
                "the annotated video cannot be written.",
                path=path,
                hint="Check the disk, or switch off --save.",
            )

    def write(self, image: NDArray[np.uint8]) -> None:
        if (image.shape[1], image.shape[0]) != self.size:  # streams may change size in the middle
            image = np.asarray(cv2.resize(image, self.size), np.uint8)
        self.writer.write(image)

    def close(self) -> None:
        self.writer.release()
