"""Typed raw outputs of detection models: what heads hand to losses and to decoding.

Dimensions: B batch, C classes, R bins per box side (1 means the distance itself), H W feature height and
    width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Branch(NamedTuple):
    """Raw maps of one head branch, finest level first.

    Attributes:
        boxes: per level (B, 4R, H, W); channels are side-major (left, top, right, bottom), distances in
            stride units.
        scores: per level (B, C, H, W) class logits.
    """

    boxes: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]


class DetectOutputs(NamedTuple):
    """What a detector returns, in training and in evaluation mode alike.

    Attributes:
        main: the branch that answers at inference.
        auxiliary: the PGI branch, present only in training form and training mode (or when asked for).
    """

    main: Branch
    auxiliary: Branch | None = None
