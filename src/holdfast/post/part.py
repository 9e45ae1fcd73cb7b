"""What the parts of a result share: rows of a tensor or array that move, are cut and are walked through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self


class Part:
    """Rows of one image, as a tensor or a numpy array.

    Args:
        data: the rows.
        orig_shape: height and width of the image in pixels.
    """

    def __init__(self, data: Any, orig_shape: tuple[int, int]) -> None:
        self.data = data
        self.orig_shape = orig_shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `data`."""
        return tuple(self.data.shape)

    @property
    def array(self) -> NDArray[Any]:
        """`data` as a numpy array."""
        data: NDArray[Any] = self.data.cpu().numpy() if isinstance(self.data, Tensor) else self.data
        return data

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Returns the rows on another device or in another type (arguments of `torch.Tensor.to`)."""
        return self._with(torch.as_tensor(self.data).to(*args, **kwargs))

    def cpu(self) -> Self:
        """Returns the rows on the CPU."""
        return self._with(self.data.cpu()) if isinstance(self.data, Tensor) else self

    def cuda(self) -> Self:
        """Returns the rows on the current CUDA device."""
        return self.to("cuda")

    def numpy(self) -> Self:
        """Returns the rows as numpy arrays."""
        return self._with(self.array) if isinstance(self.data, Tensor) else self

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> Self:
        return self._with(self.data[index])

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def _with(self, data: Any) -> Self:
        return type(self)(data, self.orig_shape)

    def _like(self, values: Any) -> Any:
        """Numbers in the kind of `data`."""
        if isinstance(self.data, Tensor):
            return torch.as_tensor(values, dtype=self.data.dtype, device=self.data.device)
        return np.asarray(values, dtype=self.data.dtype)

    def _extent(self) -> Any:
        """(2,) width and height."""
        height, width = self.orig_shape
        return self._like([width, height])

    # What an object's entry in texts is made of; parts that say nothing leave these.

    def details(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        """Per object what the summary says of it."""
        return [{} for _ in range(len(self))]
