"""Class probabilities of one image.

Dimensions: C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from holdfast.post.part import Part

SHOWN = 5


class Probs(Part):
    """What a classifier says of an image.

    Args:
        data: (C,) probabilities.
        orig_shape: height and width of the image in pixels.
    """

    def __init__(self, data: Any, orig_shape: tuple[int, int] = (0, 0)) -> None:
        super().__init__(data, orig_shape)

    @property
    def top5(self) -> list[int]:
        """The five most probable classes, or all if there are fewer, most probable first."""
        falling: list[int] = np.argsort(-self.array.astype(np.float64), kind="stable")[:SHOWN].tolist()
        return falling

    @property
    def top1(self) -> int:
        """The most probable class."""
        return self.top5[0]

    @property
    def top1conf(self) -> Any:
        """Its probability."""
        return self.data[self.top1]

    @property
    def top5conf(self) -> Any:
        """The probabilities of `top5`."""
        return self.data[self.top5]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Probs:
        return self

    def __repr__(self) -> str:
        return f"Probs({len(self.data)} classes, the first {self.top1})"
