"""How tensors of a model are named in published files, and what a published file's tensors say about it.

The programs that publish weights number the layers of a flat list (`model.4.cv1.conv.weight`); ours name
stages (`backbone.stage3.cv1.conv.weight`). Behind the layer the names are the same, so a table of prefixes is
the whole map. Every family writes its own table and its own way to recognise itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

DETECTION_ONLY = "Of this family there are detection models only."


@dataclass(frozen=True)
class KeyMap:
    """Prefix pairs of one published layer list.

    Attributes:
        pairs: (our prefix, published prefix), in the published order; none is a prefix of another.
        constants: our names of tensors that published files hold and our models compute: the bins 0..R-1 of a
            head's distribution. They are written on the way out and checked on the way in.
    """

    pairs: tuple[tuple[str, str], ...]
    constants: tuple[str, ...] = ()

    def to_official(self, key: str) -> str:
        """The published name of our tensor `key`. Raises KeyError for a name outside the map."""
        return _swap(key, ((ours, theirs) for ours, theirs in self.pairs))

    def to_ours(self, key: str) -> str:
        """Our name of the published tensor `key`. Raises KeyError for a name outside the map."""
        return _swap(key, ((theirs, ours) for ours, theirs in self.pairs))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What published tensors say about the model they belong to.

    Attributes:
        name: the model to build for them; "gelan-s" also for a yolov9-s whose auxiliary branch was removed.
        classes: number of classes.
        class_width: hidden width of the class towers; None where a model has none.
        box_groups: groups of the last box convolutions.
        keypoints: keypoints per object and numbers per keypoint; None where a model has none.
        folded: whether batch norm was folded away.
        branch: the one branch that the file has kept, where the family has several that can answer.
    """

    name: str
    classes: int
    class_width: int | None
    box_groups: int | None = 1
    keypoints: tuple[int, int] | None = None
    folded: bool = False
    branch: str | None = None


def layer_numbers(tensors: Mapping[str, Tensor]) -> set[int]:
    """Numbers of the layers that hold tensors."""
    return {int(found[1]) for key in tensors if (found := re.match(r"model\.(\d+)\.", key))}


def _swap(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        if key.startswith(old):
            return new + key[len(old) :]
    raise KeyError(key)
