"""From where a run goes on, what it keeps, and what it says about what is not as it was."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from holdfast.data.shapes import write_demo
from holdfast.errors import DataError, SettingsError, WeightsError
from holdfast.train.checkpoint import read_checkpoint, write
from holdfast.train.data_changes import data_changes
from holdfast.train.dist import Place
from holdfast.train.finish import TrainResult
from holdfast.train.resume import refuse_finished, resume, resume_path, run_folder

Train = Callable[..., TrainResult]


def checkpoint(path: Path, step: int = 1, **settings: object) -> Path:
    """A file that looks like a checkpoint to whoever chooses one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": "holdfast-checkpoint", "version": 1, "model": {"name": "x"},
        "weights": {"a": torch.zeros(100) + step}, "progress": {"step": step}, "settings": settings,
        "facts": {},
    }  # fmt: skip
    write(path, content, keep_previous=True)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with two checkpoints."""
    folder = tmp_path / "runs" / "exp"
    for step in (1, 2):
        checkpoint(folder / "weights" / "last.pt", step, project="runs", name="exp", batch=4)
    (folder / "args.yaml").write_text("batch: 4\n")
    return folder


def chosen(asked: bool | str, project: Path, name: str = "exp") -> Path | None:
    return resume_path(asked, project, name, None, Place())


def test_auto_goes_on_with_the_run_of_the_name_and_starts_where_there_is_none(run: Path) -> None:
    last = run / "weights" / "last.pt"
    assert chosen("auto", run.parent) == last
    assert chosen("auto", run.parent, "other") is None
    last.unlink()
    assert chosen("auto", run.parent) == last  # the one before it is there
    last.with_name("last.previous.pt").unlink()
    assert chosen("auto", run.parent) is None


def test_a_run_is_named_by_its_folder_its_checkpoint_or_as_the_newest(run: Path) -> None:
    last = run / "weights" / "last.pt"
    named = (True, str(run), str(last), str(last.parent))
    assert [chosen(asked, run.parent) for asked in named] == [last] * 4
    assert chosen(False, run.parent) is None
    with pytest.raises(SettingsError, match="no run to resume"):
        chosen(True, run / "nothing")


@pytest.mark.parametrize("way", ["cut", "flipped", "gone", "empty"])
def test_of_a_damaged_checkpoint_the_one_before_is_taken_and_that_is_said(run: Path, way: str) -> None:
    last = run / "weights" / "last.pt"
    data = bytearray(last.read_bytes())
    data[data.index(torch.full((4,), 2.0).numpy().tobytes()) + 2] ^= 1
    last.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "flipped": data, "gone": b""}[way])
    if way == "gone":
        last.unlink()
    said: list[str] = []
    values, content = resume(last, {"resume": str(last)}, {}, said.append)
    assert content["progress"]["step"] == 1
    word = "gone" if way == "gone" else "damaged"
    assert said == [f"{last} is {word}; going on from the checkpoint before it"]
    assert values["batch"] == 4
    assert read_checkpoint(last)[1] == last  # it has taken the place of the damaged one


def test_any_flipped_byte_is_noticed_or_changes_nothing(run: Path) -> None:
    last = run / "weights" / "last.pt"
    whole = last.read_bytes()
    random = torch.Generator().manual_seed(0)
    last.with_name("last.previous.pt").unlink()
    noticed = 0
    for at in torch.randint(len(whole), (300,), generator=random).tolist():
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        last.write_bytes(data)
        try:
            content, _ = read_checkpoint(last)
        except WeightsError:
            noticed += 1
        else:
            assert content["progress"] == {"step": 2}
            assert torch.equal(content["weights"]["a"], torch.full((100,), 2.0))
    assert noticed > 50


def test_a_checkpoint_does_not_say_where_files_are_written(run: Path, tmp_path: Path) -> None:
    foreign = {"project": "/etc", "name": "../../evil", "exist_ok": True, "batch": 4}
    inside = checkpoint(run / "weights" / "last.pt", **foreign)
    assert run_folder(inside) == run
    mine = {"project": "runs", "name": "exp", "exist_ok": False, "resume": "x"}
    assert resume(inside, mine, {}, print)[0]["project"] == str(run.parent)
    stray = checkpoint(tmp_path / "downloads" / "last.pt", **foreign)  # not in a run folder
    assert run_folder(stray) is None
    values, _ = resume(stray, mine, {}, print)
    assert {key: values[key] for key in ("project", "name", "exist_ok")} == {
        "project": "runs", "name": "exp", "exist_ok": False
    }  # fmt: skip
    weights = checkpoint(tmp_path / "downloads" / "weights" / "last.pt", **foreign)
    assert run_folder(weights) is None  # nothing beside it that a run leaves


def test_a_checkpoint_that_holds_code_is_refused_unread(tmp_path: Path, run: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            import os

            return os.system, (f"touch {tmp_path}/ran",)

    last = run / "weights" / "last.pt"
    torch.save({"format": "holdfast-checkpoint", "version": 1, "code": Code()}, last)
    last.with_name("last.previous.pt").unlink()
    with pytest.raises(WeightsError, match="damaged, or not a Holdfast checkpoint"):
        read_checkpoint(last)
    assert not (tmp_path / "ran").exists()


def test_auto_repeats_a_whole_command_and_only_new_wishes_are_refused(run: Path) -> None:
    last = run / "weights" / "last.pt"
    plain = {"resume": "auto", "name": "exp", "batch": 4, "workers": 3, "project": "runs", "exist_ok": False}
    values, _ = resume(last, plain, dict.fromkeys(plain), print)
    assert values["workers"] == 3
    with pytest.raises(SettingsError, match="batch differ .*another --name"):
        resume(last, {**plain, "batch": 8}, dict.fromkeys(plain), print)


def test_a_finished_run_is_not_resumed_and_one_whose_end_was_cut_short_is(run: Path) -> None:
    said: list[str] = []
    refuse_finished(run, over=True, asked=True, epochs=3, say=said.append)
    assert said == ["all epochs of this run are done; its final validation is done again"]
    (run / "results.json").write_text("{}")
    refuse_finished(run, over=True, asked="auto", epochs=3, say=said.append)
    with pytest.raises(SettingsError, match="nothing to resume"):
        refuse_finished(run, over=True, asked=True, epochs=3, say=said.append)
    refuse_finished(run, over=False, asked=True, epochs=9, say=said.append)
    assert not (run / "results.json").exists()  # it spoke of an earlier end


def test_auto_starts_once_goes_on_in_the_same_folder_and_says_when_nothing_is_left(
    train: Train, tmp_path: Path, said: list[str]
) -> None:
    first = train(resume="auto", name="night", epochs=1)
    again = train(resume="auto", name="night", epochs=2)
    assert first.folder == again.folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["night"]
    assert again.progress.epoch == 2
    done = train(resume="auto", name="night", epochs=2)
    assert done.progress.step == again.progress.step
    assert "all epochs of this run are done; its final validation is done again" in said
    with pytest.raises(SettingsError, match="lr0 differ .*another --name"):
        train(resume="auto", name="night", epochs=3, lr0=0.5)


@pytest.mark.slow
def test_another_plan_is_announced_and_equal_up_to_rounding(train: Train, said: list[str]) -> None:
    whole = train(epochs=2, name="whole", save_period=1, amp=False, optimizer="SGD", lr0=0.001)
    other = whole.folder.with_name("other")
    shutil.copytree(whole.folder, other)
    (other / "weights" / "epoch1.pt").replace(other / "weights" / "last.pt")
    (other / "results.json").unlink()
    resumed = train(resume=str(other), epochs=2, ckpt="norm")
    assert any("not the plan of the part before: recompute norm instead of none" in line for line in said)
    files = [run.folder / "weights" / "last.pt" for run in (whole, resumed)]
    a, b = (torch.load(file, weights_only=True)["weights"] for file in files)
    moved = [float((a[key] - b[key]).abs().max()) for key in a if a[key].is_floating_point()]
    assert max(moved) < 1e-4  # of steps that move weights by 1e-3 each
    train(resume=str(other), epochs=3, ckpt="norm", micro_batch=2)
    assert any("micro_batch 2 instead of 4; results are not bit-identical" in line for line in said)


def test_a_data_set_that_has_changed_is_said_before_the_run_goes_on(
    train: Train, tmp_path: Path, said: list[str]
) -> None:
    data = write_demo(tmp_path / "set", images=12)
    train(data=data, epochs=1, name="run")
    folder = data.parent
    gone = sorted((folder / "images" / "train").iterdir())[0]
    gone.unlink()
    label = sorted((folder / "labels" / "train").iterdir())[2]
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    said.clear()
    result = train(data=data, resume=str(tmp_path / "run"), epochs=2)
    assert result.progress.epoch == 2
    changed = said.index(
        "the training images are not those of the run before: "
        f"1 removed ({gone.name}); 1 with other labels ({label.stem}{gone.suffix})"
    )
    assert changed < next(number for number, line in enumerate(said) if line.startswith("Holdfast"))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["train_images"] == 9
    said.clear()
    (folder / "labels" / "val" / "new.txt").write_text("")  # of no image
    train(data=data, resume=str(tmp_path / "run"), epochs=3)
    assert not [line for line in said if "not those" in line]


def test_a_data_set_that_has_become_smaller_leaves_the_schedule_where_it_was(
    train: Train, tmp_path: Path
) -> None:
    data = write_demo(tmp_path / "set", images=12)
    keys = {"data": data, "optimizer": "SGD", "warmup_epochs": 0.0}
    train(**keys, epochs=2, name="run")
    for image in sorted((data.parent / "images" / "train").iterdir())[4:]:
        image.unlink()
    result = train(**keys, resume=str(tmp_path / "run"), epochs=4)
    assert (result.progress.epoch, result.progress.step) == (4, 4)  # of one step each now, of three before
    with (result.folder / "results.csv").open(newline="") as file:
        rates = [float(row["lr/pg0"]) for row in csv.DictReader(file)]
    assert rates[2:] == pytest.approx([0.01 * (0.99 / 3 + 0.01), 0.01 * 0.01])


@pytest.mark.parametrize("key", ["model", "weights"])
def test_a_run_goes_on_without_the_file_that_it_began_with(
    train: Train, tmp_path: Path, said: list[str], key: str
) -> None:
    file = Path(shutil.copy(train(name="before", epochs=1).best, tmp_path / "began.pt"))
    train(**{key: file}, name="run", epochs=1)
    file.unlink()
    assert train(**{key: file}, resume=str(tmp_path / "run"), epochs=2).progress.epoch == 2
    origins = [line for line in said if line.startswith("  model ") and "began.pt" in line]
    assert len(origins) == 2
    assert origins[0] == origins[1]


def test_a_run_that_is_made_longer_keeps_the_optimizer_that_auto_has_chosen(
    train: Train, tmp_path: Path, said: list[str]
) -> None:
    train(name="run", epochs=1)
    for patience in (1, 2):  # which ends it soon; it would be more steps than the 10,000 of short runs
        said.clear()
        train(resume=str(tmp_path / "run"), epochs=4000, patience=patience)
        assert "  optimizer  AdamW, lr0 0.001429 (auto: 3 steps, 3 classes)" in said


def test_another_number_of_classes_ends_a_run_in_one_sentence() -> None:
    content = {"facts": {"classes": {0: "a", 1: "b"}}}
    with pytest.raises(DataError, match="has 2 classes, but the data set now has 1"):
        data_changes(content, None, {}, {0: "a"})
    changes = data_changes(content, None, {}, {0: "a", 1: "c"})
    assert changes == ["class names have changed: 1 is 'c', was 'b'"]
