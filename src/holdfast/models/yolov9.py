"""YOLOv9 and GELAN (arXiv 2402.13616): one table of variants, explicit stages.

What is unusual: a training model (yolov9-*) carries an auxiliary branch with its own head (PGI). t, s and e
hang a second top-down neck on the backbone; m and c read the image again through a reversible branch. It is
dropped by `deploy`, which leaves the gelan-* graph with merged kernels. The backbone of e is double, and both
halves stay. The released t has a class branch 128 wide (2.41 M parameters) though the paper's table counts
2.0 M; files of the smaller kind have 80.

Dimensions: B batch, H W height and width of the input (multiples of 32), C classes. Maps p1..p5 have strides
2..32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn
from typing_extensions import Self

from holdfast.errors import SettingsError
from holdfast.models import yolov9_published
from holdfast.models.detector import Detector
from holdfast.models.heads.detect import DetectHead
from holdfast.models.outputs import Branch, DetectOutputs
from holdfast.nn.bridge import CBLinear, cb_fuse
from holdfast.nn.conv import Conv
from holdfast.nn.elan import ELAN1, RepNCSPELAN4
from holdfast.nn.join import join
from holdfast.nn.pool import SPPELAN, AConv, ADown, upsample
from holdfast.nn.recompute import Recomputing

STRIDES = (8, 16, 32)
REG_MAX = 16


@dataclass(frozen=True)
class Block:
    """An aggregation block: output width, width split in two, branch width, bottlenecks (0: ELAN1)."""

    width: int
    split: int
    branch: int
    depth: int

    def build(self, c1: int) -> nn.Module:
        if self.depth == 0:
            return ELAN1(c1, self.width, split=self.split, branch=self.branch)
        return RepNCSPELAN4(c1, self.width, split=self.split, branch=self.branch, depth=self.depth)


@dataclass(frozen=True)
class Spec:
    """One size of the family.

    Attributes:
        stem: widths of the two stride-2 convolutions.
        down: the block that halves a map.
        stages: blocks at strides 4, 8, 16, 32.
        downs: widths of the halvings in front of the last three stages.
        pyramid: output and split width of SPPELAN.
        neck: top-down blocks at strides 16 and 8, then bottom-up blocks at strides 16 and 32.
        neck_downs: widths of the bottom-up halvings.
        auxiliary: what the training form adds.
        twin: whether the backbone is double.
    """

    stem: tuple[int, int]
    down: type[AConv | ADown]
    stages: tuple[Block, Block, Block, Block]
    downs: tuple[int, int, int]
    pyramid: tuple[int, int]
    neck: tuple[Block, Block, Block, Block]
    neck_downs: tuple[int, int]
    auxiliary: Literal["neck", "reversible"]
    twin: bool = False


_T = Block(64, 64, 32, 3), Block(96, 96, 48, 3), Block(128, 128, 64, 3)
_S = Block(128, 128, 64, 3), Block(192, 192, 96, 3), Block(256, 256, 128, 3)
_M = Block(240, 240, 120, 1), Block(360, 360, 180, 1), Block(480, 480, 240, 1)
_C = Block(256, 256, 128, 1), Block(512, 256, 128, 1), Block(512, 512, 256, 1)
_E = Block(256, 256, 128, 2), Block(512, 256, 128, 2), Block(512, 512, 256, 2), Block(1024, 512, 256, 2)

SPECS: Mapping[str, Spec] = {
    "t": Spec((16, 32), AConv, (Block(32, 32, 16, 0), *_T), (64, 96, 128),
              (128, 64), (_T[1], _T[0], _T[1], _T[2]), (48, 64), "neck"),
    "s": Spec((32, 64), AConv, (Block(64, 64, 32, 0), *_S), (128, 192, 256),
              (256, 128), (_S[1], _S[0], _S[1], _S[2]), (96, 128), "neck"),
    "m": Spec((32, 64), AConv, (Block(128, 128, 64, 1), *_M), (240, 360, 480),
              (480, 240), (_M[1], _M[0], _M[1], _M[2]), (180, 240), "reversible"),
    "c": Spec((64, 128), ADown, (Block(256, 128, 64, 1), _C[1], _C[2], _C[2]), (256, 512, 512),
              (512, 256), (_C[2], _C[0], _C[2], _C[2]), (256, 512), "reversible"),
    "e": Spec((64, 128), ADown, (Block(256, 128, 64, 2), _E[1], _E[3], _E[3]), (256, 512, 1024),
              (512, 256), (_E[2], _E[0], _E[2], Block(512, 1024, 512, 2)), (256, 512), "neck", twin=True),
}  # fmt: skip


class HeadShape(NamedTuple):
    """What of a head published files differ in.

    Attributes:
        class_width: hidden width of the class towers; None for the rule.
        box_groups: groups of the last two box convolutions. Official files have 4, so each group owns one
            side of the box; those of the Ultralytics program have 1.
    """

    class_width: int | None
    box_groups: int


def rounded(width: int, classes: int) -> int:
    """Width as published models really have it: the next multiple of 8, unless it equals 3 * (classes + 5).

    Only the first bottom-up halving of m notices: 180 becomes 184, but stays 180 with exactly 55 classes.
    """
    return width if width == 3 * (classes + 5) else -(-width // 8) * 8


class Pyramid(NamedTuple):
    """Maps at strides 8, 16, 32."""

    p3: Tensor
    p4: Tensor
    p5: Tensor


class Backbone(Recomputing):
    """Stem and four stages. Returns the pyramid twice: for the neck and for the auxiliary branch."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        w1, w2 = spec.stem
        stage2, stage3, stage4, stage5 = spec.stages
        down3, down4, down5 = spec.downs
        self.stem1 = Conv(3, w1, 3, 2)
        self.stem2 = Conv(w1, w2, 3, 2)
        self.stage2 = stage2.build(w2)
        self.down3 = spec.down(stage2.width, down3)
        self.stage3 = stage3.build(down3)
        self.down4 = spec.down(stage3.width, down4)
        self.stage4 = stage4.build(down4)
        self.down5 = spec.down(stage4.width, down5)
        self.stage5 = stage5.build(down5)

    def forward(self, x: Tensor) -> tuple[Pyramid, Pyramid]:
        x = self.stage(self.stage(x, self.stem1, self.stem2), self.stage2)  # stride 4
        p3 = self.stage(x, self.down3, self.stage3)
        del x
        p4 = self.stage(p3, self.down4, self.stage4)
        p5 = self.stage(p4, self.down5, self.stage5)
        pyramid = Pyramid(p3, p4, p5)
        return pyramid, pyramid


