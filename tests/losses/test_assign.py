"""The sparse assigner: equal to the dense definition and to golden numbers, whatever the chunk size."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense import dense_scores
from live import MostBytes
from torch import Tensor

from holdfast.geometry.targets import Targets
from holdfast.losses.assign import assign
from holdfast.losses.candidates import PAIR_BYTES, Candidates, chunks, scattered
from holdfast.losses.overlap import BoxOverlap

STRIDES = (8, 16, 32)
SHAPES = [(16, 20), (8, 10), (4, 5)]


def first_anchors(sizes: list[int]) -> Tensor:
    """Number of the first anchor of each level, (L,)."""
    return torch.tensor([sum(sizes[:i]) for i in range(len(sizes))])


def sparse_scores(
    logits: list[Tensor],
    boxes: Tensor,
    targets: Targets,
    *,
    smallest_side: float = 0.0,
    chunk: int | None = None,
    **options: Any,
) -> Tensor:
    """Target scores (B, A, C) of the assigner under test."""
    shapes = [tuple(x.shape[2:]) for x in logits]
    batch, classes = logits[0].shape[:2]
    sizes = [h * w for h, w in shapes]
    candidates = Candidates(
        targets,
        batch=batch,
        shapes=shapes,
        strides=STRIDES,
        smallest_side=smallest_side,
        memory=None if chunk is None else chunk * PAIR_BYTES,
    )
    anchor = candidates.cell + first_anchors(sizes)[candidates.level]
    found = assign(logits, BoxOverlap(candidates, boxes[candidates.of_image, anchor]), candidates, **options)
    assert sum(found.sizes) == len(found.anchor)
    assert (found.score > 0).all()
    assert len(found.anchor.unique()) == len(found.anchor)
    result = torch.zeros(batch, sum(sizes), classes)
    image, where = candidates.of_image[found.anchor], anchor[found.anchor]
    result[image, where, targets.classes[found.target]] = found.score
    return result


def scene(
    seed: int, *, batch: int = 3, classes: int = 4, objects: int = 40
) -> tuple[list[Tensor], Tensor, Targets]:
    """Predictions near the objects, so that anchors are contested; thin, outside and identical boxes."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randint(0, batch, (objects,), generator=g).sort().values
    image = image[image != 1]  # one image without any object
    centre = torch.rand(len(image), 2, generator=g) * torch.tensor([160.0, 128.0])
    size = torch.exp(torch.randn(len(image), 2, generator=g) + 3)
    boxes = torch.cat((centre - size / 2, centre + size / 2), 1)
    boxes[1] = boxes[0]
    boxes[2, 2] = boxes[2, 0]
    targets = Targets(image, torch.randint(0, classes, (len(image),), generator=g), boxes)
    anchors = sum(h * w for h, w in SHAPES)
    near = boxes[torch.randint(0, len(boxes), (batch, anchors), generator=g)]
    predicted = near + torch.randn(batch, anchors, 4, generator=g) * 12
    logits = [torch.randn(batch, classes, h, w, generator=g) for h, w in SHAPES]
    return logits, predicted, targets


