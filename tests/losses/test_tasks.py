"""Losses beyond boxes: golden values, gradients and assignments; parts of a batch add up; nothing breaks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import golden26
from holdfast import models
from holdfast.geometry.keypoints import COCO_SIGMAS, keypoint_sigmas
from holdfast.geometry.rotated import rotated_hull
from holdfast.geometry.targets import Targets, filled_out
from holdfast.losses.assign import Assignment, assign
from holdfast.losses.branch import combine
from holdfast.losses.candidates import Candidates
from holdfast.losses.detect import criterion
from holdfast.losses.overlap import (
    BoxOverlap,
    KeypointOverlap,
    MaskOverlap,
    Overlap,
    RotatedOverlap,
    TrueMasks,
)
from holdfast.losses.segment import semantic_loss
from holdfast.models.detector import Detector

TASKS = {"seg": "segment", "pose": "pose", "obb": "obb", "cls": "classify"}
SHAPES, STRIDES = [(8, 12), (4, 6), (2, 3)], (8, 16, 32)
every_task = pytest.mark.parametrize("ending", TASKS)
every_branch = pytest.mark.parametrize(
    ("branch", "options"), [("o2m", {"topk": 10}), ("o2o", {"topk": 7, "second_topk": 1})]
)


def loss_of(model: Detector) -> Any:
    return criterion(
        model.outputs, extra=model.extra, strides=model.strides, reg_max=model.reg_max,
        box=7.5, cls=0.5, dfl=1.5, label_smoothing=0.0,
    )  # fmt: skip


@every_task
def test_golden_losses_and_gradients(ending: str, fixtures_26: Path) -> None:
    want = json.loads((fixtures_26 / f"yolo26n-{ending}" / "loss.json").read_text())
    targets = golden26.targets(fixtures_26, TASKS[ending])
    model = golden26.model(fixtures_26, f"yolo26n-{ending}").train()
    loss = loss_of(model)
    outputs = model(golden26.image("yolo26-train", 4))
    batch = 4 if loss.per_batch else 1
    for case in want["progress"][::-1]:
        branches = loss(outputs, targets, progress=case["updates"] / (want["epochs"] - 1))
        total, items = combine(branches, batch)
        assert total.item() == pytest.approx(case["loss_sum"], rel=5e-4)
        terms = dict(zip(loss.terms, items.tolist(), strict=True))
        names = {key.removesuffix("_loss").replace("loss", "cls"): v for key, v in case["items"].items()}
        assert terms == pytest.approx(names, rel=5e-4)
    for branch, key in zip(branches, want["assigner"] and ("one2many", "one2one"), strict=False):
        facts = want["assigner"][key]
        assert branch.normaliser.item() == pytest.approx(facts["target_scores_sum"], rel=5e-4)
    total.backward()
    names = model.keymap(model.layout)
    gradients = {names.to_official(key): p.grad.double().norm() for key, p in model.named_parameters()}
    for key, norm in case["grad_norm"].items():
        assert gradients[key].item() == pytest.approx(norm, rel=3e-3), key
    everything = torch.stack(list(gradients.values())).norm().item()
    assert everything == pytest.approx(case["total_grad_norm"], rel=3e-3)


def test_smaller_spreads_of_keypoints_make_the_same_errors_larger(fixtures_26: Path) -> None:
    model = golden26.model(fixtures_26, "yolo26n-pose").train()
    outputs, targets = model(golden26.image("yolo26-train", 4)), golden26.targets(fixtures_26, "pose")
    gains = {"box": 0.0, "cls": 0.0, "dfl": 0.0, "label_smoothing": 0.0, "pose": 1.0, "kobj": 0.0, "rle": 0.0}
    pose = []
    for sigmas in ((), keypoint_sigmas((17, 3)), (0.01,) * 17):
        loss = criterion(model.outputs, extra=model.extra, strides=model.strides, reg_max=model.reg_max,
                         sigmas=sigmas, **gains)
        pose.append(combine(loss(outputs, targets), 4)[0].item())
    assert pose[0] == pose[1] < pose[2]


@every_task
def test_golden_validation_losses(ending: str, fixtures_26: Path) -> None:
    want = json.loads((fixtures_26 / f"yolo26n-{ending}" / "loss.json").read_text())["eval_mode"]["items"]
    model = golden26.model(fixtures_26, f"yolo26n-{ending}").train()
    with torch.no_grad():
        loss = loss_of(model)
        outputs = model.eval()(golden26.image("yolo26-train", 4))
        items = combine(loss(outputs, golden26.targets(fixtures_26, TASKS[ending])), 1)[1]
    names = {key.removesuffix("_loss").replace("loss", "cls"): value for key, value in want.items()}
    assert dict(zip(loss.terms, items.tolist(), strict=True)) == pytest.approx(names, rel=5e-4)


class Scene:
    """An assignment problem of the fixtures."""

    def __init__(self, folder: Path, name: str) -> None:
        self.data = {k: torch.from_numpy(v) for k, v in np.load(folder / "assigner" / f"{name}.npz").items()}
        self.image, self.row = (self.data["mask_gt"][..., 0] > 0).nonzero(as_tuple=True)
        boxes = self.of_objects("gt_bboxes")
        classes = self.of_objects("gt_labels")[:, 0].long()
        self.targets = Targets(self.image, classes, boxes)
        if boxes.shape[1] == 5:
            self.targets = Targets(self.image, classes, rotated_hull(boxes), rotated=boxes)

    def of_objects(self, key: str) -> Tensor:
        return self.data[key][self.image, self.row]

    def candidates(self, *, gated: bool = False) -> Candidates:
        found = Candidates(
            self.targets, batch=2, shapes=SHAPES, strides=STRIDES, smallest_side=16.0, gated=gated
        )
        self.anchor = found.cell + torch.tensor([0, 96, 120])[found.level]
        self.place = found.of_image, self.anchor
        return found

    def check(self, candidates: Candidates, overlap: Overlap, branch: str, options: dict[str, int]) -> None:
        scores = self.data["pd_scores"]
        levels = torch.logit(scores.double()).float().transpose(1, 2).split([96, 24, 6], 2)
        logits = [x.reshape(2, -1, *shape) for x, shape in zip(levels, SHAPES, strict=True)]
        found: Assignment = assign(logits, overlap, candidates, contest="candidates", **options)
        result = torch.zeros_like(scores)
        image, anchor = candidates.of_image[found.anchor], self.anchor[found.anchor]
        result[image, anchor, self.targets.classes[found.target]] = found.score
        torch.testing.assert_close(result, self.data[f"{branch}.target_scores"], atol=1e-5, rtol=0)
        positive = torch.zeros_like(self.data[f"{branch}.fg_mask"])
        positive[image, anchor] = True
        assert torch.equal(positive, self.data[f"{branch}.fg_mask"])
        rows = self.row[found.target]
        assert torch.equal(rows, self.data[f"{branch}.target_gt_idx"][image, anchor])


@every_branch
def test_golden_assignment_of_rotated_boxes(branch: str, options: dict[str, int], fixtures_26: Path) -> None:
    scene = Scene(fixtures_26, "rotated_stal")
    candidates = scene.candidates()
    overlap = RotatedOverlap(candidates, scene.targets.rotated, scene.data["pd_bboxes"][scene.place])
    scene.check(candidates, overlap, branch, options)


@every_branch
def test_golden_assignment_by_keypoints(branch: str, options: dict[str, int], fixtures_26: Path) -> None:
    scene = Scene(fixtures_26, "pose")
    candidates = scene.candidates(gated=True)
    boxes = BoxOverlap(candidates, scene.data["pd_bboxes"][scene.place])
    truth, points = scene.of_objects("gt_kpts"), scene.data["pd_kpts"][scene.place]
    overlap = KeypointOverlap(boxes, truth, scene.targets.boxes, points, scene.data["sigmas"])
    scene.check(candidates, overlap, branch, options)


def test_an_object_with_keypoints_far_from_all_predictions_still_has_an_anchor() -> None:
    boxes = torch.tensor([[8.0, 8.0, 30.0, 30.0]])
    targets = Targets(torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), boxes)
    candidates = Candidates(targets, batch=1, shapes=SHAPES, strides=STRIDES, smallest_side=16.0, gated=True)
    keypoints = torch.zeros(1, 17, 3)
    keypoints[0, :3] = torch.tensor([10.0, 10.0, 2.0])  # the face alone, a corner of 22 pixels
    points = torch.full((len(candidates.cell), 17, 2), 26.0)
    predicted = boxes.expand(len(candidates.cell), 4) + torch.tensor([0.0, 0.0, 2.0, 2.0])
    logits = [torch.zeros(1, 1, *shape) for shape in SHAPES]
    found = []
    for shift in (0.0, 15.5):  # far from the face, and next to it
        overlap = KeypointOverlap(
            BoxOverlap(candidates, predicted), keypoints, boxes, points - shift, torch.tensor(COCO_SIGMAS)
        )
        found.append(assign(logits, overlap, candidates, topk=7, second_topk=1))
    assert [len(one.anchor) for one in found] == [1, 1]
    box = 22 * 22 / (24 * 24)
    assert found[0].score.item() == pytest.approx(box, abs=0.01)  # as good as its box, by CIoU
    assert found[1].score.item() == pytest.approx(0.684, abs=0.002)  # OKS of half a pixel in x and in y


class DenseMasks:
    """True masks that may overlap, as the fixture has them."""

    def __init__(self, masks: Tensor) -> None:
        self.masks = masks

    def window(self, index: int, y1: int, y2: int, x1: int, x2: int) -> Tensor:
        return self.masks[index, y1:y2, x1:x2]

    def areas(self) -> Tensor:
        return self.masks.flatten(1).sum(1).float()


@every_branch
def test_golden_assignment_by_masks(branch: str, options: dict[str, int], fixtures_26: Path) -> None:
    scene = Scene(fixtures_26, "seg")
    candidates = scene.candidates()
    overlap = MaskOverlap(
        candidates, scene.data["pd_bboxes"][scene.place], scene.data["pd_coef"][scene.place],
        scene.data["proto"], DenseMasks(scene.of_objects("gt_masks")),
        scale=0.25, topk=options["topk"], alpha=0.5, beta=6.0,
    )  # fmt: skip
    scene.check(candidates, overlap, branch, options)


def test_masks_of_several_layers_are_whole_and_the_highest_is_seen() -> None:
    lower, upper = torch.zeros(2, 1, 1, 8, 8, dtype=torch.int16)
    lower[..., 1:7, 1:7], upper[..., 2:4, 2:4] = 2, 1  # the second object, and the first over it
    image, masks = torch.tensor([0, 0]), torch.cat((lower, upper), 1)
    truth = TrueMasks.of(masks, image)
    assert truth.areas().tolist() == [4, 36]
    assert truth.window(1, 0, 8, 0, 8).sum() == 36
    seen = torch.where(upper > 0, upper, lower)
    targets = Targets(image, torch.tensor([3, 1]), torch.tensor([[2.0, 2, 4, 4], [1, 1, 7, 7]]))
    logits = torch.randn(1, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(semantic_loss(logits, masks, targets), semantic_loss(logits, seen, targets))
    assert TrueMasks.of(seen, image).areas().tolist() == [4, 32]


def objects(images: int, count: int, *, side: float = 30.0) -> Targets:
    g = torch.Generator().manual_seed(1)
    corner = torch.rand(count, 2, generator=g) * (96 - side)
    boxes = torch.cat((corner, corner + side * (0.5 + 0.5 * torch.rand(count, 2, generator=g))), 1)
    image = torch.randint(0, images, (count,), generator=g).sort().values
    found = Targets(image, torch.randint(0, 5, (count,), generator=g), boxes)
    return filled_out(found, images=images, side=96)


HARD = {
    "background": objects(2, 0),
    "no area": filled_out(
        Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[20.0, 20, 20, 50]])), images=2, side=96
    ),
    "not finite": objects(2, 2)._replace(
        boxes=torch.full((2, 4), float("nan")), rotated=torch.full((2, 5), float("nan"))
    ),
    "nothing labelled": objects(2, 3)._replace(
        keypoints=torch.zeros(3, 17, 3), masks=torch.zeros(2, 1, 24, 24, dtype=torch.int16)
    ),
    "hundreds": objects(2, 300),
}


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("ending", ["seg", "pose", "obb"])
def test_losses_and_gradients_are_finite_and_reach_every_parameter(ending: str, case: str) -> None:
    torch.manual_seed(0)
    model = models.build(f"yolo26n-{ending}", 5).train()
    outputs = model(torch.rand(2, 3, 96, 96))
    total, items = combine(loss_of(model)(outputs, HARD[case], progress=0.5), 2)
    assert total.isfinite()
    assert items.isfinite().all()
    total.backward()
    grads = [(key, p.grad) for key, p in model.named_parameters()]
    assert [key for key, grad in grads if grad is not None and not grad.isfinite().all()] == []
    assert [key for key, grad in grads if grad is None] == []


@pytest.mark.parametrize("ending", ["seg", "pose", "obb"])
def test_a_loss_without_the_labels_of_its_task_says_so(ending: str) -> None:
    model = models.build(f"yolo26n-{ending}", 5).train()
    outputs = model(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="needs targets with"):
        loss_of(model)(outputs, Targets.empty())
