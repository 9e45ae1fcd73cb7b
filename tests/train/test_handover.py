"""A result comes out of the file as it went in, and a file cannot make anything but classes of ours."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.evaluate.coco import DetectionEvaluator
from holdfast.geometry.targets import Targets
from holdfast.post.original import Found
from holdfast.train.checkpoint import Progress
from holdfast.train.finish import TrainResult
from holdfast.train.handover import hand_over, take_over
from holdfast.val.run import ValResult


def result() -> TrainResult:
    evaluator = DetectionEvaluator({0: "one", 1: "two"})
    found = torch.tensor([[10.0, 10, 30, 30, 0.9, 0], [0, 0, 5, 5, 0.4, 1]])
    truth = torch.tensor([[10.0, 10, 30, 31]])
    evaluator.update(0, detections=found, truth_classes=[0], truth_boxes=truth, size=(64, 64))
    validation = ValResult(evaluator.compute(), {"inference": 1.5}, (1.0, 2.0, 3.0), 1, [(0, Found(found))])
    return TrainResult(Path("runs") / "exp", Path("best.pt"), validation, Progress(epoch=3, best_fitness=0.5))


def test_a_result_of_training_is_the_same_afterwards(tmp_path: Path) -> None:
    before = result()
    hand_over(tmp_path / "result.pt", before)
    after = take_over(tmp_path / "result.pt")
    assert type(after) is TrainResult
    assert (after.folder, after.best, after.progress) == (before.folder, before.best, before.progress)
    old, new = before.validation, after.validation
    assert type(new) is ValResult
    assert (new.speed, new.losses, new.images) == (old.speed, old.losses, old.images)
    assert torch.equal(new.predictions[0][1].rows, old.predictions[0][1].rows)
    assert new.metrics.results_dict == old.metrics.results_dict
    assert repr(new.metrics) == repr(old.metrics)
    for key in ("ap", "nt", "pr_recall", "pr_precision"):
        assert np.array_equal(getattr(new.metrics, key), getattr(old.metrics, key), equal_nan=True)
        assert getattr(new.metrics, key).dtype == getattr(old.metrics, key).dtype
    assert np.array_equal(new.metrics.confusion.matrix, old.metrics.confusion.matrix)
    assert np.array_equal(new.metrics.curves.precision, old.metrics.curves.precision)


def test_containers_stay_what_they_are(tmp_path: Path) -> None:
    targets = Targets(torch.zeros(1), torch.ones(1), torch.ones(1, 4))
    before = {"named": targets, 3: [(1, "a"), None, True], "share": np.float64(0.5), "path": Path("a") / "b"}
    hand_over(tmp_path / "some.pt", before)
    after = take_over(tmp_path / "some.pt")
    assert type(after["named"]) is Targets
    assert torch.equal(after.pop("named").boxes, targets.boxes)
    del before["named"]
    assert after == before


def test_the_file_is_plain_data(tmp_path: Path) -> None:
    hand_over(tmp_path / "result.pt", result())
    assert isinstance(torch.load(tmp_path / "result.pt", weights_only=True), list)


def test_nothing_foreign_goes_in_or_comes_out(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"a collections\.deque cannot be handed"):
        hand_over(tmp_path / "bad.pt", {"count": deque()})
    assert list(tmp_path.iterdir()) == []
    torch.save(["object", "subprocess", "Popen", ["dict"]], tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"subprocess\.Popen is no class of this package"):
        take_over(tmp_path / "evil.pt")
