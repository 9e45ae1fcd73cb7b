"""The Python door: public names, a whole life of a small model, and the mistakes users make."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import holdfast
from holdfast import YOLO
from holdfast.data.shapes import write_demo
from holdfast.errors import DataError, HoldfastError, SettingsError, WeightsError

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_public_names_are_sorted_and_importable() -> None:
    assert holdfast.__all__ == sorted(holdfast.__all__)
    assert all(getattr(holdfast, name) is not None for name in holdfast.__all__)
    assert set(holdfast.__all__) <= set(dir(holdfast))
    with pytest.raises(AttributeError, match="no attribute 'YOLOO'"):
        _ = holdfast.YOLOO  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(tmp_path_factory.mktemp("shapes"), images=12, seed=1)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[YOLO, Path]:
    """A model trained for one epoch, and its run folder."""
    project = tmp_path_factory.mktemp("runs")
    model = YOLO("gelan-t")
    metrics = model.train(data=data, epochs=1, img_size=64, batch=4, workers=0, project=project, plots=False,
                          verbose=False)
    assert 0 <= metrics.map50 == metrics.box.map50 <= 1
    return model, project / "exp"


def test_training_leaves_a_run_folder_and_the_best_model(run: tuple[YOLO, Path]) -> None:
    model, folder = run
    for name in ("args.yaml", "results.csv", "weights/best.pt", "weights/last.pt"):
        assert (folder / name).is_file(), name
    assert list(model.names.values()) == ["disc", "square", "triangle"]
    assert model.task == "detect"
    assert model.device == torch.device("cpu")
    best = YOLO(folder / "weights" / "best.pt")
    assert all(torch.equal(a, b) for a, b in zip(
        model.model.state_dict().values(), best.model.state_dict().values(), strict=True))


def test_validation_of_the_file_equals_that_of_the_object(
    run: tuple[YOLO, Path], data: Path, tmp_path: Path
) -> None:
    model, folder = run
    first = model.val(data=data, imgsz=64, workers=0, project=tmp_path, verbose=False, plots=False)
    again = YOLO(folder / "weights/best.pt").val(
        data=data, imgsz=64, workers=0, project=tmp_path, verbose=False, plots=False)
    assert first.map == again.map


def test_prediction_takes_paths_arrays_and_lists_and_writes_nothing_unasked(
    run: tuple[YOLO, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, _ = run
    pictures = sorted((data.parent / "images" / "val").glob("*.jpg"))
    keys = {"imgsz": 64, "conf": 0.0001, "verbose": False}
    by_path = model.predict(pictures[0], **keys)
    by_list = model([str(path) for path in pictures], **keys)
    by_array = model.predict(np.zeros((48, 64, 3), np.uint8), **keys)
    assert (len(by_path), len(by_list), len(by_array)) == (1, len(pictures), 1)
    assert torch.equal(torch.as_tensor(by_path[0].boxes.data), torch.as_tensor(by_list[0].boxes.data))
    assert by_array[0].orig_shape == (48, 64)
    stream = model.predict(pictures[0], stream=True, **keys)
    assert not isinstance(stream, list)
    assert len(list(stream)) == 1
    assert list(tmp_path.iterdir()) == []


def test_half_precision_leaves_the_model_as_it_was(run: tuple[YOLO, Path]) -> None:
    model, _ = run
    picture = np.full((64, 64, 3), 99, np.uint8)
    keys = {"imgsz": 64, "conf": 0.0001, "verbose": False}
    before = model.predict(picture, **keys)[0].boxes.data
    model.predict(picture, half=True, **keys)
    assert torch.equal(torch.as_tensor(before), torch.as_tensor(model.predict(picture, **keys)[0].boxes.data))


def test_load_takes_over_a_file_of_the_same_architecture_whole(run: tuple[YOLO, Path]) -> None:
    trained, folder = run
    model = YOLO("gelan-t").load(folder / "weights" / "best.pt")
    assert model.names == trained.names


def test_load_takes_what_fits_of_another_architecture(run: tuple[YOLO, Path]) -> None:
    trained, folder = run
    model = YOLO("yolov9-t").load(folder / "weights" / "best.pt")  # same backbone, with an auxiliary branch
    assert model.model.name == "yolov9-t"
    ours, theirs = model.model.backbone.state_dict(), trained.model.backbone.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_info_counts_as_the_published_table(capsys: pytest.CaptureFixture[str]) -> None:
    layers, parameters, gradients, gflops = YOLO("gelan-t").info()
    assert (parameters, round(gflops, 2)) == (2_442_640, 9.90)
    assert layers > 100
    assert gradients == parameters - 16  # the constant bins of the box distribution
    assert "2,442,640 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (lambda: YOLO("yolov9-x"), SettingsError, "yolov9-x"),
        (lambda: YOLO("no-such.pt"), WeightsError, "no-such.pt"),
        (lambda: YOLO("gelan-t", task="fly"), SettingsError, "There is no task 'fly'"),
        (lambda: YOLO("gelan-t").train(), SettingsError, "train needs 'data'"),
        (lambda: YOLO("gelan-t").train(epoch=1), SettingsError, "Did you mean 'epochs'?"),
        (lambda: YOLO("gelan-t").train(data="no-such.yaml"), DataError, "no-such.yaml"),
        (lambda: YOLO("gelan-t").val(), SettingsError, "val needs 'data'"),
        (lambda: YOLO("gelan-t").predict("no-such.jpg"), HoldfastError, "no-such.jpg"),
    ],
)
def test_mistakes_raise_the_family_of_clear_errors(act, kind, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(kind) as caught:
        act()
    assert message in str(caught.value)


def test_a_training_for_another_task_than_the_model_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gelan-t is a model for the task 'detect', not 'segment'"):
        YOLO("gelan-t").train(data=data, task="segment", imgsz=64, project=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_examples_run(
    data: Path, run: tuple[YOLO, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _, folder = run
    best = str(folder / "weights" / "best.pt")
    runpy.run_path(str(EXAMPLES / "detect.py"))["main"](best, str(data.parent / "images" / "val"))
    runpy.run_path(str(EXAMPLES / "validate.py"))["main"](best, str(data))
    out = capsys.readouterr().out
    assert "objects" in out
    assert "AP50" in out


def test_examples_are_short() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert scripts
    assert all(len(path.read_text().splitlines()) < 40 for path in scripts)


@pytest.mark.slow
def test_training_example_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "train.py"))["main"](str(data), 1)
    assert (tmp_path / "runs/examples/exp/weights/best.pt").is_file()
