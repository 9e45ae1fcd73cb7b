"""Runs with planted faults end as they should, and cost no more than said."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from holdfast.data.shapes import write_demo
from holdfast.errors import Diverged
from holdfast.health.log import NAME, read
from holdfast.health.records import History
from holdfast.models.detector import Detector
from holdfast.train.finish import TrainResult
from steps import has_white, spoil

Train = Callable[..., TrainResult]
PLAIN = {"mosaic": 0, "translate": 0, "scale": 0, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0, "model": "yolo26n"}


@contextmanager
def after_forward(fault: Callable[[int, Tensor, Any], Any]) -> Iterator[None]:
    """Calls `fault(number of the pass, images, outputs)` after every training pass of a model."""
    count = 0

    def hook(module: nn.Module, args: tuple[Tensor], outputs: Any) -> Any:
        nonlocal count
        if isinstance(module, Detector) and module.training:
            count += 1
            return fault(count, args[0], outputs)
        return None

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def poisoned(*steps: int) -> Iterator[None]:
    """Makes weights NaN after the optimizer's n-th steps."""
    count = 0

    def hook(optimizer: Optimizer, *_: Any) -> None:
        nonlocal count
        count += 1
        if count in steps:
            optimizer.param_groups[0]["params"][0].data.view(-1)[0] = float("nan")

    handle = register_optimizer_step_post_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def state(result: TrainResult) -> dict[str, Tensor]:
    content = torch.load(result.folder / "weights" / "last.pt", weights_only=True)
    found = {f"{part} {key}": value for part in ("weights", "ema") for key, value in content[part].items()}
    for number, kept in content["optimizer"]["state"].items():
        found.update({f"optimizer {number} {key}": value for key, value in kept.items()})
    return found


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert not [key for key in a if not torch.equal(a[key], b[key])]


def table(result: TrainResult) -> list[list[str]]:
    with (result.folder / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def test_poisoned_weights_are_taken_back_and_the_run_ends_as_without_them(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = train(**PLAIN)
    with poisoned(2, 5):  # the second in the second epoch
        hurt = train(**PLAIN, name="hurt")
    assert_same(state(clean), state(hurt))
    assert capsys.readouterr().out.count("weights are not finite") == 2
    assert (clean.folder / "results.csv").read_text().count("\n") == 3


def test_a_fault_that_does_not_come_again_costs_nothing(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = train(**PLAIN)
    with after_forward(lambda count, _, outputs: spoil(outputs) if count == 2 else None):
        hurt = train(**PLAIN, name="hurt")
    assert_same(state(clean), state(hurt))
    assert "doing the step again" in capsys.readouterr().out


def test_an_image_that_spoils_steps_is_named_and_left_out(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = write_demo(tmp_path / "data", images=12)
    victim = sorted((data.parent / "images" / "train").iterdir())[3]
    cv2.imwrite(str(victim), np.full_like(cv2.imread(str(victim)), 255))

    with after_forward(lambda _, images, outputs: spoil(outputs) if has_white(images) else None):
        result = train(**PLAIN, data=data, epochs=3)
    assert [(Path(row[0]).name, row[1]) for row in table(result)] == [
        (victim.name, "the loss is not finite")
    ]
    assert capsys.readouterr().out.count("left out:") == 1  # another image stands in later
    assert all(value.isfinite().all() for value in state(result).values())
    assert result.progress.step == 9
    health = History.of(read(result.folder / NAME))
    (event,) = (event for event in health.events if event.what == "skip")
    assert [Path(path).name for path in event.facts["images"]] == [victim.name]
    assert any(name.startswith("one_to_one.cls") for name in event.facts["layers"])
    assert sum(epoch.skipped for epoch in health.epochs) >= 4  # the batch of that step
    assert [finding.rule for finding in health.findings if finding.rule == "non-finite"] == ["non-finite"]


def test_a_run_that_cannot_stay_finite_ends_with_its_last_good_state(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (
        after_forward(lambda count, _, outputs: spoil(outputs) if count > 3 else None),
        pytest.raises(Diverged, match=r"also in float32 and with 0\.125"),
    ):
        train(**PLAIN, epochs=5)
    content = torch.load(tmp_path / "exp" / "weights" / "last.pt", weights_only=True)
    assert content["progress"]["step"] == 3
    assert all(value.isfinite().all() for value in content["weights"].values())
    moves = [line for line in capsys.readouterr().out.splitlines() if "going back" in line]
    assert len(moves) == (5 if any("float32" in line for line in moves) else 4)