class TwinBackbone(Recomputing):
    """Two backbones over the same image; the first offers each level to that and all finer levels.

    Returns the second's pyramid for the neck and the first's for the auxiliary branch.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        stem1, stem2 = spec.stem
        # What level i of the second backbone adds to, at strides 2, 4, 8, 16, 32.
        entries = stem1, stem2, *spec.downs
        self.first = Backbone(spec)
        widths = stem1, *(stage.width for stage in spec.stages)
        self.links = nn.ModuleList(CBLinear(w, entries[: i + 1]) for i, w in enumerate(widths))
        self.second = Backbone(spec)

    def forward(self, x: Tensor) -> tuple[Pyramid, Pyramid]:
        a, b = self.first, self.second
        p1 = self.stage(x, a.stem1)
        p2 = self.stage(p1, a.stem2, a.stage2)
        p3 = self.stage(p2, a.down3, a.stage3)
        p4 = self.stage(p3, a.down4, a.stage4)
        first = Pyramid(p3, p4, self.stage(p4, a.down5, a.stage5))
        # offers[level] collects, finest source first, what that level of the second backbone adds.
        offers: list[list[Tensor]] = [[] for _ in self.links]
        for link, source in zip(self.links, (p1, p2, *first), strict=True):
            for level, part in enumerate(link(source)):
                offers[level].append(part)
        del p1, p2, p3, p4, source, part

        y = cb_fuse(self.stage(x, b.stem1), offers.pop(0))
        y = self.stage(cb_fuse(self.stage(y, b.stem2), offers.pop(0)), b.stage2)
        p3 = self.stage(cb_fuse(self.stage(y, b.down3), offers.pop(0)), b.stage3)
        del y
        p4 = self.stage(cb_fuse(self.stage(p3, b.down4), offers.pop(0)), b.stage4)
        p5 = self.stage(cb_fuse(self.stage(p4, b.down5), offers.pop(0)), b.stage5)
        return Pyramid(p3, p4, p5), first


class TopDown(Recomputing):
    """Spatial pyramid at stride 32, then coarse context carried down to strides 16 and 8."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        _, w3, w4, w5 = (stage.width for stage in spec.stages)
        up4, up3 = spec.neck[:2]
        width, split = spec.pyramid
        self.spp = SPPELAN(w5, width, split=split)
        self.up4 = up4.build(width + w4)
        self.up3 = up3.build(up4.width + w3)

    def forward(self, pyramid: Pyramid) -> Pyramid:
        n5 = self.stage(pyramid.p5, self.spp)
        n4 = self.stage(join((upsample(n5), pyramid.p4)), self.up4)
        n3 = self.stage(join((upsample(n4), pyramid.p3)), self.up3)
        return Pyramid(n3, n4, n5)


