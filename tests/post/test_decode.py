"""Decoding equals the golden numbers, and the fast path gives the rows of the plain one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from holdfast.models.outputs import Branch, DualOutputs
from holdfast.post import decode as decode_module
from holdfast.post.decode import answer, best_rows, decode, detections, select

STRIDES = (8, 16, 32)


def make_branch(
    *, batch: int = 2, classes: int = 5, reg_max: int = 16, bias: float = -2.0, seed: int = 0, size: int = 128
) -> Branch:
    """Maps of random logits; about a tenth of the anchors pass 0.25 at the default bias."""
    generator = torch.Generator().manual_seed(seed)
    sides, scores = [], []
    for stride in STRIDES:
        cells = size // stride
        sides.append(torch.randn(batch, 4 * reg_max, cells, cells + 2, generator=generator) * 1.5)
        scores.append(torch.randn(batch, classes, cells, cells + 2, generator=generator) * 1.5 + bias)
    return Branch(tuple(sides), tuple(scores))


@pytest.mark.parametrize("model", ["yolov9-t", "gelan-s"])
def test_decoded_maps_equal_the_golden_output(fixtures_v9: Path, model: str) -> None:
    with np.load(fixtures_v9 / f"{model}.golden.npz") as golden:
        raw = [torch.from_numpy(golden[f"raw_main_p{level}"]) for level in (3, 4, 5)]
        expected = torch.from_numpy(golden["eval_main"]).transpose(1, 2)  # (1, A, 4 + C), cx cy w h
    branch = Branch(tuple(r[:, :64] for r in raw), tuple(r[:, 64:] for r in raw))
    boxes, scores = decode(branch, strides=STRIDES, reg_max=16)
    centre, size = expected[..., :2], expected[..., 2:4]
    torch.testing.assert_close(
        boxes, torch.cat([centre - size / 2, centre + size / 2], dim=2), atol=5e-3, rtol=0
    )
    torch.testing.assert_close(scores, expected[..., 4:], atol=5e-5, rtol=0)
    assert boxes.dtype == scores.dtype == torch.float32


def test_distances_without_bins_are_taken_as_they_are() -> None:
    sides = torch.tensor([1.0, 0.5, 2.0, 1.5]).reshape(1, 4, 1, 1)
    boxes, scores = decode(Branch((sides,), (torch.zeros(1, 1, 1, 1),)), strides=(8,), reg_max=1)
    assert boxes[0, 0].tolist() == [-4.0, 0.0, 20.0, 16.0]
    assert scores.item() == 0.5


def golden_branch(golden: dict[str, np.ndarray], which: str) -> Branch:
    """Maps of a golden file of YOLO26: 16x20, 8x10 and 4x5 cells."""
    parts = []
    for kind in ("boxes", "scores"):
        flat = torch.from_numpy(golden[f"{which}_{kind}"]).unsqueeze(0).split([320, 80, 20], 2)
        parts.append(tuple(x.unflatten(2, (16 >> i, 20 >> i)) for i, x in enumerate(flat)))
    return Branch(*parts)


@pytest.mark.parametrize("model", ["yolo26n", "yolo26s", "yolo26m"])
def test_both_answers_of_yolo26_equal_the_golden_rows(fixtures_26: Path, model: str) -> None:
    facts = json.loads((fixtures_26 / "manifest.json").read_text())[model]
    golden = dict(np.load(fixtures_26 / model / "golden.npz"))
    many, one = golden_branch(golden, "o2m"), golden_branch(golden, "o2o")
    keys = {"strides": STRIDES, "reg_max": 1, "iou": facts["nms_iou"], "max_det": 300}

    boxes, scores = decode(many, strides=STRIDES, reg_max=1)
    centre, size = torch.from_numpy(golden["o2m_decoded"]).T.split([2, 2, 80], 1)[:2]
    corners = torch.cat([centre - size / 2, centre + size / 2], 1)
    torch.testing.assert_close(boxes[0], corners, atol=5e-3, rtol=0)
    torch.testing.assert_close(scores[0].T, torch.from_numpy(golden["o2m_decoded"][4:]), atol=1e-4, rtol=0)

    (suppressed,) = answer(DualOutputs(one_to_many=many), conf=facts["nms_conf"], **keys)
    torch.testing.assert_close(suppressed, torch.from_numpy(golden["nms"]), atol=5e-3, rtol=0)

    # The best rows; neighbours can be equal to the last bit, so rows are matched by anchor and class.
    (found,) = answer(DualOutputs(many, one), conf=0.0, **keys)
    every, _ = decode(one, strides=STRIDES, reg_max=1)
    anchors = torch.cdist(found[:, :4], every[0]).argmin(1)
    ours = {(a, int(row[5])): row for a, row in zip(anchors.tolist(), found, strict=True)}
    expected = {
        (a, int(row[5])): torch.from_numpy(row)
        for a, row in zip(golden["e2e_anchor"].tolist(), golden["e2e"], strict=True)
    }
    assert len(ours) == len(found) == 300
    assert ours.keys() == expected.keys()
    for key, row in expected.items():
        torch.testing.assert_close(ours[key], row, atol=5e-3, rtol=0)
        assert ours[key][4] == pytest.approx(row[4].item(), abs=1e-4)
    assert (found[:, 4].diff() <= 0).all()


def dense_rows(branch: Branch, *, limit: int, agnostic: bool) -> Tensor:
    """The definition: the best anchors by their best class, then the best pairs of those."""
    boxes, scores = (x[0] for x in decode(branch, strides=STRIDES, reg_max=1))
    anchor = scores.amax(1).topk(min(limit, len(scores))).indices
    if agnostic:
        score, label = scores[anchor].max(1)
        row = anchor
    else:
        score, index = scores[anchor].flatten().topk(min(limit, len(scores)))
        row, label = anchor[index // scores.shape[1]], index % scores.shape[1]
    return torch.cat([boxes[row], score[:, None], label[:, None].float()], 1)


@pytest.mark.parametrize("conf", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("max_det", [5, 300, 1000])
def test_best_rows_equal_their_definition(conf: float, agnostic: bool, max_det: int) -> None:
    branch = make_branch(batch=1, reg_max=1, bias=-1.0, size=192)  # more than 300 anchors above the threshold
    expected = dense_rows(branch, limit=max(300, max_det), agnostic=agnostic)
    order = expected[:, 4].argsort(descending=True, stable=True)
    expected = expected[order][expected[order][:, 4] > conf]
    (found,) = best_rows(branch, strides=STRIDES, reg_max=1, conf=conf, max_det=max_det, agnostic=agnostic)
    torch.testing.assert_close(found, expected[:max_det], atol=1e-4, rtol=0)
    (two,) = best_rows(
        branch, strides=STRIDES, reg_max=1, conf=conf, max_det=max_det, agnostic=agnostic, classes=[1, 3]
    )
    kept = expected[(expected[:, 5] == 1) | (expected[:, 5] == 3)]
    torch.testing.assert_close(two, kept[:max_det], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["nms_best", "nms_multi", "nms_agnostic"])
def test_selection_equals_the_golden_rows(fixtures_v9: Path, name: str) -> None:
    with np.load(fixtures_v9 / f"{name}.npz") as golden:
        prediction = torch.from_numpy(golden["prediction"]).transpose(1, 2)  # (B, A, 4 + C), cx cy w h
        args = json.loads(str(golden["args"]))
        expected = [torch.from_numpy(golden[f"out{i}"]) for i in range(len(prediction))]
    centre, size = prediction[..., :2], prediction[..., 2:4]
    rows = select(
        torch.cat([centre - size / 2, centre + size / 2], dim=2),
        prediction[..., 4:],
        conf=args["conf_thres"],
        iou=args["iou_thres"],
        max_det=args["max_det"],
        multi_label=args["multi_label"],
        agnostic=args.get("agnostic", False),
    )
    for ours, theirs in zip(rows, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("conf", [0.0, 0.001, 0.25, 0.9, 1.0])
def test_fast_path_equals_decode_and_select(multi_label: bool, agnostic: bool, conf: float) -> None:
    branch = make_branch(seed=int(conf * 1000))
    options = {"conf": conf, "iou": 0.6, "max_det": 50, "multi_label": multi_label, "agnostic": agnostic}
    assert_same(
        detections(branch, strides=STRIDES, reg_max=16, **options),  # type: ignore[arg-type]
        select(*decode(branch, strides=STRIDES, reg_max=16), **options),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_fast_path_equals_decode_and_select_in_half_precision(kind: torch.dtype) -> None:
    full = make_branch()
    branch = Branch(tuple(t.to(kind) for t in full.boxes), tuple(t.to(kind) for t in full.scores))
    assert_same(
        detections(branch, strides=STRIDES, reg_max=16, conf=0.25, iou=0.7, max_det=300),
        select(*decode(branch, strides=STRIDES, reg_max=16), conf=0.25, iou=0.7, max_det=300),
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_class_filter_keeps_only_the_asked_classes(multi_label: bool) -> None:
    branch = make_branch()
    every = select(
        *decode(branch, strides=STRIDES, reg_max=16),
        conf=0.3,
        iou=0.6,
        max_det=10_000,
        multi_label=multi_label,
    )
    some = detections(
        branch,
        strides=STRIDES,
        reg_max=16,
        conf=0.3,
        iou=0.6,
        max_det=10_000,
        multi_label=multi_label,
        classes=[1, 4],
    )
    assert_same(some, [rows[(rows[:, 5] == 1) | (rows[:, 5] == 4)] for rows in every])


def test_threshold_is_strict_and_scores_fall() -> None:
    boxes = torch.tensor([[[0, 0, 9, 9], [20, 20, 30, 30], [50, 50, 70, 70.0]]])
    scores = torch.tensor([[[0.25], [0.5], [0.75]]])
    (rows,) = select(boxes, scores, conf=0.25, iou=0.5, max_det=300)
    assert rows[:, 4].tolist() == [0.75, 0.5]
    logits = torch.zeros(1, 1, 1, 1)  # probability 0.5 exactly
    branch = Branch((torch.zeros(1, 64, 1, 1),), (logits,))
    assert len(detections(branch, strides=(8,), reg_max=16, conf=0.5, iou=0.5, max_det=9)[0]) == 0
    assert len(detections(branch, strides=(8,), reg_max=16, conf=0.4999, iou=0.5, max_det=9)[0]) == 1


def test_classes_suppress_each_other_only_when_agnostic() -> None:
    boxes = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 10.0]]])
    scores = torch.tensor([[[0.9, 0.0], [0.0, 0.8]]])
    assert len(select(boxes, scores, conf=0.1, iou=0.5, max_det=9)[0]) == 2
    assert len(select(boxes, scores, conf=0.1, iou=0.5, max_det=9, agnostic=True)[0]) == 1


def test_multi_label_gives_one_row_per_class() -> None:
    boxes = torch.tensor([[[0, 0, 10, 10.0]]])
    scores = torch.tensor([[[0.9, 0.6, 0.05]]])
    (rows,) = select(boxes, scores, conf=0.1, iou=0.5, max_det=9, multi_label=True)
    assert rows[:, 5].tolist() == [0.0, 1.0]
    (rows,) = select(boxes, scores, conf=0.1, iou=0.5, max_det=9)
    assert rows[:, 5].tolist() == [0.0]


def test_only_the_best_candidates_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_CANDIDATES", 3)
    corner = torch.arange(10.0).mul(20).reshape(10, 1)
    boxes = torch.cat([corner, corner, corner + 10, corner + 10], dim=1)[None]
    scores = torch.linspace(0.1, 1.0, 10).reshape(1, 10, 1)
    (rows,) = select(boxes, scores, conf=0.0, iou=0.5, max_det=300)
    assert rows[:, 4].tolist() == pytest.approx([1.0, 0.9, 0.8])


def test_of_equal_scores_the_first_candidates_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_CANDIDATES", 3)
    corner = torch.arange(5.0).mul(20).reshape(5, 1)
    boxes = torch.cat([corner, corner, corner + 10, corner + 10], dim=1)[None]
    scores = torch.tensor([0.5, 0.5, 0.9, 0.5, 0.1]).reshape(1, 5, 1)
    (rows,) = select(boxes, scores, conf=0.0, iou=0.5, max_det=300)
    assert rows[:, 0].tolist() == [40.0, 0.0, 20.0]


def test_nothing_above_the_threshold_gives_empty_rows() -> None:
    for rows in detections(
        make_branch(bias=-50.0), strides=STRIDES, reg_max=16, conf=0.25, iou=0.5, max_det=9
    ):
        assert rows.shape == (0, 6)


def test_identical_boxes_leave_one() -> None:
    boxes = torch.tensor([0.0, 0, 10, 10]).expand(1, 2000, 4)
    scores = torch.rand(1, 2000, 1)
    (rows,) = select(boxes, scores, conf=0.0, iou=0.5, max_det=300)
    assert len(rows) == 1


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)
