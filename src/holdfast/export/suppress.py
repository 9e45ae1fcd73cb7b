"""Non-maximum suppression inside an ONNX file, so that it gives rows as a one-to-one branch does.

The graph is written as text in the format's own notation and joined to the network's. Each anchor counts with
its best class only, as `holdfast predict` takes it.

Dimensions: B batch, A anchors, C classes, D = 4 + C, n kept boxes, K rows of the answer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from holdfast.errors import SettingsError
from holdfast.models.exported import OUTPUT

OLDEST_OPSET = 13


class Suppression(NamedTuple):
    """What is suppressed.

    Attributes:
        conf: only scores above it count.
        iou: overlap above which the weaker of two boxes is dropped.
        max_det: rows of the answer.
        agnostic: boxes of different classes suppress each other too.
    """

    conf: float
    iou: float
    max_det: int
    agnostic: bool

    def __str__(self) -> str:
        return f"conf {self.conf:g}, iou {self.iou:g}, max_det {self.max_det}{', agnostic' * self.agnostic}"


# In order: corners (B, A, 4); scores (B, C, A) with all but an anchor's best at 0, or the best alone
# (B, 1, A); what is kept (n, 3): image, class, anchor; their scores in a blank (B, A); the best K of all.
_GRAPH = """
<ir_version: {ir}, opset_import: ["" : {opset}]>
suppress (float[B, D, A] anchors) => (float[B, K, 6] {output})
<int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}},
 int64[1] end = {{{end}}}, int64[1] limit = {{{max_det}}}, float half = {{0.5}}, float nothing = {{0.0}},
 float[1] iou = {{{iou:.6f}}}, float[1] conf = {{{conf:.6f}}}, int64[2] image_and_anchor = {{0, 2}},
 int64[4] more_scores = {{0, 0, 0, {max_det}}}, int64[6] more_rows = {{0, 0, 0, 0, {max_det}, 0}},
 int64[3] six = {{1, 1, 6}}, int64[1, {classes}, 1] every = {{{labels}}}>
{{
  middle = Slice (anchors, zero, two, one)
  size = Slice (anchors, two, four, one)
  reach = Mul (size, half)
  low = Sub (middle, reach)
  high = Add (middle, reach)
  corners = Concat <axis = 1> (low, high)
  boxes = Transpose <perm = [0, 2, 1]> (corners)
  scores = Slice (anchors, four, end, one)
  best, index = TopK <axis = 1> (scores, one)
  is_best = Equal (every, index)
  own = Where (is_best, scores, nothing)
  kept = NonMaxSuppression (boxes, {candidates}, limit, iou, conf)
  place = Gather <axis = 1> (kept, image_and_anchor)
  flat = Squeeze (best, one)
  kept_scores = GatherND (flat, place)
  blank = Mul (flat, nothing)
  sparse = ScatterND (blank, place, kept_scores)
  long_sparse = Pad (sparse, more_scores, nothing)
  top, row = TopK <axis = 1> (long_sparse, limit)
  label = Cast <to = 1> (index)
  parts = Concat <axis = 1> (corners, best, label)
  rows = Transpose <perm = [0, 2, 1]> (parts)
  long_rows = Pad (rows, more_rows, nothing)
  column = Unsqueeze (row, two)
  columns = Expand (column, six)
  picked = GatherElements <axis = 1> (long_rows, columns)
  is_real = Greater (top, nothing)
  real = Cast <to = 1> (is_real)
  mask = Unsqueeze (real, two)
  {output} = Mul (picked, mask)
}}
"""


def with_suppression(model: Any, wanted: Suppression, *, classes: int) -> Any:
    """Returns an ONNX model that gives what suppression leaves of the anchors (B, 4 + C, A) of `model`.

    Raises:
        SettingsError: an operator-set version that is too old for it.
    """
    from onnx import compose, parser

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < OLDEST_OPSET:
        raise SettingsError(
            f"Suppression inside the file needs opset {OLDEST_OPSET}, and this is {opset}.",
            hint="Raise or leave out --opset, or leave out --nms.",
        )
    text = _GRAPH.format(
        ir=model.ir_version, opset=opset, output=OUTPUT, end=2**63 - 1, max_det=wanted.max_det,
        iou=wanted.iou, conf=wanted.conf, candidates="best" if wanted.agnostic else "own",
        classes=classes, labels=", ".join(map(str, range(classes))),
    )  # fmt: skip
    inner = compose.add_prefix(
        model, "network_", rename_nodes=False, rename_edges=False, rename_inputs=False, rename_outputs=True,
        rename_initializers=False, rename_value_infos=False, rename_functions=False,
    )  # fmt: skip
    outer = compose.add_prefix(
        parser.parse_model(text), "suppress_", rename_inputs=False, rename_outputs=False
    )
    return compose.merge_models(inner, outer, io_map=[(f"network_{OUTPUT}", "anchors")])
