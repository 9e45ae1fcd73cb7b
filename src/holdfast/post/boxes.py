"""Boxes of one prediction in every format users ask for, as a tensor or a numpy array.

Dimensions: N objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.geometry.boxes import xyxy_to_cxcywh


class Boxes:
    """Boxes of one image, as a tensor or a numpy array.

    Args:
        data: (N, 6) xyxy, confidence, class; or (N, 7) xyxy, track id, confidence, class.
        orig_shape: height and width of the image in pixels.

    Raises:
        ValueError: the rows have another length.
    """

    def __init__(self, data: Any, orig_shape: tuple[int, int]) -> None:
        if data.ndim == 1:
            data = data[None]
        if data.shape[-1] not in (6, 7):
            raise ValueError(
                f"boxes need rows of 6 or 7 numbers (xyxy, [id,] conf, cls), got {tuple(data.shape)}"
            )
        self.data = data
        self.orig_shape = orig_shape

    @property
    def is_track(self) -> bool:
        """Whether the rows carry track ids."""
        return bool(self.data.shape[-1] == 7)

    @property
    def xyxy(self) -> Any:
        """(N, 4) corners in pixels."""
        return self.data[:, :4]

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
        return self.data[:, 4] if self.is_track else None

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

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `data`."""
        return tuple(self.data.shape)

    def _scale(self) -> Any:
        height, width = self.orig_shape
        if isinstance(self.data, Tensor):
            return self.data.new_tensor([width, height, width, height])
        return np.array([width, height, width, height], dtype=self.data.dtype)

    def to(self, *args: Any, **kwargs: Any) -> Boxes:
        """Returns the boxes on another device or in another type (arguments of `torch.Tensor.to`)."""
        return Boxes(torch.as_tensor(self.data).to(*args, **kwargs), self.orig_shape)

    def cpu(self) -> Boxes:
        """Returns the boxes on the CPU."""
        return Boxes(self.data.cpu(), self.orig_shape) if isinstance(self.data, Tensor) else self

    def cuda(self) -> Boxes:
        """Returns the boxes on the current CUDA device."""
        return self.to("cuda")

    def numpy(self) -> Boxes:
        """Returns the boxes as numpy arrays."""
        return Boxes(self.data.cpu().numpy(), self.orig_shape) if isinstance(self.data, Tensor) else self

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Boxes:
        return Boxes(self.data[index], self.orig_shape)

    def __iter__(self) -> Iterator[Boxes]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Boxes({len(self)} rows of {'xyxy, id, conf, cls' if self.is_track else 'xyxy, conf, cls'})"
