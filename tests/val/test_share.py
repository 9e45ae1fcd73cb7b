"""A validation shared by ranks has the result of one rank, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from crew import together
from holdfast.data.dataset_file import read_dataset_file
from holdfast.data.shapes import write_demo
from holdfast.data.splits import split_index
from holdfast.devices import Precision
from holdfast.load import load_model
from holdfast.losses.detect import criterion
from holdfast.models.registry import family_of
from holdfast.val.run import Evaluator, ValResult


def validate(ranks: Any, data: Path, name: str = "gelan-t") -> ValResult:
    torch.manual_seed(0)
    dataset = read_dataset_file(data)
    model = load_model(name, names=dataset.names, keypoints=dataset.keypoints).model
    evaluator = Evaluator(
        split_index(dataset, "train", needs=model.needs, single_cls=False, workers=0),
        names=dataset.names,
        imgsz=64,
        stride=32,
        batch=3,
        workers=1,
        rect=True,
        device=torch.device("cpu"),
        precision=Precision(torch.float32, False, ""),
        conf=0.001,
        iou=0.7,
        max_det=50,
        nms=None,
        single_cls=False,
        needs=model.needs,
        answers=model.answers,
        ranks=ranks,
    )
    if name != "gelan-t":
        return evaluator(model)
    loss = criterion(
        model.outputs,
        strides=model.strides,
        reg_max=model.reg_max,
        box=7.5,
        cls=0.5,
        dfl=1.5,
        label_smoothing=0.0,
    )
    try:
        return evaluator(model, loss=loss)
    finally:
        evaluator.close()


@pytest.mark.parametrize("world", [2, pytest.param(5, marks=pytest.mark.slow)])  # four batches for five
def test_the_merged_result_is_that_of_one_process(tmp_path: Path, world: int) -> None:
    data = write_demo(tmp_path, images=12)  # ten for training
    torch.set_num_threads(1)
    alone = validate(None, data)
    told = together(validate, data, world=world)
    assert [number for number, _ in told[0].predictions] == [number for number, _ in alone.predictions]
    for (_, ours), (_, theirs) in zip(alone.predictions, told[0].predictions, strict=True):
        assert torch.equal(ours.rows, theirs.rows)
    assert alone.predictions
    for result in told:
        assert result.losses == alone.losses
        assert result.metrics.results_dict == alone.metrics.results_dict
        assert result.metrics.fitness == alone.metrics.fitness
        assert result.images == alone.images == 10
    assert told[1].predictions == []


@pytest.mark.parametrize(
    "name",
    [
        "yolo26n-seg",
        *(pytest.param(f"yolo26n-{task}", marks=pytest.mark.slow) for task in ("pose", "obb", "cls")),
    ],
)
def test_every_task_is_merged(tmp_path: Path, name: str) -> None:
    data = write_demo(tmp_path, images=12, needs=family_of(name).needs)
    torch.set_num_threads(1)
    alone = validate(None, data, name)
    told = together(validate, data, name, world=2)
    for (number, ours), (other, theirs) in zip(alone.predictions, told[0].predictions, strict=True):
        assert number == other
        for part, again in zip(ours, theirs, strict=True):
            assert torch.equal(part, again) if isinstance(part, torch.Tensor) else part == again
    for result in told:
        assert type(result.metrics) is type(alone.metrics)
        assert result.metrics.results_dict == alone.metrics.results_dict
