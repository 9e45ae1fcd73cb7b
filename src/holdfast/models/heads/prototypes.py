"""Mask prototypes of YOLO26: one set of maps per image, of which every object's mask is a mixture.

Unusual: all levels are refined and added up at stride 8 first; the same sum feeds a semantic branch that
only teaches. Inner names are the published ones.

Dimensions: B batch, C classes, M prototypes, H W feature height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.nn.conv import Conv
from holdfast.nn.recompute import Recomputing


class Prototypes(Recomputing):
    """Maps of strides 8, 16, 32 to prototypes at stride 4 and semantic logits at stride 8.

    Args:
        widths: channels of the levels.
        hidden: width inside.
        masks: M.
        classes: C.
    """

    def __init__(self, widths: Sequence[int], *, hidden: int, masks: int, classes: int) -> None:
        super().__init__()
        finest, *coarser = widths
        self.cv1 = Conv(hidden, hidden, 3)
        self.upsample = nn.ConvTranspose2d(hidden, hidden, 2, 2)
        self.cv2 = Conv(hidden, hidden, 3)
        self.cv3 = Conv(hidden, masks)
        self.feat_refine = nn.ModuleList(Conv(w, finest) for w in coarser)
        self.feat_fuse = Conv(finest, hidden, 3)
        self.semseg: nn.Sequential | None = nn.Sequential(
            Conv(finest, hidden, 3), Conv(hidden, hidden, 3), nn.Conv2d(hidden, classes, 1)
        )

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        x, *coarser = levels
        for refine, level in zip(self.feat_refine, coarser, strict=True):
            x = x + F.interpolate(refine(level), size=x.shape[2:], mode="nearest")
        prototypes = self.stage(x, self.feat_fuse, self.cv1, self.upsample, self.cv2, self.cv3)
        if self.semseg is None or not self.training:
            return prototypes, None
        return prototypes, self.stage(x, *self.semseg)
