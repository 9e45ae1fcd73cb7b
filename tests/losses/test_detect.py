"""The detection loss: golden values and gradients, settings that act, sums that split, hard batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

import golden
from holdfast.geometry.targets import Targets
from holdfast.losses.branch import combine
from holdfast.losses.detect import DetectionLoss
from holdfast.models.outputs import Branch, DetectOutputs

STRIDES = (8, 16, 32)


def targets_of(rows: Sequence[Sequence[float]], height: int, width: int) -> Targets:
    """Rows of image, class, cx, cy, w, h (normalised)."""
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    box = table[:, 2:] * torch.tensor([width, height, width, height])
    corners = torch.cat((box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2), 1)
    return Targets(table[:, 0].long(), table[:, 1].long(), corners)


def head_map(name: str) -> Tensor:
    """A synthetic raw map, channels 64 box + classes, by the rule of the fixtures."""
    shape = tuple(int(n) for n in name.split("/")[-1].split("x"))
    n = torch.from_numpy(golden.rng(name).standard_normal(shape))
    n[:, :64] = 1.5 * n[:, :64] - 0.3 * (torch.arange(64) % 16).view(1, -1, 1, 1)
    n[:, 64:] = 1.5 * n[:, 64:] - 2
    return n.float()


def outputs(
    batch: int, size: int, classes: int = 5, *, auxiliary: bool = False, spread: float = 1.5
) -> tuple[DetectOutputs, list[Tensor]]:
    """Random maps, and all of them in one list."""

    def branch() -> Branch:
        maps = []
        for channels in (64, classes):
            shapes = [(batch, channels, size // s, size // s) for s in STRIDES]
            maps.append(tuple((torch.randn(shape) * spread).requires_grad_() for shape in shapes))
        return Branch(*maps)

    result = DetectOutputs(branch(), branch() if auxiliary else None)
    return result, [x for part in result if part for level in part[:2] for x in level]


def boxes_of(batch: int, count: int, size: int, classes: int = 5) -> Targets:
    image = torch.randint(0, batch, (count,)).sort().values
    centre, extent = torch.rand(count, 2) * size, torch.rand(count, 2) * size / 2 + 4
    boxes = torch.cat((centre - extent / 2, centre + extent / 2), 1).clamp(0, size)
    return Targets(image, torch.randint(0, classes, (count,)), boxes)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mode", ["single", "dual"])
@pytest.mark.parametrize("case", ["mixed", "all_empty", "one_image"])
def test_golden_head_cases(fixtures_v9: Path, case: str, mode: str, layout: torch.memory_format) -> None:
    data = json.loads((fixtures_v9 / "loss_head_cases.json").read_text())[case]
    names = {key: data["map_names"][key] for key in (["main"] if mode == "single" else ["aux", "main"])}
    maps = {key: [head_map(n).to(memory_format=layout).requires_grad_() for n in names[key]] for key in names}
    parts = {key: [tuple(torch.split(x, [64, data["nc"]], 1)) for x in maps[key]] for key in names}
    branches = {key: Branch(*zip(*parts[key], strict=True)) for key in names}
    targets = targets_of(data["targets"], data["height"], data["width"])
    loss = DetectionLoss(strides=STRIDES)
    total, items = combine(loss(DetectOutputs(branches["main"], branches.get("aux")), targets), data["batch"])
    total.backward()
    expected = data[mode]
    assert total.item() == pytest.approx(expected["loss_total"], rel=1e-5)
    assert items.tolist() == pytest.approx(list(expected["loss_items"].values()), rel=1e-5, abs=1e-6)
    for key, gradient in expected["grads"].items():
        branch, level = key.split("_p")
        ours = maps[branch][int(level) - 3].grad
        assert ours[:, :64].norm().item() == pytest.approx(gradient["box_l2"], rel=1e-4, abs=1e-7)
        assert ours[:, 64:].norm().item() == pytest.approx(gradient["cls_l2"], rel=1e-4)
        place = gradient["argmax_flat"]
        assert ours.contiguous().flatten()[place].item() == pytest.approx(gradient["value_there"], rel=1e-4)


@pytest.mark.parametrize(
    "name", ["gelan-s", "yolov9-t", "yolov9-s", pytest.param("yolov9-c", marks=pytest.mark.slow)]
)
def test_golden_models_give_the_golden_loss_and_gradients(fixtures_v9: Path, name: str) -> None:
    from holdfast import models
    from holdfast.weights import load_official_state_dict

    data = json.loads((fixtures_v9 / f"{name}.golden.json").read_text())
    model = models.build(name, classes=80)
    load_official_state_dict(model, golden.official_weights(fixtures_v9, name))
    model.train()
    loss = DetectionLoss(strides=STRIDES)
    branches = loss(model(golden.image(4, 128, 160)), targets_of(data["targets"], 128, 160))
    total, items = combine(branches, 4)
    total.backward()
    expected = data["train"]
    assert total.item() == pytest.approx(expected["loss_total"], rel=1e-4)
    items_expected = expected["loss_items"]
    items_expected = list(items_expected.values()) if isinstance(items_expected, dict) else items_expected
    assert items.tolist() == pytest.approx(items_expected, rel=1e-4)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.stack([g.double().norm() for g in gradients]).norm().item()
    assert norm == pytest.approx(expected["grad_l2_all"], rel=2e-3)


def test_gains_and_auxiliary_weight_act() -> None:
    maps, _ = outputs(2, 64, auxiliary=True)
    targets = boxes_of(2, 9, 64)
    base = DetectionLoss(strides=STRIDES)(maps, targets)
    other = DetectionLoss(strides=STRIDES, box=15.0, cls=0.25, dfl=4.5, auxiliary_weight=1.0)(
        maps, targets
    )
    factors = torch.tensor([2.0, 0.5, 3.0])
    torch.testing.assert_close(other[0].numerators, base[0].numerators * factors)
    torch.testing.assert_close(other[1].numerators, base[1].numerators * factors)
    assert [(part.weight, part.shown) for part in base + other] == [(1, 1), (0.25, 0.25), (1, 1), (1, 1)]
    assert other[1].normaliser == base[1].normaliser


def test_label_smoothing_acts_on_the_class_term_alone() -> None:
    maps, _ = outputs(2, 64)
    targets = boxes_of(2, 9, 64)
    plain = DetectionLoss(strides=STRIDES)(maps, targets)[0]
    smooth = DetectionLoss(strides=STRIDES, label_smoothing=0.1)(maps, targets)[0]
    assert smooth.normaliser == plain.normaliser
    assert torch.equal(smooth.numerators[[0, 2]], plain.numerators[[0, 2]])
    assert smooth.numerators[1] != plain.numerators[1]


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    maps, _ = outputs(6, 96, auxiliary=True)
    targets = boxes_of(6, 25, 96)
    loss = DetectionLoss(strides=STRIDES)
    whole = loss(maps, targets)
    parts = []
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        piece = [Branch(*(tuple(x[rows] for x in part) for part in branch[:2])) for branch in maps if branch]
        mine = (targets.image >= rows.start) & (targets.image < rows.stop)
        image = targets.image[mine] - rows.start
        parts.append(loss(DetectOutputs(*piece), Targets(image, targets.classes[mine], targets.boxes[mine])))
    for branch in range(2):
        torch.testing.assert_close(sum(p[branch].numerators for p in parts), whole[branch].numerators)
        torch.testing.assert_close(sum(p[branch].normaliser for p in parts), whole[branch].normaliser)


def crowd(count: int) -> Targets:
    one = boxes_of(1, count, 96)
    return Targets(torch.ones(count, dtype=torch.int64), one.classes, one.boxes)


HARD = {
    "background_only": Targets.empty(),
    "no_area": Targets(
        torch.tensor([0, 0, 1, 1]),
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([[20.0, 20, 20, 50], [30, 30, 60, 30], [50, 50, 20, 20], [0, 0, 0, 0]]),
    ),
    "not_finite": Targets(
        torch.tensor([0, 1]),
        torch.tensor([0, 1]),
        torch.tensor([[float("nan"), 1, 50, 50], [1, 1, float("inf"), 50]]),
    ),
    "outside": Targets(torch.tensor([0]), torch.tensor([0]), torch.tensor([[-90.0, -90, -10, -10]])),
    "smaller_than_a_cell": Targets(
        torch.tensor([0]), torch.tensor([0]), torch.tensor([[8.1, 8.1, 9.0, 9.0]])
    ),
}


@pytest.mark.parametrize("spread", [0.0, 1.5, 60.0])
@pytest.mark.parametrize("case", [*HARD, "thousands_in_one_image"])
def test_loss_and_gradients_are_finite(case: str, spread: float) -> None:
    maps, leaves = outputs(2, 96, auxiliary=True, spread=spread)
    targets = HARD[case] if case in HARD else crowd(4000)
    total, items = combine(DetectionLoss(strides=STRIDES)(maps, targets), 2)
    total.backward()
    assert total.isfinite()
    assert items.isfinite().all()
    for leaf in leaves:  # every map has a gradient, so distributed training sees every parameter every time
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    if case in HARD:
        assert items[0] == 0
        assert items[2] == 0


def test_background_is_the_plain_cross_entropy() -> None:
    maps, _ = outputs(2, 64)
    total, items = combine(DetectionLoss(strides=STRIDES)(maps, Targets.empty()), 2)
    expected = sum(torch.nn.functional.softplus(x).sum() for x in maps.main.scores) * 0.5
    assert items[1].item() == pytest.approx(expected.item(), rel=1e-6)
    assert total.item() == pytest.approx(2 * expected.item(), rel=1e-6)


def test_everything_is_computed_in_float32_under_autocast() -> None:
    maps, _ = outputs(2, 64)
    half = DetectOutputs(Branch(*(tuple(x.detach().bfloat16() for x in level) for level in maps.main[:2])))
    full = DetectOutputs(Branch(*(tuple(x.float() for x in level) for level in half.main[:2])))
    loss, targets = DetectionLoss(strides=STRIDES), boxes_of(2, 9, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = loss(half, targets)[0]
    assert ours.numerators.dtype == torch.float32
    torch.testing.assert_close(ours.numerators, loss(full, targets)[0].numerators, rtol=1e-6, atol=1e-6)
