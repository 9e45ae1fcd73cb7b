"""Keypoints of one prediction.

Dimensions: N objects, K keypoints of D numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.post.part import Part


class Keypoints(Part):
    """Keypoints of one image.

    Args:
        data: (N, K, D): x and y in pixels and, where D is 3, the confidence that it can be seen or told.
        orig_shape: height and width of the image in pixels.
    """

    def __init__(self, data: Any, orig_shape: tuple[int, int]) -> None:
        super().__init__(data[None] if data.ndim == 2 else data, orig_shape)

    @property
    def has_visible(self) -> bool:
        """Whether there are confidences."""
        return bool(self.data.shape[-1] == 3)

    @property
    def xy(self) -> Any:
        """(N, K, 2) places in pixels."""
        return self.data[..., :2]

    @property
    def xyn(self) -> Any:
        """(N, K, 2) places as fractions of the image."""
        return self.xy / self._extent()

    @property
    def conf(self) -> Any:
        """(N, K) confidences in [0, 1], or None."""
        return self.data[..., 2] if self.has_visible else None

    def details(self, normalize: bool, decimals: int) -> list[dict[str, Any]]:
        """The keypoints of each, by number."""
        own = self.numpy()
        rows = []
        for place, data in zip(own.xyn if normalize else own.xy, own.data, strict=True):
            columns = {"x": place[:, 0], "y": place[:, 1]}
            if self.has_visible:
                columns["visible"] = data[:, 2]
            numbers = {name: [round(float(v), decimals) for v in column] for name, column in columns.items()}
            rows.append({"keypoints": numbers})
        return rows

    @property
    def label_numbers(self) -> Any:
        """(N, K D) as fractions of the image and confidences, as label files have them."""
        own = self.numpy()
        numbers = np.concatenate((own.xyn, own.data[..., 2:]), axis=-1)
        return numbers.reshape(len(self), self.data.shape[1] * self.data.shape[2])

    def __repr__(self) -> str:
        return f"Keypoints({len(self)} objects of {self.data.shape[1]}x{self.data.shape[2]})"
