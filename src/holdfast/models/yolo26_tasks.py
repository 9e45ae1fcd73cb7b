"""YOLO26 beyond boxes: masks, keypoints, oriented boxes and classes of whole images.

Each is the detector with one tower more on every level, except the classifier, which is its backbone and one
layer. What only teaches - the semantic branch of masks, the density and the expected errors of keypoints - is
left out of the deployed form.

Dimensions: B batch, H W height and width of the input (multiples of 32), C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self

from holdfast.errors import SettingsError
from holdfast.geometry.targets import Needs
from holdfast.models.detector import Detector
from holdfast.models.heads.extra import AngleTowers, KeypointTowers, MaskTowers
from holdfast.models.heads.flow import Flow
from holdfast.models.heads.prototypes import Prototypes
from holdfast.models.outputs import Angles, ClassOutputs, DualOutputs, Keypoints, Masks
from holdfast.models.published import KeyMap, Layout, layer_numbers
from holdfast.models.yolo26 import BACKBONE, SPECS, YOLO26, Backbone, Spec, keymap, size_of, spec_of
from holdfast.nn.conv import Conv
from holdfast.nn.recompute import detached

MASKS = 32
TOWERS = {"one_to_many.extra.towers": "cv4", "one_to_one.extra.towers": "one2one_cv4"}
CLASS_HEAD = 10  # number of the classifier's head in its published layer list
_CLASS_WIDTH = 1280


class YOLO26Segment(YOLO26):
    """A YOLO26 detector that also outlines; arguments as in `YOLO26`."""

    family = "YOLO26-seg"
    published = tuple(f"yolo26{size}-seg" for size in SPECS)
    default = "yolo26n-seg"
    task = "segment"
    extra = Masks
    needs = Needs(mask_stride=4)

    def __init__(
        self,
        name: str,
        spec: Spec,
        *,
        classes: int,
        names: Mapping[int, str],
        class_width: int | None = None,
    ) -> None:
        super().__init__(
            name, spec, classes=classes, names=names, class_width=class_width,
            extra=lambda widths: MaskTowers(widths, hidden=max(widths[0] // 4, MASKS), masks=MASKS),
        )  # fmt: skip
        self.prototypes = Prototypes(
            self.neck.widths, hidden=spec.channels(256), masks=MASKS, classes=classes
        )

    def forward(self, x: Tensor) -> DualOutputs:
        """Raw maps of every branch; the one-to-one branch reads prototypes without gradient, too."""
        pyramid = self.neck(self.backbone(x))
        prototypes, semantic = self.prototypes(pyramid)
        many = one = None
        if self.one_to_many is not None:
            many = self.one_to_many(pyramid, prototypes, semantic)
        if self.one_to_one is not None:
            fixed = None if semantic is None else semantic.detach()
            one = self.one_to_one([detached(p) for p in pyramid], prototypes.detach(), fixed)
        return DualOutputs(many, one)

    @staticmethod
    def keymap(layout: str) -> KeyMap:
        """That of a detector, with prototypes and coefficients."""
        return keymap({"prototypes": "proto", **TOWERS})

    @property
    def shares_trunk(self) -> bool:
        """Mask terms are divided by counts of anchors and images, others by target scores."""
        return True

    @property
    def class_branches(self) -> tuple[str, ...]:
        """Also the semantic branch."""
        return (*super().class_branches, *(["prototypes.semseg"] if self.prototypes.semseg else []))

    @property
    def class_layers(self) -> frozenset[str]:
        """Also the last layer of the semantic branch."""
        if self.prototypes.semseg is None:
            return super().class_layers
        last = f"prototypes.semseg.{len(self.prototypes.semseg) - 1}"
        return super().class_layers | {f"{last}.weight", f"{last}.bias"}

    def spare(self, nms: bool | None) -> tuple[str, ...]:
        """Also the semantic branch."""
        return (*super().spare(nms), "prototypes.semseg")


class YOLO26Pose(YOLO26):
    """A YOLO26 detector that also finds the keypoints of its objects.

    Args:
        name, spec, classes, names, class_width: as in `YOLO26`.
        keypoints: keypoints per object, and numbers per keypoint: 3 with a label's visibility, else 2.
    """

    family = "YOLO26-pose"
    published = tuple(f"yolo26{size}-pose" for size in SPECS)
    default = "yolo26n-pose"
    task = "pose"
    extra = Keypoints
    needs = Needs(keypoints=True)
    default_keypoints = (17, 3)
    keypoints: tuple[int, int]

    def __init__(
        self,
        name: str,
        spec: Spec,
        *,
        classes: int,
        names: Mapping[int, str],
        class_width: int | None = None,
        keypoints: tuple[int, int] = default_keypoints,
    ) -> None:
        count, dims = keypoints
        super().__init__(
            name, spec, classes=classes, names=names, class_width=class_width,
            extra=lambda widths: KeypointTowers(
                widths, hidden=max(widths[0] // 4, count * (dims + 2)), keypoints=keypoints
            ),
        )  # fmt: skip
        self.keypoints = keypoints
        self.flow: Flow | None = Flow()

    @classmethod
    def build(
        cls,
        name: str,
        *,
        classes: int,
        names: Mapping[int, str],
        class_width: int | None = None,
        box_groups: int | None = None,
        keypoints: tuple[int, int] | None = None,
    ) -> Self:
        """Box towers have no groups; keypoints are those of COCO unless given."""
        if box_groups not in (None, 1):
            raise ValueError(f"{name} has no grouped box towers, but box_groups={box_groups}")
        return cls(
            name, spec_of(name), classes=classes, names=names, class_width=class_width,
            keypoints=keypoints or cls.default_keypoints,
        )  # fmt: skip

    def forward(self, x: Tensor) -> DualOutputs:
        """Raw maps of every branch; both learn with one density."""
        pyramid = self.neck(self.backbone(x))
        many = one = None
        if self.one_to_many is not None:
            many = self.one_to_many(pyramid, self.flow)
        if self.one_to_one is not None:
            one = self.one_to_one([detached(p) for p in pyramid], self.flow)
        return DualOutputs(many, one)

    @staticmethod
    def keymap(layout: str) -> KeyMap:
        """That of a detector, with keypoints."""
        ends = {"points": "cv4_kpts", "sigmas": "cv4_sigma"}
        return keymap(
            TOWERS
            | {"flow": "flow_model"}
            | {f"one_to_many.extra.{ours}": theirs for ours, theirs in ends.items()}
            | {f"one_to_one.extra.{ours}": f"one2one_{theirs}" for ours, theirs in ends.items()}
        )

    @property
    def shares_trunk(self) -> bool:
        """Keypoint terms are divided by counts of anchors and keypoints, others by target scores."""
        return True

    @property
    def header(self) -> dict[str, Any]:
        """Also says how many keypoints there are."""
        return {**super().header, "keypoints": list(self.keypoints)}

    def spare(self, nms: bool | None) -> tuple[str, ...]:
        """Also the density and the expected errors."""
        kept = "one_to_many" if nms else "one_to_one"
        return (*super().spare(nms), "flow", f"{kept}.extra.sigmas")


class YOLO26Rotated(YOLO26):
    """A YOLO26 detector of oriented boxes; arguments as in `YOLO26`."""

    family = "YOLO26-obb"
    published = tuple(f"yolo26{size}-obb" for size in SPECS)
    default = "yolo26n-obb"
    task = "obb"
    extra = Angles
    needs = Needs(rotated=True)

    def __init__(
        self,
        name: str,
        spec: Spec,
        *,
        classes: int,
        names: Mapping[int, str],
        class_width: int | None = None,
    ) -> None:
        super().__init__(
            name, spec, classes=classes, names=names, class_width=class_width,
            extra=lambda widths: AngleTowers(widths, hidden=max(widths[0] // 4, 1)),
        )  # fmt: skip

    @staticmethod
    def keymap(layout: str) -> KeyMap:
        """That of a detector, with angles."""
        return keymap(TOWERS)


class ClassHead(nn.Module):
    """Widens a map (B, c1, H, W), takes its mean and maps that to logits (B, C)."""

    def __init__(self, c1: int, *, classes: int) -> None:
        super().__init__()
        self.conv = Conv(c1, _CLASS_WIDTH)
        self.linear = nn.Linear(_CLASS_WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.conv(x).mean((2, 3)))
        return out


class YOLO26Classify(Detector):
    """A classifier of whole images: the YOLO26 backbone without its spatial pyramid.

    Unusual: batch norm has the constants of PyTorch here.

    Args:
        name: published name, "yolo26n-cls".
        spec: the size's table row.
        classes: number of classes.
        names: class names by index.
    """

    family = "YOLO26-cls"
    published = tuple(f"yolo26{size}-cls" for size in SPECS)
    default = "yolo26n-cls"
    task = "classify"
    needs = Needs(whole=True)
    own_imgsz = 224
    reg_max = 1
    outputs = ClassOutputs
    long_run_optimizer = "MuSGD"

    def __init__(self, name: str, spec: Spec, *, classes: int, names: Mapping[int, str]) -> None:
        super().__init__(name, classes=classes, names=names)
        self.backbone = Backbone(spec, pools=False)
        self.head = ClassHead(spec.channels(1024), classes=classes)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = 1e-5, 0.1

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
        """There are no towers whose widths could differ."""
        if class_width is not None or box_groups not in (None, 1):
            raise ValueError(f"{name} has no towers, but class_width={class_width}, box_groups={box_groups}")
        return cls(name, spec_of(name), classes=classes, names=names)

    def forward(self, x: Tensor) -> ClassOutputs:
        """Class logits.

        Args:
            x: (B, 3, H, W) RGB in [0, 1]; H and W multiples of 32.
        """
        return ClassOutputs(self.head(self.backbone(x).p5))

    @staticmethod
    def recognise(tensors: Mapping[str, Tensor]) -> Layout | None:
        """The number of the linear layer gives the task, the first convolution the size."""
        last = tensors.get(f"model.{CLASS_HEAD}.linear.weight")
        size = size_of(tensors)
        attention = "model.9.m.0.attn.qkv.conv.weight" in tensors
        if last is None or size is None or not attention or max(layer_numbers(tensors)) != CLASS_HEAD:
            return None
        folded = f"model.{CLASS_HEAD}.conv.conv.bias" in tensors
        name = f"yolo26{size}-cls"
        return Layout(name=name, classes=len(last), class_width=None, box_groups=None, folded=folded)

    @staticmethod
    def keymap(layout: str) -> KeyMap:
        """The backbone without layer 9, and the head."""
        stages = [name for name in BACKBONE if name != "spp"]
        layers = [*(f"backbone.{name}." for name in stages), "head."]
        return KeyMap(tuple((ours, f"model.{number}.") for number, ours in enumerate(layers)))

    @property
    def class_layers(self) -> frozenset[str]:
        """The linear layer."""
        return frozenset({"head.linear.weight", "head.linear.bias"})

    def spare(self, nms: bool | None) -> tuple[str, ...]:
        """Nothing, and there are no boxes to suppress."""
        if nms is not None:
            raise SettingsError(f"{self.name} classifies whole images; nms={nms} means nothing to it.")
        return ()
