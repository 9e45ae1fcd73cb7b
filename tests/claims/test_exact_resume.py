"""A run that is killed anywhere, and started again by the same command, ends as if nothing had been."""

from __future__ import annotations

import importlib
import signal
from operator import attrgetter
from pathlib import Path

import pytest

from holdfast.data.shapes import write_demo
from holdfast.models.registry import family_of
from killing import command, differing, left, start

# Module, name, call: 3 steps an epoch, 2 epochs, and a checkpoint after every step that finds the disk idle.
POINTS = {
    "while an image is read": ("holdfast.data.samples", "TrainSamples.get", 9),
    "in the forward pass": ("holdfast.models.yolov9", "YOLOv9.forward", 3),
    "in the backward pass": ("torch", "Tensor.backward", 4),
    "before the optimizer's step": ("torch.optim", "AdamW.step", 5),
    "between the optimizer and the average": ("holdfast.train.ema", "Ema.update", 4),
    "while a checkpoint is copied": ("holdfast.train.loop", "snapshot", 2),
    "while a checkpoint is written": ("torch", "save", 3),
    "before what was written is on disk": ("os", "fsync", 11),
    "between writing and renaming": ("pathlib", "Path.replace", 6),
    "between renaming and the folder's entry": ("holdfast.runs", "sync_folder", 6),
    "in a validation": ("holdfast.val.run", "Evaluator.__call__", 1),
    "between best.pt and last.pt": ("holdfast.runs", "CsvLog.append", 1),
    "in the last validation, after all steps": ("holdfast.val.run", "Evaluator.__call__", 3),
    "while the outcome is written": ("holdfast.train.finish", "results_summary", 1),
}
IN_TURN = (  # in one run; each start does at least one more step
    ("torch", "save", 2),
    ("torch", "Tensor.backward", 2),
    ("holdfast.train.finish", "load_model", 1),  # before the last validation
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.yaml of 10 training and 2 validation images."""
    return write_demo(tmp_path_factory.mktemp("shapes"), images=12)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an uninterrupted run leaves."""
    project = tmp_path_factory.mktemp("whole")
    run = start(command(data, project, "run"))
    out, _ = run.communicate(timeout=200)
    assert run.returncode == 0, out
    return left(project / "run")


@pytest.mark.parametrize("point", [*POINTS.values(), *IN_TURN], ids=lambda point: f"{point[0]}.{point[1]}")
def test_every_point_is_where_the_list_says(point: tuple[str, str, int]) -> None:
    assert callable(attrgetter(point[1])(importlib.import_module(point[0])))


def test_a_run_killed_again_and_again_ends_bit_identical(
    data: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    words = command(data, tmp_path, "run")
    for point in IN_TURN:
        run = start(words, kill=point)
        out, _ = run.communicate(timeout=200)
        assert run.returncode == -signal.SIGKILL, f"{point}: {out}"
    # Another number of loader threads and a cache, as on another day.
    run = start(command(data, tmp_path, "run", workers=0, cache="ram"))
    out, _ = run.communicate(timeout=200)
    assert run.returncode == 0, out
    assert "resumed after epoch 2" in out
    assert differing(whole, left(tmp_path / "run")) == []
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "keys", "step"),
    [
        *((f"yolo26n-{task}", {}, 5) for task in ("seg", "pose", "obb", "cls")),
        ("gelan-t", {"image_weights": True, "epochs": 3, "amp": False}, 8),  # after two validations
    ],
)
def test_a_killed_run_of_every_kind_ends_bit_identical(
    tmp_path: Path, model: str, keys: dict[str, object], step: int
) -> None:
    data = write_demo(tmp_path / "data", images=12, needs=family_of(model).needs)
    words = command(data, tmp_path / "whole", "run", model=model, **keys)
    out, _ = start(words).communicate(timeout=200)
    assert (tmp_path / "whole" / "run" / "results.json").is_file(), out
    words = command(data, tmp_path / "cut", "run", model=model, **keys)
    run = start(words, kill=("torch", "Tensor.backward", step))
    out, _ = run.communicate(timeout=200)
    assert run.returncode == -signal.SIGKILL, out
    run = start(words)
    out, _ = run.communicate(timeout=200)
    assert run.returncode == 0, out
    assert "resumed" in out
    assert differing(left(tmp_path / "whole" / "run"), left(tmp_path / "cut" / "run")) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_a_run_killed_at_any_point_ends_bit_identical(
    data: Path, whole: dict[str, str], tmp_path: Path, name: str
) -> None:
    words = command(data, tmp_path, "run")
    run = start(words, kill=POINTS[name])
    out, _ = run.communicate(timeout=200)
    assert run.returncode == -signal.SIGKILL, out
    run = start(words)
    out, _ = run.communicate(timeout=200)
    assert run.returncode == 0, out
    assert differing(whole, left(tmp_path / "run")) == []
