"""The loss of YOLO26: golden values and gradients over the run, and what its two branches may touch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import golden26
from holdfast import models
from holdfast.geometry.targets import Targets
from holdfast.losses.branch import combine
from holdfast.losses.detect import DetectionLoss, DualLoss, criterion
from holdfast.models.outputs import Branch, DetectOutputs, DualOutputs
from holdfast.weights import load_official_state_dict, official_state_dict

STRIDES = (8, 16, 32)


def golden_model(folder: Path, name: str) -> Any:
    model = models.build(name)
    load_official_state_dict(model, golden26.official_weights(folder, name), strict=True)
    return model.train()


@pytest.mark.parametrize("name", ["yolo26n", "yolo26s", pytest.param("yolo26m", marks=pytest.mark.slow)])
def test_golden_losses_and_gradients_at_the_first_a_middle_and_the_last_epoch(
    fixtures_26: Path, name: str
) -> None:
    want = json.loads((fixtures_26 / name / "loss.json").read_text())
    targets = golden26.targets(fixtures_26)
    loss = DualLoss(strides=STRIDES)
    for case in want["progress"]:
        model = golden_model(fixtures_26, name)
        names = model.keymap(name)
        outputs = model(golden26.image("yolo26-train", 4))
        branches = loss(outputs, targets, progress=case["updates"] / (want["epochs"] - 1))
        assert [part.weight for part in branches] == pytest.approx([case["o2m"], case["o2o"]], abs=1e-6)
        total, items = combine(branches, 4)
        assert total.item() == pytest.approx(case["loss_sum"], rel=5e-4)
        assert items.tolist() == pytest.approx(list(case["items"].values()), rel=5e-4)
        total.backward()
        gradients = {names.to_official(key): p.grad.double().norm() for key, p in model.named_parameters()}
        for key, norm in case["grad_norm"].items():
            assert gradients[key].item() == pytest.approx(norm, rel=3e-3), key
        everything = torch.stack(list(gradients.values())).norm().item()
        assert everything == pytest.approx(case["total_grad_norm"], rel=3e-3)
    state = official_state_dict(model)
    for key, norm in want["bn_after_forward"].items():
        assert state[key].double().norm().item() == pytest.approx(norm, rel=1e-4)


def test_golden_branches_alone(fixtures_26: Path) -> None:
    want = json.loads((fixtures_26 / "yolo26n" / "loss.json").read_text())
    with torch.no_grad():
        outputs = golden_model(fixtures_26, "yolo26n")(golden26.image("yolo26-train", 4))
        many, one = DualLoss(strides=STRIDES)(outputs, golden26.targets(fixtures_26))
    for part, key in ((many, "one2many"), (one, "one2one")):
        alone = (part.numerators / part.normaliser.clamp(min=1) * 4).tolist()
        assert alone == pytest.approx(want["branches"][key]["loss_vector"], rel=5e-4)
        assert part.normaliser.item() == pytest.approx(want["assigner"][key]["target_scores_sum"], rel=5e-4)


def test_golden_validation_loss(fixtures_26: Path) -> None:
    want = json.loads((fixtures_26 / "yolo26n" / "loss.json").read_text())["eval_mode"]
    model = golden_model(fixtures_26, "yolo26n").eval()
    with torch.no_grad():
        outputs = model(golden26.image("yolo26-train", 4))
        loss = DualLoss(strides=STRIDES)
        total, items = combine(loss(outputs, golden26.targets(fixtures_26)), 4)
        alone = loss(model.deploy()(golden26.image("yolo26-train", 4)), golden26.targets(fixtures_26))
    assert total.item() == pytest.approx(sum(want["loss_vector"]), rel=5e-4)
    assert items.tolist() == pytest.approx(list(want["items"].values()), rel=5e-4)
    torch.testing.assert_close(combine(alone, 4)[1], items, rtol=1e-4, atol=1e-4)  # deployed


def outputs(batch: int, *, seed: int = 0) -> tuple[DualOutputs, list[torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    leaves: list[torch.Tensor] = []

    def branch() -> Branch:
        parts = []
        for channels, shift in ((4, 1.5), (5, -3.0)):
            level = [torch.randn(batch, channels, 96 // s, 96 // s, generator=g) + shift for s in STRIDES]
            leaves.extend(x.requires_grad_() for x in level)
            parts.append(tuple(level))
        return Branch(*parts)

    return DualOutputs(branch(), branch()), leaves


def some(batch: int, count: int, *, side: float = 30.0) -> Targets:
    g = torch.Generator().manual_seed(1)
    corner = torch.rand(count, 2, generator=g) * (96 - side)
    boxes = torch.cat((corner, corner + side * (0.5 + 0.5 * torch.rand(count, 2, generator=g))), 1)
    image = torch.randint(0, batch, (count,), generator=g).sort().values
    return Targets(image, torch.randint(0, 5, (count,), generator=g), boxes)


def test_weights_of_the_branches_move_along_a_line_and_stay_in_range() -> None:
    loss = DualLoss(strides=STRIDES)
    assert loss.many_weight(0.0) == pytest.approx(0.8)
    assert loss.many_weight(0.5) == pytest.approx(0.45)
    assert loss.many_weight(1.0) == loss.many_weight(1.5) == pytest.approx(0.1)


def test_every_object_teaches_exactly_one_anchor_of_the_one_to_one_branch() -> None:
    maps, _ = outputs(2)
    targets = some(2, 12)
    _, one = DualLoss(strides=STRIDES)(maps, targets)
    # with one anchor per object the target score is its overlap, so the sum is at most the objects
    assert 0 < one.normaliser <= len(targets.image)


def test_an_object_smaller_than_a_cell_has_anchors_to_learn_from() -> None:
    maps, leaves = outputs(1)
    tiny = Targets(torch.tensor([0]), torch.tensor([2]), torch.tensor([[40.5, 40.5, 43.5, 43.5]]))
    for leaf in leaves[:3] + leaves[6:9]:  # predicted boxes of about the right size
        leaf.data.fill_(0.2)
    many, one = DualLoss(strides=STRIDES)(maps, tiny)
    assert many.normaliser > 0
    assert one.normaliser > 0
    strict = DetectionLoss(strides=STRIDES, reg_max=1)(DetectOutputs(maps.one_to_many), tiny)[0]
    assert strict.normaliser == 0  # no anchor lies inside the box itself


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    maps, _ = outputs(6)
    targets = some(6, 25)
    loss = DualLoss(strides=STRIDES)
    whole = loss(maps, targets, progress=0.3)
    parts = []
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        pieces = (Branch(*(tuple(x[rows] for x in level) for level in branch[:2])) for branch in maps)
        piece = DualOutputs(*pieces)
        mine = (targets.image >= rows.start) & (targets.image < rows.stop)
        image = targets.image[mine] - rows.start
        parts.append(loss(piece, Targets(image, targets.classes[mine], targets.boxes[mine]), progress=0.3))
    for branch in range(2):
        torch.testing.assert_close(sum(p[branch].numerators for p in parts), whole[branch].numerators)
        torch.testing.assert_close(sum(p[branch].normaliser for p in parts), whole[branch].normaliser)


HARD = {
    "background_only": Targets.empty(),
    "no_area": Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[20.0, 20, 20, 50]])),
    "not_finite": Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[float("nan"), 1, 50, 50]])),
    "outside": Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[-90.0, -90, -10, -10]])),
    "thousands": some(1, 3000),
}


@pytest.mark.parametrize("case", HARD)
def test_loss_and_gradients_are_finite_and_reach_every_map(case: str) -> None:
    maps, leaves = outputs(2)
    total, items = combine(DualLoss(strides=STRIDES)(maps, HARD[case], progress=0.5), 2)
    total.backward()
    assert total.isfinite()
    assert items.isfinite().all()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_criterion_goes_by_the_outputs_and_hands_on_the_gains() -> None:
    keys = {"strides": STRIDES, "box": 1.0, "cls": 2.0, "dfl": 3.0, "label_smoothing": 0.0}
    dual = criterion(DualOutputs, reg_max=1, **keys)
    single = criterion(DetectOutputs, reg_max=16, **keys)
    assert isinstance(dual, DualLoss)
    assert isinstance(single, DetectionLoss)
    assert (dual.terms, single.terms) == (("box", "cls", "l1"), ("box", "cls", "dfl"))
    maps, _ = outputs(2)
    plain = DualLoss(strides=STRIDES)(maps, some(2, 9))
    gained = dual(maps, some(2, 9))
    factors = torch.tensor([1 / 7.5, 2 / 0.5, 3 / 1.5])
    for a, b in zip(plain, gained, strict=True):
        torch.testing.assert_close(b.numerators, a.numerators * factors)
