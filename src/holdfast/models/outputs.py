"""Typed raw outputs of detection models: what heads hand to losses and to decoding.

The type of a model's outputs says what it is trained with (`losses.criterion`) and how it answers
(`post.decode.answer`); nothing else asks which family a model belongs to.

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
    """Outputs of a detector with one answering branch, in training and in evaluation mode alike.

    Attributes:
        main: the branch that answers at inference, through suppression.
        auxiliary: the PGI branch, present only in training form and training mode (or when asked for).
    """

    main: Branch
    auxiliary: Branch | None = None


class DualOutputs(NamedTuple):
    """Outputs of a detector with two branches that can both answer; a deployed one has kept one of them.

    Attributes:
        one_to_many: several anchors per object; answers through suppression.
        one_to_one: one anchor per object, computed from features without gradient; answers by its best rows.
    """

    one_to_many: Branch | None = None
    one_to_one: Branch | None = None


Outputs = DetectOutputs | DualOutputs
