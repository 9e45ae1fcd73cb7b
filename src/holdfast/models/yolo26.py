"""YOLO26 (Ultralytics, 2026): one graph, five sizes, and two heads of the same shape. `yolo26_tasks` adds
masks, keypoints, angles and classes to it.

What is unusual: the one-to-many head teaches backbone and neck; the one-to-one head reads the same maps
without sending gradients back, and learns to give one box per object, so that it needs no suppression.
Distances are predicted directly (one bin per side). The channel cap applies before the width factor, so x is
wider than its cap; in m, l and x every C3k2 has C3k inside, in n and s only the deep ones; the last block has
attention and one repeat at every size.

Dimensions: B batch, H W height and width of the input (multiples of 32), C classes. Maps p3, p4, p5 have
strides 8, 16, 32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn
from typing_extensions import Self

from holdfast.errors import WeightsError
from holdfast.models.detector import Detector
from holdfast.models.heads.detect import DetectHead
from holdfast.models.outputs import DualOutputs
from holdfast.models.published import KeyMap, Layout, layer_numbers
from holdfast.nn.attention import C2PSA, PSABlock
from holdfast.nn.c3 import Bottleneck, C3k, C3k2
from holdfast.nn.conv import Conv
from holdfast.nn.join import join
from holdfast.nn.pool import SPPF, upsample
from holdfast.nn.recompute import Recomputing, detached

STRIDES = (8, 16, 32)

# Numbers of the published layer list.
BACKBONE = (
    "stem1", "stem2", "stage2", "down3", "stage3", "down4", "stage4", "down5", "stage5", "spp", "attention",
)  # fmt: skip
NECK = {"up4": 13, "up3": 16, "down4": 17, "out4": 19, "down5": 20, "out5": 22}
HEAD = 23
# What published heads hold beside the box and class towers, by the ending of the model's name.
PARTS = {
    "": set(),
    "-seg": {"cv4", "proto"},
    "-pose": {"cv4", "cv4_kpts"},
    "-obb": {"cv4"},
}  # fmt: skip
TEACHING = {"flow_model", "cv4_sigma"}  # parts that deployed files lack

@dataclass(frozen=True)
class Spec:
    """One size of the family.

    Attributes:
        width: factor on channels.
        limit: most channels before the factor.
        repeats: inner blocks of a C3k2 and of the attention stage.
        deep: whether C3k is inside every C3k2.
    """

    width: float
    limit: int
    repeats: int
    deep: bool

    def channels(self, published: int) -> int:
        """Channels at this size of a layer the published table gives for width 1: a multiple of 8."""
        return int(-(-min(published, self.limit) * self.width // 8) * 8)


SPECS: Mapping[str, Spec] = {
    "n": Spec(0.25, 1024, 1, deep=False),
    "s": Spec(0.50, 1024, 1, deep=False),
    "m": Spec(1.00, 512, 1, deep=True),
    "l": Spec(1.00, 512, 2, deep=True),
    "x": Spec(1.50, 512, 2, deep=True),
}


class Pyramid(NamedTuple):
    """Maps at strides 8, 16, 32."""

    p3: Tensor
    p4: Tensor
    p5: Tensor


class Backbone(Recomputing):
    """Stem, four stages, spatial pyramid and attention at stride 32.

    Args:
        spec: the size's table row.
        pools: whether there is a spatial pyramid.
    """

    def __init__(self, spec: Spec, *, pools: bool = True) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (spec.channels(c) for c in (64, 128, 256, 512, 1024))
        plain: Literal["bottleneck", "c3k"] = "c3k" if spec.deep else "bottleneck"
        self.stem1 = Conv(3, c1, 3, 2)
        self.stem2 = Conv(c1, c2, 3, 2)
        self.stage2 = _block(c2, c3, spec, narrow=4, inner=plain)
        self.down3 = Conv(c3, c3, 3, 2)
        self.stage3 = _block(c3, c4, spec, narrow=4, inner=plain)
        self.down4 = Conv(c4, c4, 3, 2)
        self.stage4 = _block(c4, c4, spec)
        self.down5 = Conv(c4, c5, 3, 2)
        self.stage5 = _block(c5, c5, spec)
        self.spp = SPPF(c5) if pools else nn.Identity()
        self.attention = C2PSA(c5, depth=spec.repeats)

    def forward(self, x: Tensor) -> Pyramid:
        x = self.stage(self.stage(x, self.stem1, self.stem2), self.stage2)  # stride 4
        p3 = self.stage(x, self.down3, self.stage3)
        del x
        p4 = self.stage(p3, self.down4, self.stage4)
        p5 = self.stage(p4, self.down5, self.stage5, self.spp, self.attention)
        return Pyramid(p3, p4, p5)


class Neck(Recomputing):
    """Coarse context carried down to strides 16 and 8, then fine detail back up to strides 16 and 32."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        c3, c4, c5 = self.widths = tuple(spec.channels(c) for c in (256, 512, 1024))
        self.up4 = _block(c5 + c4, c4, spec)
        self.up3 = _block(c4 + c4, c3, spec)
        self.down4 = Conv(c3, c3, 3, 2)
        self.out4 = _block(c3 + c4, c4, spec)
        self.down5 = Conv(c4, c4, 3, 2)
        self.out5 = _block(c4 + c5, c5, spec, inner="attention")

    def forward(self, pyramid: Pyramid) -> Pyramid:
        n4 = self.stage(join((upsample(pyramid.p5), pyramid.p4)), self.up4)
        p3 = self.stage(join((upsample(n4), pyramid.p3)), self.up3)
        p4 = self.stage(join((self.stage(p3, self.down4), n4)), self.out4)
        del n4
        p5 = self.stage(join((self.stage(p4, self.down5), pyramid.p5)), self.out5)
        return Pyramid(p3, p4, p5)


