"""Pictures on their way out: into a file, or onto the screen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def open_in_viewer(image: NDArray[np.uint8], title: str) -> bool:
    """Hands a BGR image to the first viewer that Pillow finds."""
    from PIL import Image, ImageShow

    return ImageShow.show(Image.fromarray(np.ascontiguousarray(image[..., ::-1])), title=title)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes a BGR image; through memory, because OpenCV does not open every non-ASCII path."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    good, data = cv2.imencode(path.suffix or ".jpg", image)
    if not good:
        raise OSError(f"{path}: the picture cannot be encoded as {path.suffix or '.jpg'}")
    path.write_bytes(data.tobytes())
