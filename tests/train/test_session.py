"""A run from settings to folder: what it leaves, how it resumes, what it refuses."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from holdfast.cli.parse import parse
from holdfast.errors import CheckpointError, DataError, SettingsError, WeightsError
from holdfast.health.log import NAME, read
from holdfast.health.records import History
from holdfast.load import load_model
from holdfast.report import run as reporter
from holdfast.settings import TrainSettings
from holdfast.train.checkpoint import read_checkpoint
from holdfast.train.finish import TrainResult
from holdfast.train.session import fit
from holdfast.val.run import Evaluator

Train = Callable[..., TrainResult]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_a_complete_folder(train: Train) -> None:
    result = train(plots=True, save_period=1)
    found = {str(p.relative_to(result.folder)) for p in result.folder.rglob("*") if p.is_file()}
    assert {
        "args.yaml",
        "health.jsonl",
        "manifest.json",
        "results.csv",
        "results.json",
        "results.png",
        "labels.jpg",
        "data.json",
        "examples/examples.json",
        "examples/worst_01.jpg",
        "lr_heatmap.png",
        "mem_usage.png",
        "grad_health.png",
        "throughput.png",
        "report.html",
        "train_batch0.jpg",
        "val_batch0_labels.jpg",
        "val_batch0_pred.jpg",
        "weights/last.pt",
        "weights/best.pt",
        "weights/epoch1.pt",
        "weights/epoch2.pt",
    } <= found
    assert not [name for name in found if ".part" in name]
    losses = [[f"{split}/{term}_loss" for term in ("box", "cls", "dfl")] for split in ("train", "val")]
    metrics = [f"metrics/{name}(B)" for name in ("precision", "recall", "mAP50", "mAP50-95")]
    rates = ["lr/pg0", "lr/pg1", "lr/pg2"]
    assert list(rows(result.folder)[0]) == ["epoch", "time", *losses[0], *metrics, *losses[1], *rates]
    assert [r["epoch"] for r in rows(result.folder)] == ["1", "2"]
    assert all(0 < float(r["train/box_loss"]) < 100 for r in rows(result.folder))
    assert yaml.safe_load((result.folder / "args.yaml").read_text())["imgsz"] == 64
    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest["train_images"] == 10
    assert manifest["batch"] == 4
    assert manifest["groups"] == ["bias", "weight", "norm"]
    again = parse(TrainSettings, shlex.split(manifest["reproduce"])[2:])
    assert TrainSettings(**again).as_dict() == yaml.safe_load((result.folder / "args.yaml").read_text())
    page = (result.folder / "report.html").read_text()
    assert "Not in this folder" not in page
    assert '<span class="tone">Finished</span>' in page


def test_a_run_records_its_health(train: Train) -> None:
    result = train(epochs=3, patience=0)
    health = History.of(read(result.folder / NAME))
    assert health.facts.train_images == 10
    assert health.facts.object_side is not None
    assert 5 < health.facts.object_side < 64
    assert [epoch.epoch for epoch in health.epochs] == [1, 2, 3]
    for epoch, row in zip(health.epochs, rows(result.folder), strict=True):
        assert epoch.losses["box"] == pytest.approx(float(row["train/box_loss"]), rel=1e-4)
        assert epoch.rates == pytest.approx([float(row[f"lr/pg{i}"]) for i in range(3)], rel=1e-4)
        assert epoch.map50 == pytest.approx(float(row["metrics/mAP50(B)"]), rel=1e-4, abs=1e-6)
        assert "backbone.stage2" in epoch.layers
        assert all(value is not None and value >= 0 for value in epoch.layers.values())
    memory = health.breakdown
    assert memory is not None
    assert memory.weights > 4 * 1_800_000  # parameters of gelan-t in float32
    assert memory.state == pytest.approx(2 * memory.gradients, rel=0.01)  # AdamW
    parts = memory.weights + memory.gradients + memory.state + memory.average + memory.images + memory.other
    assert parts + memory.activations == health.epochs[0].peak
    assert health.events[-1].facts == {"done": True}


def test_sizes_come_from_the_data_file_unless_given_and_the_rate_follows_the_batch(
    train: Train, shapes: Path, said: list[str], tmp_path: Path
) -> None:
    data = tmp_path / "data.yaml"
    data.write_text(shapes.read_text().replace("path: .", f"path: {shapes.parent}\nimgsz: 96"))
    result = train(data=data, imgsz=None, val_imgsz=128, epochs=1, optimizer="SGD", lr_scale="linear")
    values = yaml.safe_load((result.folder / "args.yaml").read_text())
    assert (values["imgsz"], values["val_imgsz"]) == (96, 128)
    assert any("lr_scale linear: times 0.0625 at batch 4, so lr0 0.000625" in line for line in said)


def test_checkpoints_load_with_weights_only_and_hold_everything(train: Train) -> None:
    result = train()
    content = torch.load(result.folder / "weights" / "last.pt", weights_only=True)
    assert content["progress"]["epoch"] == 2
    assert content["progress"]["step"] == 6  # 10 images in batches of 4: 3 steps an epoch
    assert content["ema_updates"] == 6
    assert len(content["optimizer"]["state"]) == len(list(load_model(result.best).model.parameters()))
    assert content["weights"].keys() == content["ema"].keys()
    assert all(v.dtype is torch.float32 for v in content["weights"].values() if v.is_floating_point())


@pytest.mark.parametrize(("model", "optimizer"), [("gelan-t", "auto"), ("yolo26n", "MuSGD")])
def test_a_resumed_run_ends_bit_identical_to_an_uninterrupted_one(
    train: Train, tmp_path: Path, model: str, optimizer: str
) -> None:
    whole = train(model=model, optimizer=optimizer, epochs=3, name="whole", save_period=1)
    half = tmp_path / "half" / "weights"
    half.mkdir(parents=True)
    for source, copy in (("epoch2.pt", "last.pt"), ("best.pt", "best.pt")):
        (half / copy).write_bytes((whole.folder / "weights" / source).read_bytes())
    (half.parent / "results.csv").write_bytes((whole.folder / "results.csv").read_bytes())
    # the other keys repeat what the run had
    resumed = train(resume=str(half / "last.pt"), model=model, optimizer=optimizer, epochs=3)
    assert resumed.folder == half.parent
    a, b = (torch.load(r.folder / "weights" / "last.pt", weights_only=True) for r in (whole, resumed))
    for part in ("weights", "ema"):
        for key, value in a[part].items():
            assert torch.equal(value, b[part][key]), f"{part} {key}"
    states = zip(a["optimizer"]["state"].values(), b["optimizer"]["state"].values(), strict=True)
    assert all(torch.equal(s[k], t[k]) for s, t in states for k in s)
    strip = [{k: v for k, v in row.items() if k != "time"} for row in rows(whole.folder)]
    assert strip == [{k: v for k, v in row.items() if k != "time"} for row in rows(resumed.folder)]


def test_a_run_of_yolo26_names_its_losses_and_answers_with_the_branch_asked_for(
    train: Train, said: list[str]
) -> None:
    result = train(model="yolo26n", optimizer="MuSGD", epochs=2, nms=True)
    header = list(rows(result.folder)[0])
    assert {"train/l1_loss", "val/l1_loss"} < set(header)
    assert [key for key in header if key.startswith("lr/")] == [f"lr/pg{i}" for i in range(6)]
    assert any("MuSGD" in line for line in said)
    best = load_model(result.best).model
    assert list(best.heads) == ["one_to_many", "one_to_one"]
    with pytest.raises(SettingsError, match="nms=False is not possible"):
        train(model="gelan-t", nms=False)
    assert not (result.folder.parent / "exp2").exists()  # refused before a folder was made


def test_resume_refuses_changed_settings_and_finished_runs(train: Train) -> None:
    result = train(epochs=1)
    last = str(result.folder / "weights" / "last.pt")
    with pytest.raises(SettingsError, match="keeps its settings, but batch differ"):
        train(resume=last, epochs=2, batch=8)
    with pytest.raises(SettingsError, match="nothing to resume"):
        train(resume=last, epochs=1)
    with pytest.raises(WeightsError, match="weights only"):
        train(resume=str(result.best), epochs=2)
    with pytest.raises(SettingsError, match="no run to resume"):
        train(resume=True, project=str(result.folder / "nothing"))


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(train: Train, said: list[str]) -> None:
    result = train(epochs=2)
    last = result.folder / "weights" / "last.pt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    resumed = train(resume=str(last), epochs=3)
    assert resumed.progress.epoch == 3
    assert f"{last} is damaged; going on from the checkpoint before it" in said
    previous = torch.load(last.with_name("last.previous.pt"), weights_only=True)
    assert previous["progress"]["epoch"] == 2  # the damaged file did not become the previous one
    assert [r["epoch"] for r in rows(result.folder)] == ["1", "2", "3"]


def test_loader_workers_change_nothing(train: Train) -> None:
    runs = [train(workers=w, name=f"w{w}", epochs=1) for w in (0, 2)]
    a, b = (torch.load(r.folder / "weights" / "last.pt", weights_only=True)["weights"] for r in runs)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_caches_change_nothing_and_are_said(train: Train, said: list[str], tmp_path: Path) -> None:
    runs = [train(cache=kind, workers=2, name=kind) for kind in ("off", "ram", "disk")]
    files = [run.folder / "weights" / "last.pt" for run in runs]
    plain, *cached = (torch.load(file, weights_only=True)["weights"] for file in files)
    assert all(torch.equal(plain[key], other[key]) for other in cached for key in plain)
    losses = [[row["val/box_loss"] for row in rows(run.folder)] for run in runs]
    assert losses[0] == losses[1] == losses[2]
    lines = [line for line in said if line.startswith("  cache")]
    assert lines[0].startswith("  cache      ram: all 10 train images, ")
    assert [line.split(": all ")[1].split(" images")[0] for line in lines] == ["10 train", "2 val"] * 2
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_gains_smoothing_and_seed_change_the_training(train: Train) -> None:
    base = rows(train(epochs=1, name="base", seed=1).folder)[0]
    double = rows(train(epochs=1, name="double", seed=1, box=15.0).folder)[0]
    assert float(double["train/box_loss"]) > 1.5 * float(base["train/box_loss"])
    other = rows(train(epochs=1, name="seed", seed=2).folder)[0]
    assert other["train/cls_loss"] != base["train/cls_loss"]
    smooth = rows(train(epochs=1, name="smooth", seed=1, label_smoothing=0.1).folder)[0]
    assert smooth["train/cls_loss"] != base["train/cls_loss"]


def test_frozen_layers_keep_weights_and_statistics(train: Train) -> None:
    result = train(freeze=9, epochs=1, ema=False)
    torch.manual_seed(0)
    fresh = load_model("gelan-t", classes=3).model
    trained = torch.load(result.folder / "weights" / "last.pt", weights_only=True)["weights"]
    before = fresh.state_dict()
    moved = {key.split(".")[0] for key in before if not torch.equal(before[key], trained[key])}
    assert moved == {"neck", "head"}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([0, 99], "there is no layer 99. Layers of this model are 0 to 22"),
        (-1, "there is no layer -1"),
        ("head.nothing", "no parameter name contains"),
        (99, "every layer would be frozen"),
    ],
)
def test_layers_that_do_not_exist_are_not_frozen_silently(train: Train, parts: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train(freeze=parts, epochs=1)


def test_patience_stops_and_keeps_the_best(train: Train) -> None:
    result = train(epochs=6, patience=1, lr0=1e-9, optimizer="SGD", warmup_epochs=0)
    assert result.progress.epoch < 6
    assert result.best.is_file()


def test_patience_ends_no_run_before_a_validation_has_said_that_it_is_no_better(train: Train) -> None:
    result = train(epochs=9, val_interval=3, patience=2, lr0=1e-9, optimizer="SGD", warmup_epochs=0)
    validated = [bool(row["metrics/mAP50(B)"]) for row in rows(result.folder)]
    assert validated == [False, False, True, False, True]


def test_noval_and_nosave_do_their_work_once_at_the_end(train: Train) -> None:
    result = train(epochs=2, noval=True, nosave=True, save_every=1e-6)
    assert [bool(r["metrics/mAP50(B)"]) for r in rows(result.folder)] == [False, True]
    assert (result.folder / "weights" / "last.pt").is_file()
    assert not (result.folder / "weights" / "last.previous.pt").exists()


def test_a_run_in_the_folder_of_another_is_not_continued_from_that_one(train: Train, shapes: Path) -> None:
    first = train(epochs=1)
    weights = first.folder / "weights"

    def made(folder: Path) -> None:
        assert folder == first.folder
        raise KeyboardInterrupt  # before it has a checkpoint of its own

    keys = {"model": "gelan-t", "data": shapes, "imgsz": 64, "micro_batch": 64, "ckpt": "off", "workers": 0}
    settings = TrainSettings(**keys, device="cpu", project=first.folder.parent, exist_ok=True)
    with pytest.raises(KeyboardInterrupt):
        fit(settings, make_evaluator=Evaluator, reporter=reporter, say=print, made=made)
    assert [path.name for path in weights.iterdir()] == ["best.pt"]
    assert not (first.folder / "results.json").exists()
    with pytest.raises(WeightsError, match="no such checkpoint"):
        train(resume=str(first.folder))
    again = train(epochs=1, seed=1, exist_ok=True)
    assert again.folder == first.folder
    assert not (weights / "last.previous.pt").exists()  # which would be of the other run


def test_weights_of_another_class_count_transfer_what_fits(train: Train) -> None:
    source = train(epochs=1, name="source")
    result = train(epochs=1, name="tuned", weights=str(source.best), single_cls=True)
    origin = json.loads((result.folder / "manifest.json").read_text())["origin"]
    assert " of " in origin
    assert "best.pt" in origin
    assert load_model(result.best).model.names == {0: "object"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: .\nval: images/val\nnames: [a, b, c]\n", "'train'"),
        ("path: .\ntrain: images/train\nnames: [a, b, c]\n", "'val'"),
    ],
)
def test_a_missing_split_is_one_clear_sentence(train: Train, shapes: Path, text: str, message: str) -> None:
    broken = shapes.with_name("broken.yaml")
    broken.write_text(text)
    with pytest.raises(DataError, match=message):
        train(data=broken)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # from within torch's compiler
def test_a_run_without_a_compiler_goes_on_uncompiled_and_says_so(train: Train, said: list[str]) -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": (None, "/nowhere/c++")}):
        result = train(epochs=1, compile=True)
    assert any("  compile    no, because torch.compile cannot be used: " in line for line in said)
    assert "/nowhere/c++" in json.loads((result.folder / "manifest.json").read_text())["compiled"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler warns of what it does itself
def test_a_compiled_run_learns_like_any_other(train: Train, said: list[str]) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip("this machine has no C++ compiler for torch.compile")
    # One step of all images: rounding, which batch statistics of noise magnify, grows with every step, and is
    # the larger the fewer pixels they are taken over.
    one_step = {"epochs": 1, "batch": 10, "amp": False, "imgsz": 128}
    plain = rows(train(**one_step, name="plain").folder)
    compiled = train(**one_step, compile=True, name="compiled")
    assert any("  compile    torch.compile" in line for line in said)
    for key in ("train/box_loss", "train/cls_loss", "train/dfl_loss"):
        assert float(rows(compiled.folder)[0][key]) == pytest.approx(float(plain[0][key]), rel=0.01)
    assert load_model(compiled.best).model.name == "gelan-t"


def test_a_run_whose_folder_is_gone_ends_with_its_weights_somewhere_else(
    shapes: Path, tmp_path: Path, said: list[str]
) -> None:
    def made(folder: Path) -> None:
        folder.rename(tmp_path / "gone")
        folder.write_text("a file where the run's folder was")  # nothing can be written any more

    keys = {"model": "gelan-t", "data": shapes, "imgsz": 64, "batch": 4, "epochs": 1, "workers": 0}
    settings = TrainSettings(**keys, device="cpu", project=tmp_path, micro_batch=64, ckpt="off")
    with pytest.raises(CheckpointError, match="the files are in") as caught:
        fit(settings, make_evaluator=Evaluator, reporter=reporter, say=said.append, made=made)
    elsewhere = Path(str(caught.value).partition("the files are in ")[2].partition(" instead")[0])
    assert sorted(path.name for path in elsewhere.iterdir()) == ["best.pt", "last.pt"]
    assert read_checkpoint(elsewhere / "last.pt")[0]["progress"]["epoch"] == 1
    shutil.rmtree(elsewhere)
    refused = [line for line in said if "cannot be written" in line]
    assert [line.partition(" cannot")[0].rpartition("/")[2] for line in refused][:1] == ["manifest.json"]
    assert len(refused) <= 5  # each cause once, not each file
