"""Typed raw outputs of models: what heads hand to losses and to decoding.

The type of a model's outputs, and of what its branches say beyond boxes, says what it is trained with
(`losses.criterion`) and how it answers (`post.decode.answer`); nothing else asks for a family or a task.

Dimensions: B batch, C classes, R bins per box side (1 means the distance itself), M prototypes, K keypoints,
    H W feature height and width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Masks(NamedTuple):
    """What a branch says about outlines: an object's mask is its coefficients times the prototypes, above 0.

    Attributes:
        coefficients: per level (B, M, H, W), raw.
        prototypes: (B, M, H, W) at stride 4, shared by the objects of an image; without gradient in a
            one-to-one branch.
        semantic: (B, C, H, W) class logits at stride 8, which only teach; in training mode.
    """

    coefficients: tuple[Tensor, ...]
    prototypes: Tensor
    semantic: Tensor | None = None


class Keypoints(NamedTuple):
    """What a branch says about keypoints.

    Attributes:
        points: per level (B, K D, H, W); per keypoint x and y as distances from the anchor in stride units
            and, where D is 3, the logit of being labelled.
        sigmas: per level (B, 2K, H, W), logits of the errors to expect in x and y; in training mode.
        log_density: maps errors (N, 2) in units of sigma to the logarithm of their density (N,); a part of
            the model that learns with it; in training mode.
        dims: D.
    """

    points: tuple[Tensor, ...]
    sigmas: tuple[Tensor, ...] | None = None
    log_density: Callable[[Tensor], Tensor] | None = None
    dims: int = 3


class Angles(NamedTuple):
    """What a branch says about the direction of boxes.

    Attributes:
        angles: per level (B, 1, H, W) radians, clockwise in the image, by which the box is turned. Distances
            of the branch are then those in the box's own frame.
    """

    angles: tuple[Tensor, ...]


Extra = Masks | Keypoints | Angles


class Branch(NamedTuple):
    """Raw maps of one head branch, finest level first.

    Attributes:
        boxes: per level (B, 4R, H, W); channels are side-major (left, top, right, bottom), distances in
            stride units.
        scores: per level (B, C, H, W) class logits.
        extra: what the branch says beyond boxes; its type is the model's task.
    """

    boxes: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]
    extra: Extra | None = None


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


class ClassOutputs(NamedTuple):
    """Outputs of a classifier.

    Attributes:
        logits: (B, C).
    """

    logits: Tensor


class Decoded(NamedTuple):
    """Every anchor as an exported file gives it, decoded already; answers through suppression.

    Attributes:
        boxes: (B, A, 4) float32 xyxy in input pixels.
        scores: (B, A, C) float32 probabilities.
    """

    boxes: Tensor
    scores: Tensor


class Rows(NamedTuple):
    """What an exported file gives that needs no suppression, or did it itself.

    Attributes:
        rows: (B, n, 6) float32 xyxy in input pixels, score, class, by falling score; filled up with score 0.
    """

    rows: Tensor


Outputs = DetectOutputs | DualOutputs | ClassOutputs
FileOutputs = Decoded | Rows
