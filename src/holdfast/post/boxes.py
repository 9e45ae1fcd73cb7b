"""Boxes of one prediction in every format users ask for, as a tensor or a numpy array.

Dimensions: N objects.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from holdfast.geometry.boxes import xyxy_to_cxcywh
from holdfast.geometry.rotated import rotated_corners
from holdfast.post.part import Part


class Rows(Part):
    """Objects with a confidence and a class: `numbers` of a box, [track id,] confidence, class.

    Args:
        data: the rows (N, numbers + 2 or 3).
        orig_shape: height and width of the image in pixels.

    Raises:
        ValueError: the rows have another length.
    """

    numbers: ClassVar[int]
    layout: ClassVar[str]
    corners: ClassVar[int]

    def __init__(self, data: Any, orig_shape: tuple[int, int]) -> None:
        if data.ndim == 1:
            data = data[None]
        if data.shape[-1] - self.numbers not in (2, 3):
            raise ValueError(
                f"{type(self).__name__.lower()} need rows of {self.numbers + 2} or {self.numbers + 3} "
                f"numbers ({self.layout}, [id,] conf, cls), got {tuple(data.shape)}"
            )
        super().__init__(data, orig_shape)

    @property
    def is_track(self) -> bool:
        """Whether the rows carry track ids."""
        return bool(self.data.shape[-1] == self.numbers + 3)

    @property
    def conf(self) -> Any:
        """(N,) confidence in [0, 1]."""
        return self.data[:, -2]

    @property
    def cls(self) -> Any:
        """(N,) class index, as float."""
        return self.data[:, -1]

    @property
    def id(self) -> Any:
        """(N,) track ids, or None."""
        return self.data[:, self.numbers] if self.is_track else None

    @property
    def xyxy(self) -> Any:
        """(N, 4) corners of upright boxes in pixels."""
        raise NotImplementedError

    def places(self, normalize: bool) -> Any:
        """(N, corners, 2) the corners that describe a box, in pixels or as fractions of the image."""
        raise NotImplementedError

    @property
    def label_numbers(self) -> Any:
        """(N, numbers) as fractions of the image, as label files have them."""
        raise NotImplementedError

    def details(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        """The box of each."""
        names = [f"{axis}{i + 1}" for i in range(self.corners) for axis in "xy"]
        places = np.asarray(self.numpy().places(normalize)).reshape(len(self), 2 * self.corners).tolist()
        return [
            {"box": {name: round(v, decimals) for name, v in zip(names, place, strict=True)}}
            for place in places
        ]

    def __repr__(self) -> str:
        track = "id, " if self.is_track else ""
        return f"{type(self).__name__}({len(self)} rows of {self.layout}, {track}conf, cls)"


class Boxes(Rows):
    """Upright boxes of one image.

    Args:
        data: (N, 6) xyxy, confidence, class; or (N, 7) xyxy, track id, confidence, class.
        orig_shape: height and width of the image in pixels.

    Raises:
        ValueError: the rows have another length.
    """

    numbers = 4
    layout = "xyxy"
    corners = 2

    @property
    def xyxy(self) -> Any:
        """(N, 4) corners in pixels."""
        return self.data[:, :4]

    @property
    def xywh(self) -> Any:
        """(N, 4) centre, width and height in pixels."""
        if isinstance(self.data, Tensor):
            return xyxy_to_cxcywh(self.xyxy)
        return xyxy_to_cxcywh(torch.from_numpy(np.ascontiguousarray(self.xyxy))).numpy()

    @property
    def xyxyn(self) -> Any:
        """(N, 4) corners as fractions of the image."""
        return self.xyxy / self._scale()

    @property
    def xywhn(self) -> Any:
        """(N, 4) centre, width and height as fractions of the image."""
        return self.xywh / self._scale()

    def places(self, normalize: bool) -> Any:
        """Top left and bottom right."""
        return self.xyxyn if normalize else self.xyxy

    @property
    def label_numbers(self) -> Any:
        """Centre, width and height."""
        return self.xywhn

    def _scale(self) -> Any:
        height, width = self.orig_shape
        return self._like([width, height, width, height])


class OBB(Rows):
    """Oriented boxes of one image.

    Args:
        data: (N, 7) cx, cy, w, h in pixels, angle in radians, confidence, class; or (N, 8) with the track id
            after the angle.
        orig_shape: height and width of the image in pixels.

    Raises:
        ValueError: the rows have another length.
    """

    numbers = 5
    layout = "xywhr"
    corners = 4

    @property
    def xywhr(self) -> Any:
        """(N, 5) centre, width, height in pixels and the angle by which the box is turned, clockwise."""
        return self.data[:, :5]

    @property
    def xyxyxyxy(self) -> Any:
        """(N, 4, 2) corners in pixels, in order around."""
        if isinstance(self.data, Tensor):
            return rotated_corners(self.xywhr)
        return rotated_corners(torch.from_numpy(np.ascontiguousarray(self.xywhr))).numpy()

    @property
    def xyxyxyxyn(self) -> Any:
        """(N, 4, 2) corners as fractions of the image."""
        return self.xyxyxyxy / self._extent()

    @property
    def xyxy(self) -> Any:
        """(N, 4) the upright boxes around them, in pixels."""
        corners = self.xyxyxyxy
        if isinstance(corners, Tensor):
            return torch.cat((corners.amin(1), corners.amax(1)), 1)
        return np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)

    def places(self, normalize: bool) -> Any:
        """All four."""
        return self.xyxyxyxyn if normalize else self.xyxyxyxy

    @property
    def label_numbers(self) -> Any:
        """(N, 8) all corners."""
        return self.xyxyxyxyn.reshape(len(self), 8)