class YOLO26(Detector):
    """A YOLO26 detector.

    Args:
        name: published name, "yolo26n".
        spec: the size's table row.
        classes: number of classes.
        names: class names by index.
        class_width: hidden width of the class towers; None for the rule. Fine-tuned files keep the width of
            the model they came from.
        extra: makes what the heads say beyond boxes, from the channels of the levels.
    """

    family = "YOLO26"
    published = tuple(f"yolo26{size}" for size in SPECS)
    default = "yolo26n"
    strides = STRIDES
    reg_max = 1
    outputs = DualOutputs
    long_run_optimizer = "MuSGD"

    def __init__(
        self,
        name: str,
        spec: Spec,
        *,
        classes: int,
        names: Mapping[int, str],
        class_width: int | None = None,
        extra: Callable[[Sequence[int]], nn.Module] | None = None,
    ) -> None:
        super().__init__(name, classes=classes, names=names)
        self.backbone = Backbone(spec)
        self.neck = Neck(spec)
        widths = self.neck.widths
        more = (lambda: extra(widths)) if extra is not None else (lambda: None)
        self.one_to_many: DetectHead | None = _head(widths, classes, class_width, more())
        self.one_to_one: DetectHead | None = _head(widths, classes, class_width, more())

    @classmethod
    def build(
        cls,
        name: str,
        *,
        classes: int,
        names: Mapping[int, str],
        class_width: int | None = None,
        box_groups: int | None = None,
    ) -> Self:
        """Box towers have no groups in this family."""
        if box_groups not in (None, 1):
            raise ValueError(f"{name} has no grouped box towers, but box_groups={box_groups}")
        return cls(name, spec_of(name), classes=classes, names=names, class_width=class_width)

    def forward(self, x: Tensor) -> DualOutputs:
        """Raw maps of every branch the model has.

        Args:
            x: (B, 3, H, W) RGB in [0, 1]; H and W multiples of 32.
        """
        pyramid = self.neck(self.backbone(x))
        many = self.one_to_many(pyramid) if self.one_to_many is not None else None
        one = self.one_to_one([detached(p) for p in pyramid]) if self.one_to_one is not None else None
        return DualOutputs(many, one)

    @staticmethod
    def recognise(tensors: Mapping[str, Tensor]) -> Layout | None:
        """The first convolution and the number of inner blocks give the size, parts of the head the task."""
        head = {key.split(".")[2] for key in tensors if key.startswith(f"model.{HEAD}.")}
        kept = [branch for branch in ("", "one2one_") if {f"{branch}cv2", f"{branch}cv3"} <= head]
        if not kept or max(layer_numbers(tensors)) != HEAD:
            return None
        many = f"model.{HEAD}.{kept[0]}"
        box, hidden, last = (
            tensors.get(f"{many}{key}.weight") for key in ("cv2.0.2", "cv3.0.0.1.conv", "cv3.0.2")
        )
        if box is None or len(box) != 4 or hidden is None or last is None:  # more distances: an older family
            return None
        parts = {part.removeprefix("one2one_") for part in head} - {"cv2", "cv3"} - TEACHING
        task = next((task for task, wanted in PARTS.items() if parts == wanted), None)
        size = size_of(tensors)
        if size is None or task is None:
            return None
        return Layout(
            name=f"yolo26{size}{task}",
            classes=len(last),
            class_width=len(hidden),
            keypoints=_keypoints(tensors, many),
            folded=f"{many}cv3.0.0.1.conv.bias" in tensors,
            branch=None if len(kept) == 2 else "one_to_one" if kept[0] else "one_to_many",
        )

    @staticmethod
    def keymap(layout: str) -> KeyMap:
        """All sizes have one layer list; 11, 12, 14, 15, 18 and 21 hold no weights."""
        return keymap({})

    @property
    def compatible(self) -> tuple[str, ...]:
        """A model for another task also takes backbone, neck, boxes and classes of a detector of its size."""
        detector, _, task = self.name.partition("-")
        return (self.name, detector) if task else (self.name,)

    @property
    def header(self) -> dict[str, object]:
        """Also says which branch a deployed model has kept."""
        (branch, *others) = self.heads
        return {**super().header, "branch": None if others else branch}

    @property
    def loss_modules(self) -> tuple[str, ...]:
        """The one-to-one head reads features without gradient: no other loss reaches it, and it no other."""
        return ("one_to_one",) if len(self.heads) > 1 else ()

    def spare(self, nms: bool | None) -> tuple[str, ...]:
        """The branch that does not answer: one-to-many unless `nms` asks for it."""
        wanted = "one_to_many" if nms else "one_to_one"
        if self.deployed and nms is not None and wanted not in self.heads:
            (kept,) = self.heads
            raise WeightsError(
                f"This deployed {self.name} has kept its {kept.replace('_', '-')} branch only, so nms={nms} "
                "is not possible.",
                hint="Use the training-form file (best.pt or last.pt of a run, or the published file).",
            )
        return ("one_to_one",) if nms else ("one_to_many",)


