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
from holdfast.val.run import Evaluator, ValResult


def validate(ranks: Any, data: Path) -> ValResult:
    torch.manual_seed(0)
    dataset = read_dataset_file(data)
    model = load_model("gelan-t", names=dataset.names).model
    evaluator = Evaluator(
        split_index(dataset, "train", single_cls=False, workers=0),
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
        ranks=ranks,
    )
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