VARIANTS = {
    "yolov9": {},
    "one_to_one": {"topk": 7, "second_topk": 1, "smallest_side": 16.0, "contest": "candidates"},
    "one_to_many": {"smallest_side": 16.0, "contest": "candidates"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_dense_definition(variant: str, seed: int) -> None:
    case = scene(seed, objects=120)
    expected = dense_scores(*case, strides=STRIDES, **VARIANTS[variant])
    assert expected.count_nonzero() > 15
    ours = sparse_scores(*case, **VARIANTS[variant])
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize("chunk", [1, 37, 500, 10**9])
def test_chunk_size_does_not_change_the_result(chunk: int) -> None:
    case = scene(11, objects=80)
    assert torch.equal(sparse_scores(*case, chunk=chunk), sparse_scores(*case))


@pytest.mark.parametrize("mib", [1, 4])
def test_the_memory_of_pairs_stays_within_the_budget(mib: int) -> None:
    """With maps and targets there already; beside the pairs there are a few numbers for each anchor."""
    logits, boxes, targets = scene(11, objects=600)
    corners = targets.boxes * 4
    logits = [torch.randn(len(x), x.shape[1], 4 * x.shape[2], 4 * x.shape[3]) for x in logits]
    shapes = [(int(x.shape[2]), int(x.shape[3])) for x in logits]
    candidates = Candidates(
        targets._replace(boxes=corners), batch=len(boxes), shapes=shapes, strides=STRIDES, memory=mib * 2**20
    )
    predicted = torch.rand(len(candidates.cell), 4)
    assert candidates._counts.sum() * PAIR_BYTES > 4 * mib * 2**20
    known = [*logits, predicted, *(x for x in vars(candidates).values() if isinstance(x, Tensor))]
    with MostBytes(known) as most:
        assign(logits, BoxOverlap(candidates, predicted), candidates)
    assert most.bytes < mib * 2**20 + 200 * len(candidates.cell)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_positions_are_found_without_counting_them(share: float) -> None:
    mask = torch.rand(1000, generator=torch.Generator().manual_seed(1)) < share
    rank = mask.cumsum(0) - 1
    assert torch.equal(scattered(mask, rank, int(mask.sum())), mask.nonzero().squeeze(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("variant", "waits"), [("yolov9", 2), ("one_to_one", 3)])
def test_a_gpu_is_waited_for_as_often_as_the_module_says(variant: str, waits: int) -> None:
    logits, boxes, targets = scene(3)
    cuda = torch.device("cuda")
    case = [x.to(cuda) for x in logits], boxes.to(cuda), targets.to(cuda)
    first = first_anchors([h * w for h, w in SHAPES]).to(cuda)
    expected = sparse_scores(logits, boxes, targets, **VARIANTS[variant])
    options = {key: value for key, value in VARIANTS[variant].items() if key != "smallest_side"}
    for _ in range(2):  # the first time prepares kernels
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                candidates = Candidates(
                    case[2],
                    batch=len(boxes),
                    shapes=SHAPES,
                    strides=STRIDES,
                    smallest_side=VARIANTS[variant].get("smallest_side", 0.0),
                )
                index = candidates.cell + first[candidates.level]
                found = assign(case[0], case[1][candidates.of_image, index], candidates, **options)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("synchronizing" in str(w.message) for w in caught) == waits
    assert found.score.sum().item() == pytest.approx(expected.sum().item(), rel=1e-4)


def test_memory_format_does_not_change_the_result() -> None:
    logits, boxes, targets = scene(12)
    last = [x.contiguous(memory_format=torch.channels_last) for x in logits]
    assert torch.equal(sparse_scores(last, boxes, targets), sparse_scores(logits, boxes, targets))


def test_of_identical_objects_the_first_takes_everything() -> None:
    logits, boxes, _ = scene(0)
    same = torch.tensor([[20.0, 20, 90, 80]]).repeat(3, 1)
    targets = Targets(torch.zeros(3, dtype=torch.int64), torch.tensor([2, 0, 1]), same)
    boxes[0] = same[0] + torch.randn(len(boxes[0]), 4)
    logits = [
        torch.zeros_like(x) for x in logits
    ]  # every class equally likely, so all three pick the same anchors
    score = sparse_scores(logits, boxes, targets)
    assert score[0, :, 2].count_nonzero() == 10
    assert score[0, :, :2].count_nonzero() == 0


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_objects_with_non_finite_corners_get_nothing_and_harm_nobody(broken: float) -> None:
    logits, boxes, targets = scene(5)
    spoiled = targets.boxes.clone()
    spoiled[4, 0] = broken
    without = Targets(*(torch.cat((x[:4], x[5:])) for x in targets[:3]))
    expected = sparse_scores(logits, boxes, without)
    assert torch.equal(sparse_scores(logits, boxes, targets._replace(boxes=spoiled)), expected)


def test_no_objects_at_all() -> None:
    logits, boxes, _ = scene(0)
    assert sparse_scores(logits, boxes, Targets.empty()).count_nonzero() == 0


def test_chunks_hold_every_row_once_within_the_budget() -> None:
    lengths = np.array([5, 0, 300, 7, 7, 1, 0, 40])
    parts = list(chunks(lengths, 50))
    rows = np.concatenate(parts)
    assert len(rows) == len(set(rows.tolist()))
    assert {0, 2, 3, 4, 5, 7} <= set(rows.tolist())  # rows of nothing may be left out
    assert all(len(p) == 1 or len(p) * lengths[p].max() <= 50 for p in parts)


def from_dense(data: Any) -> tuple[list[Tensor], Tensor, Targets, Tensor]:
    """Inputs and expected target scores of a golden case with padded ground truth."""
    scores = torch.from_numpy(data["pd_scores"])
    points = torch.from_numpy(data["anc_points"])
    levels, start = [], 0
    logits = torch.logit(scores.double()).float().transpose(1, 2)
    while start < len(points):  # a level ends where the points start again
        width = int((points[start:, 1] == points[start, 1]).int().cumprod(0).sum())
        rows = points[start:, 1][::width]
        height = int((rows.diff(prepend=rows[:1] - 1) > 0).int().cumprod(0).sum())
        levels.append(logits[:, :, start : start + width * height].unflatten(2, (height, width)))
        start += width * height
    assert len(levels) == 3
    real = torch.from_numpy(data["mask_gt"])[..., 0] > 0
    image = real.nonzero()[:, 0]
    classes = torch.from_numpy(data["gt_labels"])[..., 0][real].long()
    targets = Targets(image, classes, torch.from_numpy(data["gt_bboxes"])[real])
    return levels, torch.from_numpy(data["pd_bboxes"]), targets, real


@pytest.mark.parametrize("case", ["regular", "outside_and_tiny", "no_gt"])
def test_golden_yolov9(fixtures_v9: Path, case: str) -> None:
    data = np.load(fixtures_v9 / f"tal_{case}.npz")
    logits, boxes, targets, _ = from_dense(data)
    ours = sparse_scores(logits, boxes, targets)
    np.testing.assert_allclose(ours.numpy(), data["target_scores"], atol=1e-5)
    certain = ~data["dont_care"] & (data["target_scores"].sum(-1) > 0)
    assert (certain == ((ours.sum(-1) > 0).numpy() & ~data["dont_care"])).all()


@pytest.mark.parametrize("case", ["mixed", "stal_tiny"])
@pytest.mark.parametrize("branch", ["o2m", "o2o"])
def test_golden_yolo26(shared: Path, case: str, branch: str) -> None:
    data = np.load(shared / "fixtures" / "yolo26" / "assigner" / f"{case}.npz")
    logits, boxes, targets, real = from_dense(data)
    ours = sparse_scores(
        logits, boxes, targets, **VARIANTS["one_to_many" if branch == "o2m" else "one_to_one"]
    )
    np.testing.assert_allclose(ours.numpy(), data[f"{branch}.target_scores"], atol=1e-5)
    candidates = Candidates(
        targets,
        batch=len(boxes),
        shapes=[tuple(x.shape[2:]) for x in logits],
        strides=STRIDES,
        smallest_side=16.0,
    )
    assert candidates._counts.sum(1).tolist() == data["candidates_per_gt"][real.numpy()].tolist()
