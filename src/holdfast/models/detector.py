"""What every detector is to the rest of the program, whatever its family.

A family is one class: a table of sizes, an explicit forward, and the names of its published tensors. The
registry lists it in one line (docs/adding-a-family.md walks through one).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import Self

from holdfast.errors import SettingsError
from holdfast.geometry.targets import BOXES, Needs
from holdfast.models.heads.detect import DetectHead
from holdfast.models.outputs import DetectOutputs, Extra, Outputs
from holdfast.models.published import KeyMap, Layout
from holdfast.nn.fuse import fold
from holdfast.nn.recompute import LEVELS, Level, Recomputing


class Detector(nn.Module, ABC):
    """Base of all detectors, one subclass per family. `forward` maps (B, 3, H, W) RGB in [0, 1] to `outputs`.

    Args:
        name: published name, "yolov9-s" or "yolo26n".
        classes: number of classes.
        names: class names by index.

    Attributes:
        family: what the family is called.
        published: names of the family's models, smallest first.
        default: the model meant by the family's bare name, "yolo26", if there is one.
        task: what the model does.
        strides: pixels per cell of each level, finest first; H and W must be multiples of the last.
        reg_max: bins per box side; 1 means that maps hold the distance itself.
        outputs: type of what `forward` returns.
        extra: type of what its branches say beyond boxes, if anything.
        needs: what its loss reads of targets, which the labels of a data set must hold then.
        own_imgsz: side of the input, pixels, where none is named; None for that of the settings.
        default_keypoints: keypoints and numbers per keypoint unless `build` is told others; None for models
            without.
        keypoints: the same of this model.
        long_run_optimizer: what the family is published with; `optimizer=auto` takes it for long runs.
        deployed: whether this is the inference form.
        fixed_size: the only input height and width; None: any multiples of the last stride.
    """

    family: ClassVar[str]
    published: ClassVar[tuple[str, ...]]
    default: ClassVar[str | None] = None
    task: ClassVar[str] = "detect"
    strides: ClassVar[Sequence[int]] = (8, 16, 32)
    reg_max: ClassVar[int] = 16
    outputs: ClassVar[type[Outputs]] = DetectOutputs
    extra: ClassVar[type[Extra] | None] = None
    needs: ClassVar[Needs] = BOXES
    own_imgsz: ClassVar[int | None] = None
    default_keypoints: ClassVar[tuple[int, int] | None] = None
    keypoints: tuple[int, int] | None = None
    long_run_optimizer: ClassVar[str] = "SGD"
    fixed_size: ClassVar[tuple[int, int] | None] = None

    def __init__(self, name: str, *, classes: int, names: Mapping[int, str]) -> None:
        super().__init__()
        self.name = name
        self.classes = classes
        self.names = dict(names)
        self.deployed = False

    @classmethod
    @abstractmethod
    def build(
        cls,
        name: str,
        *,
        classes: int,
        names: Mapping[int, str],
        class_width: int | None = None,
        box_groups: int | None = None,
    ) -> Self:
        """The model of a published name; None for a width means the family's rule."""

    @staticmethod
    @abstractmethod
    def recognise(tensors: Mapping[str, Tensor]) -> Layout | None:
        """What published tensors say, told from names and shapes alone; None for those of another family.

        Raises:
            WeightsError: tensors of this family that no model here can hold.
        """

    @staticmethod
    @abstractmethod
    def keymap(layout: str) -> KeyMap:
        """Our names of tensors and the published ones, for one published layer list."""

    @property
    def answers(self) -> type[Extra] | type[Outputs]:
        """Type of what its branches say beyond boxes, else that of its outputs: how it is scored."""
        return self.extra or self.outputs

    @property
    def layout(self) -> str:
        """The published layer list that the tensors have now."""
        return self.name

    @property
    def compatible(self) -> tuple[str, ...]:
        """Published layer lists whose tensors fit, at least in part."""
        return (self.layout,)

    @property
    def heads(self) -> dict[str, DetectHead]:
        """Every head the model has now, by the path of its module."""
        return {path: module for path, module in self.named_modules() if isinstance(module, DetectHead)}

    @property
    def class_branches(self) -> tuple[str, ...]:
        """Paths of the class towers of all heads."""
        return tuple(f"{path}.cls" for path in self.heads)

    @property
    def class_layers(self) -> frozenset[str]:
        """Names of the tensors that have one row per class."""
        heads = self.heads.items()
        return frozenset(f"{path}.cls.{name}" for path, head in heads for name in head.class_rows)

    @property
    def loss_modules(self) -> tuple[str, ...]:
        """Paths of the modules that the second, third... loss alone reaches; the first reaches the rest."""
        return ()

    @property
    def shares_trunk(self) -> bool:
        """Whether losses that are divided by different sums reach what lies outside `loss_modules`."""
        return False

    @property
    def header(self) -> dict[str, Any]:
        """What a file must say about this model so that `models.from_header` can rebuild it.

        The widths are those of the head, read off its tensors: files differ in them.
        """
        head = next(iter(self.heads.values()), None)
        return {
            "name": self.name,
            "task": self.task,
            "classes": self.classes,
            "names": self.names,
            "deployed": self.deployed,
            "class_width": head and head.class_width,
            "box_groups": head and head.box_groups,
            "branch": None,
        }

    def recompute(self, level: Level) -> None:
        """Chooses what training keeps for backward and what it makes again; answers and gradients stay.

        Evaluation and copies for it (average, deployed form) know no difference. Not part of the state.

        Args:
            level: "none" keeps everything; "norm" keeps the outputs of convolutions and makes batch norm,
                SiLU and what joins them again; "stages" keeps the inputs of whole stages.

        Raises:
            SettingsError: another level, or a compiled model, where the compiler chooses what to keep.
        """
        if level not in LEVELS:
            raise SettingsError(
                f"There is no recompute level '{level}'.", hint=f"Levels are {', '.join(LEVELS)}."
            )
        if level != "none" and self._compiled_call_impl is not None:
            raise SettingsError(
                f"A compiled model cannot recompute '{level}': its compiler chooses what to keep.",
                hint="Leave compile out, or keep the level at none.",
            )
        for module in self.modules():
            if isinstance(module, Recomputing):
                module.level = level

    def deploy(self, *, nms: bool | None = None) -> Self:
        """Returns the inference form: one branch, kernels folded, evaluation mode, no gradients.

        A new module; this one stays as it is. A deployed model returns itself.

        Args:
            nms: whether the branch that answers through suppression is kept; None: the family's own way.

        Raises:
            SettingsError: the family has no such branch.
            WeightsError: this deployed model has kept the other one.
        """
        spare = self.spare(nms)
        if self.deployed:
            return self
        places = [(self.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]) for path in spare]
        kept = [getattr(parent, name) for parent, name in places]
        for parent, name in places:  # nothing is copied that would be thrown away
            setattr(parent, name, None)
        try:
            model = copy.deepcopy(self)
        finally:
            for (parent, name), module in zip(places, kept, strict=True):
                setattr(parent, name, module)
        fold(model)
        model.deployed = True
        return model.eval().requires_grad_(False)

    @abstractmethod
    def spare(self, nms: bool | None) -> tuple[str, ...]:
        """Paths of the modules that the inference form leaves out; `deploy` documents `nms`."""
