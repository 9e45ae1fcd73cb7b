"""Keys that scripts for other programs pass and that are no settings here: what they mean, and what to do.

A key at a value that asks for what happens here anyway, mostly its default there, is taken as said. Any other
value is an error that says what to do instead; so nothing that was asked for is ignored.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import NamedTuple

import yaml


class Foreign(NamedTuple):
    """A key of other programs.

    Attributes:
        idle: values that ask for what happens here anyway; none does always.
        instead: what to do for any other value, one or two sentences.
    """

    idle: tuple[object, ...]
    instead: str


_MASKS = "Masks belong to segmentation models; this version has detection models."
_ONE_VIEW = "A picture is looked at once; a larger --imgsz finds smaller objects."
_TORCH = "Networks run in torch."
_STEPS = "Maps are not drawn; the model is a plain torch module, to which a forward hook can be added."

FOREIGN: Mapping[str, Mapping[str, Foreign]] = types.MappingProxyType({
    "train": {
        "augment": Foreign((False,), "Give the strength of each augmentation, such as --mosaic or --hsv-h."),
        "auto_augment": Foreign(("randaugment",), "Give --autoaugment, which moves boxes too."),
        "classes": Foreign((), "Leave other classes out of the label files, or use --single-cls."),
        "dropout": Foreign((0,), "Dropout belongs to classification models; use --weight-decay."),
        "erasing": Foreign((0.4,), "Erasing belongs to classification models; use --cutmix."),
        "half": Foreign((False,), "Training chooses its number format by --amp and --amp-dtype."),
        "mask_ratio": Foreign((4,), _MASKS),
        "overlap_mask": Foreign((True,), _MASKS),
        "profile": Foreign((False,), "'holdfast val' prints the milliseconds per image of a trained model."),
        "time": Foreign((), "Give --epochs; a run that was stopped goes on with --resume."),
    },
    "val": {
        "agnostic_nms": Foreign((False,), "AP is counted by class; use --single-cls to treat all as one."),
        "augment": Foreign((False,), _ONE_VIEW),
        "classes": Foreign((), "The result has the AP of every class."),
        "dnn": Foreign((False,), _TORCH),
        "visualize": Foreign((False,), _STEPS),
    },
    "predict": {
        "augment": Foreign((False,), _ONE_VIEW),
        "dnn": Foreign((False,), _TORCH),
        "embed": Foreign((), _STEPS),
        "persist": Foreign((False,), "This version detects in each frame by itself and does not track."),
        "retina_masks": Foreign((False,), _MASKS),
        "stream": Foreign((True,), "The command holds one picture at a time in any case."),
        "visualize": Foreign((False,), _STEPS),
    },
})  # fmt: skip


def foreign(verb: str, word: str) -> Foreign | None:
    """What is known about a key of other programs; None where nothing is."""
    return FOREIGN.get(verb, {}).get(word.strip().replace("-", "_"))


def is_idle(verb: str, word: str, value: object) -> bool:
    """Whether a key asks for what happens anyway; its value may be the text of a command line."""
    known = foreign(verb, word)
    if known is None:
        return False
    if isinstance(value, str):
        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return False
    return value in (None, "None", "none", *known.idle)