class Neck(TopDown):
    """Top-down path, then fine detail carried back up to strides 16 and 32."""

    def __init__(self, spec: Spec, *, classes: int) -> None:
        super().__init__(spec)
        up4, up3, out4, out5 = spec.neck
        down4, down5 = (rounded(width, classes) for width in spec.neck_downs)
        self.down4 = spec.down(up3.width, down4)
        self.out4 = out4.build(down4 + up4.width)
        self.down5 = spec.down(out4.width, down5)
        self.out5 = out5.build(down5 + spec.pyramid[0])

    def forward(self, pyramid: Pyramid) -> Pyramid:
        p3, n4, n5 = super().forward(pyramid)
        p4 = self.stage(join((self.stage(p3, self.down4), n4)), self.out4)
        del n4
        p5 = self.stage(join((self.stage(p4, self.down5), n5)), self.out5)
        return Pyramid(p3, p4, p5)


class AuxiliaryNeck(nn.Module):
    """Auxiliary branch of t, s, e: a second top-down path on the first backbone's maps, with its own head."""

    def __init__(self, spec: Spec, *, classes: int, shape: HeadShape) -> None:
        super().__init__()
        self.neck = TopDown(spec)
        widths = spec.neck[1].width, spec.neck[0].width, spec.pyramid[0]
        self.head = _head(widths, classes=classes, shape=shape)

    def forward(self, image: Tensor, pyramid: Pyramid) -> Branch:
        branch: Branch = self.head(self.neck(pyramid))
        return branch


class AuxiliaryReversible(Recomputing):
    """Auxiliary branch of m, c: reads the image again, and adds the backbone's maps before each stage."""

    def __init__(self, spec: Spec, *, classes: int, shape: HeadShape) -> None:
        super().__init__()
        _, w3, w4, w5 = (stage.width for stage in spec.stages)
        widths = w3, w4, w5
        self.links = nn.ModuleList(CBLinear(w, spec.downs[: i + 1]) for i, w in enumerate(widths))
        self.backbone = Backbone(spec)
        self.head = _head(widths, classes=classes, shape=shape)

    def forward(self, image: Tensor, pyramid: Pyramid) -> Branch:
        offers: list[list[Tensor]] = [[] for _ in self.links]
        for link, source in zip(self.links, pyramid, strict=True):
            for level, part in enumerate(link(source)):
                offers[level].append(part)
        b = self.backbone
        x = self.stage(self.stage(image, b.stem1, b.stem2), b.stage2)
        a3 = self.stage(cb_fuse(self.stage(x, b.down3), offers.pop(0)), b.stage3)
        del x
        a4 = self.stage(cb_fuse(self.stage(a3, b.down4), offers.pop(0)), b.stage4)
        a5 = self.stage(cb_fuse(self.stage(a4, b.down5), offers.pop(0)), b.stage5)
        branch: Branch = self.head((a3, a4, a5))
        return branch