def _block(
    c1: int,
    c2: int,
    spec: Spec,
    *,
    narrow: int = 2,
    inner: Literal["bottleneck", "c3k", "attention"] = "c3k",
) -> C3k2:
    """A C3k2 whose halves have c2 / narrow channels."""
    if inner == "attention":
        return C3k2(
            c1, c2, hidden=c2 // narrow, depth=1,
            inner=lambda c: nn.Sequential(Bottleneck(c, hidden=c // 2), PSABlock(c)),
        )  # fmt: skip
    make = C3k if inner == "c3k" else lambda c: Bottleneck(c, hidden=c // 2)
    return C3k2(c1, c2, hidden=c2 // narrow, depth=spec.repeats, inner=make)


def spec_of(name: str) -> Spec:
    """The table row of a model name, "yolo26n" or "yolo26n-seg"."""
    return SPECS[name.removeprefix("yolo26")[0]]


def size_of(tensors: Mapping[str, Tensor]) -> str | None:
    """The letter of the size that published tensors have."""
    first = tensors.get("model.0.conv.weight")
    deep = "model.2.m.1.cv1.conv.weight" in tensors
    widths = {16: "n", 32: "s", 64: "l" if deep else "m", 96: "x"}
    return None if first is None else widths.get(len(first))


def keymap(more: Mapping[str, str]) -> KeyMap:
    """The layer list of all models with this neck.

    Args:
        more: our names of further parts to the published ones, in the published order.
    """
    parts = {"one_to_many.box": "cv2", "one_to_many.cls": "cv3"}
    parts |= {"one_to_one.box": "one2one_cv2", "one_to_one.cls": "one2one_cv3"}
    return KeyMap(
        (
            *((f"backbone.{name}.", f"model.{number}.") for number, name in enumerate(BACKBONE)),
            *((f"neck.{name}.", f"model.{number}.") for name, number in NECK.items()),
            *((f"{ours}.", f"model.{HEAD}.{theirs}.") for ours, theirs in (parts | dict(more)).items()),
        )
    )


def _keypoints(tensors: Mapping[str, Tensor], head: str) -> tuple[int, int] | None:
    """Number of keypoints and numbers per keypoint, where there are any.

    Deployed files lack the layers of which this follows; numbers are three there wherever that divides.
    """
    points, sigmas = (tensors.get(f"{head}{part}.0.weight") for part in ("cv4_kpts", "cv4_sigma"))
    if points is None:
        return None
    count = len(points)
    dims = 3 if count % 3 == 0 else 2
    return (count // dims, dims) if sigmas is None else (len(sigmas) // 2, 2 * count // len(sigmas))


def _head(
    widths: tuple[int, ...], classes: int, class_width: int | None, extra: nn.Module | None
) -> DetectHead:
    """Both hidden widths follow the finest level's width, for all three levels."""
    box_width = max(16, widths[0] // 4)
    class_width = class_width or max(widths[0], min(classes, 100))
    return DetectHead(
        (_box_tower(w, box_width) for w in widths),
        (_class_tower(w, class_width, classes) for w in widths),
        strides=STRIDES,
        box_start=2.0,
        extra=extra,
    )


def _box_tower(c1: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(Conv(c1, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, 4, 1))


def _class_tower(c1: int, hidden: int, classes: int) -> nn.Sequential:
    """Light: a depthwise 3x3 and a 1x1 convolution in place of each dense 3x3."""
    return nn.Sequential(
        nn.Sequential(Conv(c1, c1, 3, groups=c1), Conv(c1, hidden)),
        nn.Sequential(Conv(hidden, hidden, 3, groups=hidden), Conv(hidden, hidden)),
        nn.Conv2d(hidden, classes, 1),
    )
