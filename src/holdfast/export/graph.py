"""What an exported file computes: the deployed network with the way from its maps to boxes.

Two layouts, which readers of such files know. A branch that answers through suppression gives
`(B, 4 + C, A)`: centre, width and height in input pixels, then a probability for each class. A one-to-one
branch gives its best rows, `(B, max_det, 6)` xyxy, score, class; rows beyond what there is are zero.

Traps: sizes stay symbols while a graph is recorded, so nothing here may turn one into a plain number; and
integer division makes truth values, which OpenCV does not compute with.

Dimensions: B batch, A anchors over all levels, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from holdfast.errors import SettingsError
from holdfast.geometry.boxes import xyxy_to_cxcywh
from holdfast.models.detector import Detector
from holdfast.post.decode import answering, decode


class Graph(nn.Module):
    """A deployed detector that answers with one tensor; `forward` maps (B, 3, H, W) RGB in [0, 1].

    Args:
        model: a deployed detector of upright boxes.
        max_det: rows of a one-to-one branch.
        anchors: A where the input has one size; None: any number, counted while the graph runs.

    Raises:
        SettingsError: a model for another task.
    """

    def __init__(self, model: Detector, *, max_det: int, anchors: int | None) -> None:
        super().__init__()
        if model.task != "detect":
            raise SettingsError(
                f"{model.name} is a model for the task '{model.task}', and only detectors are exported.",
                hint="'holdfast convert IN OUT --deploy' writes its folded network.",
            )
        self.model = model
        self.max_det = max_det
        self.anchors = anchors

    @property
    def end_to_end(self) -> bool:
        """Whether the answer is rows, which need no suppression."""
        return "one_to_one" in self.model.heads

    def forward(self, images: Tensor) -> Tensor:
        """Images to decoded anchors or rows, float32 in any case."""
        branch = answering(self.model(images))
        boxes, scores = decode(branch, strides=self.model.strides, reg_max=self.model.reg_max)
        if self.end_to_end:
            return _best(boxes, scores, self.max_det, anchors=self.anchors)
        return torch.cat((xyxy_to_cxcywh(boxes), scores), 2).transpose(1, 2)


def _best(boxes: Tensor, scores: Tensor, rows: int, *, anchors: int | None) -> Tensor:
    """(B, A, 4), (B, A, C) -> (B, rows, 6): the best pairs of the best anchors, as `post.decode.best_rows`.

    Where there are fewer anchors than rows, there are as many pairs as anchors, and the other rows are zero.
    """
    counted, classes = scores.shape[1:]
    count = rows if anchors is None else min(rows, anchors)
    if anchors is None:
        boxes, scores = F.pad(boxes, (0, 0, 0, rows)), F.pad(scores, (0, 0, 0, rows))
    anchor = scores.amax(2).topk(count).indices.unsqueeze(2)  # (B, k, 1)
    boxes = boxes.gather(1, anchor.expand(-1, -1, 4))
    scores = scores.gather(1, anchor.expand(-1, -1, classes))
    score, pair = scores.flatten(1).topk(count)  # (B, k)
    row = (pair.float() / classes).floor().long()
    label = (pair - row * classes).float()
    boxes = boxes.gather(1, row.unsqueeze(2).expand(-1, -1, 4))
    found = torch.cat((boxes, score.unsqueeze(2), label.unsqueeze(2)), 2)
    if anchors is None:
        return found * (torch.arange(rows, device=found.device) < counted).to(found.dtype).unsqueeze(1)
    return F.pad(found, (0, 0, 0, rows - count))