class YOLOv9(Detector):
    """A YOLOv9 or GELAN detector.

    Args:
        name: published name, "yolov9-s" or "gelan-s".
        spec: the size's table row.
        classes: number of classes.
        names: class names by index.
        auxiliary: whether to build the training form.
        shape: what of the heads files differ in.
    """

    family = "YOLOv9 or GELAN"
    published = tuple(f"{graph}-{size}" for graph in ("yolov9", "gelan") for size in SPECS)
    strides = STRIDES
    reg_max = REG_MAX
    recognise = staticmethod(yolov9_published.recognise)
    keymap = staticmethod(yolov9_published.keymap)

    def __init__(
        self,
        name: str,
        spec: Spec,
        *,
        classes: int,
        names: Mapping[int, str],
        auxiliary: bool,
        shape: HeadShape,
    ) -> None:
        super().__init__(name, classes=classes, names=names)
        self.backbone: nn.Module = TwinBackbone(spec) if spec.twin else Backbone(spec)
        self.neck = Neck(spec, classes=classes)
        _, up3, out4, out5 = spec.neck
        self.head = _head((up3.width, out4.width, out5.width), classes=classes, shape=shape)
        self.auxiliary: nn.Module | None = None
        if auxiliary:
            branch = AuxiliaryNeck if spec.auxiliary == "neck" else AuxiliaryReversible
            self.auxiliary = branch(spec, classes=classes, shape=shape)

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
        """`yolov9-*` has an auxiliary branch, `gelan-*` has none.

        A class width other than the rule's exists in t only, where both branches have it.
        """
        graph, size = name.split("-")
        spec = SPECS[size]
        if class_width == _class_width(spec.neck[1].width, classes):
            class_width = None
        shape = HeadShape(class_width, box_groups or 4)
        return cls(name, spec, classes=classes, names=names, auxiliary=graph == "yolov9", shape=shape)

    def forward(self, x: Tensor, *, auxiliary: bool | None = None) -> DetectOutputs:
        """Raw maps of every branch.

        Args:
            x: (B, 3, H, W) RGB in [0, 1]; H and W multiples of 32.
            auxiliary: whether to run the auxiliary branch; by default in training mode only.
        """
        if auxiliary is None:
            auxiliary = self.training
        pyramid, side = self.backbone(x)
        if not auxiliary or self.auxiliary is None:
            del side
        main = self.head(self.neck(pyramid))
        del pyramid
        if not auxiliary or self.auxiliary is None:
            return DetectOutputs(main)
        return DetectOutputs(main, self.auxiliary(x, side))

    @property
    def layout(self) -> str:
        """Without its auxiliary branch a yolov9-* is a gelan-*."""
        return self.name if self.auxiliary is not None else self.name.replace("yolov9", "gelan")

    @property
    def compatible(self) -> tuple[str, ...]:
        """Either fills the main branch of the other."""
        size = self.name.split("-")[1]
        return f"yolov9-{size}", f"gelan-{size}"

    @property
    def loss_modules(self) -> tuple[str, ...]:
        """The auxiliary branch learns from its own loss only."""
        return ("auxiliary",) if self.auxiliary is not None else ()

    @property
    def shares_trunk(self) -> bool:
        """The auxiliary loss reaches the backbone too."""
        return self.auxiliary is not None

    def spare(self, nms: bool | None) -> tuple[str, ...]:
        """The auxiliary branch."""
        if nms is False:
            raise SettingsError(
                f"{self.name} answers through non-maximum suppression; nms=False is not possible.",
                hint="Leave nms out, or use a model with a one-to-one branch such as yolo26n.",
            )
        return ("auxiliary",)


def _head(widths: tuple[int, int, int], *, classes: int, shape: HeadShape) -> DetectHead:
    """Both hidden widths follow the finest level's width, for all three levels."""
    box_width = math.ceil(max(widths[0] // 4, 4 * REG_MAX, 16) / 4) * 4
    class_width = shape.class_width or _class_width(widths[0], classes)
    return DetectHead(
        (_tower(w, box_width, 4 * REG_MAX, groups=shape.box_groups) for w in widths),
        (_tower(w, class_width, classes, groups=1) for w in widths),
        strides=STRIDES,
        box_start=1.0,
    )


def _class_width(finest: int, classes: int) -> int:
    return max(finest, min(2 * classes, 128))


def _tower(c1: int, hidden: int, out: int, *, groups: int) -> nn.Sequential:
    return nn.Sequential(
        Conv(c1, hidden, 3), Conv(hidden, hidden, 3, groups=groups), nn.Conv2d(hidden, out, 1, groups=groups)
    )
