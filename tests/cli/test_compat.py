"""The official YOLOv9 command lines run as written: a flag acts, is told apart, or is refused with advice."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli import compat
from holdfast.cli.official import PROGRAMS
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError
from holdfast.settings import TrainSettings, TuneSettings

ROOT = Path(__file__).parents[2]

# The published lists: flag -> a value that is not the default there (None: a switch).
TRAIN: dict[str, str | None] = {
    "weights": "a.pt", "cfg": "yolov9-s.yaml", "data": "x.yaml", "hyp": "short-run", "epochs": "3",
    "batch-size": "8",
    "imgsz": "320", "rect": None, "resume": "last.pt", "nosave": None, "noval": None, "noautoanchor": None,
    "noplots": None, "evolve": "10", "bucket": "gs://b", "cache": "disk", "image-weights": None,
    "device": "cpu",
    "multi-scale": None, "single-cls": None, "optimizer": "AdamW", "sync-bn": None, "workers": "2",
    "project": "p",
    "name": "n", "exist-ok": None, "quad": None, "cos-lr": None, "flat-cos-lr": None, "fixed-lr": None,
    "label-smoothing": "0.1", "patience": "5", "freeze": "10", "save-period": "2", "seed": "7",
    "local_rank": "1",
    "min-items": "3", "close-mosaic": "15", "entity": "me", "upload_dataset": "val", "bbox_interval": "2",
    "artifact_alias": "v1",
}  # fmt: skip
VAL: dict[str, str | None] = {
    "data": "x.yaml", "weights": "a.pt", "batch-size": "8", "imgsz": "320", "conf-thres": "0.1",
    "iou-thres": "0.6",
    "max-det": "100", "task": "test", "device": "cpu", "workers": "2", "single-cls": None, "augment": None,
    "verbose": None, "save-txt": None, "save-hybrid": None, "save-conf": None, "save-json": None,
    "project": "p",
    "name": "n", "exist-ok": None, "half": None, "dnn": None, "min-items": "3",
}  # fmt: skip
DETECT: dict[str, str | None] = {
    "weights": "a.pt", "source": "photos", "data": "x.yaml", "imgsz": "320", "conf-thres": "0.1",
    "iou-thres": "0.6",
    "max-det": "100", "device": "cpu", "view-img": None, "save-txt": None, "save-conf": None,
    "save-crop": None,
    "nosave": None, "classes": "2", "agnostic-nms": None, "augment": None, "visualize": None, "update": None,
    "project": "p", "name": "n", "exist-ok": None, "line-thickness": "2", "hide-labels": None,
    "hide-conf": None,
    "half": None, "dnn": None, "vid-stride": "3",
}  # fmt: skip
EXPORT: dict[str, str | None] = {
    "data": "x.yaml", "weights": "a.pt", "imgsz": "320", "batch-size": "2", "device": "0", "half": None,
    "inplace": None,
    "keras": None, "optimize": None, "int8": None, "dynamic": None, "simplify": None, "opset": "13",
    "verbose": None,
    "workspace": "8", "nms": None, "agnostic-nms": None, "topk-per-class": "10", "topk-all": "10",
    "iou-thres": "0.5",
    "conf-thres": "0.3", "include": "onnx",
}  # fmt: skip
LISTS = {
    "train_dual": TRAIN, "train": TRAIN, "val_dual": VAL, "val": VAL, "detect_dual": DETECT, "detect": DETECT,
    "export": EXPORT,
}  # fmt: skip
EVERY_FLAG = [(program, flag) for program, flags in LISTS.items() for flag in flags]


@pytest.mark.parametrize(("program", "flag"), EVERY_FLAG)
def test_every_official_flag_acts_or_is_told_or_is_refused_with_advice(program: str, flag: str) -> None:
    value = LISTS[program][flag]
    model = ["--cfg", "gelan-t"] if program.startswith("train") else []
    if flag in ("opset", "nms"):
        model = ["--include", "onnx"]
    base = [] if flag in ("cfg", "weights") else model
    words = [f"--{flag}", *([] if value is None else [value])]
    said: list[str] = []
    try:
        plain = compat.read(program, model)
        settings = compat.read(program, [*base, *words], say=said.append)
    except SettingsError as error:
        refused: SettingsError | None = error
    else:
        refused = None
    fate = PROGRAMS[program].flags[flag.replace("_", "-")]
    assert (fate.fate == "refused") == (refused is not None)
    if refused is not None:
        assert refused.hint
        return
    if fate.key:
        assert getattr(settings, fate.key) != getattr(plain, fate.key, None)
    assert bool(said) == bool(fate.text and fate.fate != "same" and flag not in ("task", "imgsz"))


@pytest.mark.parametrize(("words", "trials"), [(["--evolve", "12"], 12), (["--evolve"], 300)])
def test_evolve_is_a_search_with_the_keys_of_a_training(words: list[str], trials: int) -> None:
    settings = compat.read("train_dual", ["--cfg", "gelan-t", "--epochs", "5", *words], say=lambda text: None)
    assert isinstance(settings, TuneSettings)
    assert (settings.trials, settings.epochs, settings.model) == (trials, 5, "gelan-t")


@pytest.mark.parametrize(("program", "title"), [
    ("train_dual", "### train_dual"), ("val_dual", "### val_dual"), ("detect_dual", "### detect_dual"),
    ("export", "### export"),
])  # fmt: skip
def test_the_table_has_the_published_flags_and_no_others(shared: Path, program: str, title: str) -> None:
    page = (shared / "reference" / "yolov9.md").read_text(encoding="utf-8")
    section = page.split(title + "\n")[1].split("\n#")[0]
    names = [re.split(r"[,/]", row.split("|")[1]) for row in section.splitlines() if row.startswith("| ")][1:]
    flags = {name.strip().replace("_", "-") for row in names for name in row}
    assert set(PROGRAMS[program].flags) == flags


def test_the_command_line_of_the_tutorials_means_what_it_says() -> None:
    words = (  # noqa: SIM905
        "--workers 8 --device 0 --batch 64 --data data.yaml --img 640 --cfg models/detect/yolov9-s.yaml "
        "--name yolov9-s-64b --hyp hyp.scratch-high.yaml --min-items 0 --epochs 20 --close-mosaic 15"
    ).split()
    said: list[str] = []
    settings = compat.read("train_dual", [*words, "--weights", ""], say=said.append)
    assert isinstance(settings, TrainSettings)
    assert said == []
    keys = "workers device batch data imgsz model weights name epochs close_mosaic".split()  # noqa: SIM905
    assert [getattr(settings, key) for key in keys] == [
        8, "0", 64, "data.yaml", 640, "models/detect/yolov9-s.yaml", "", "yolov9-s-64b", 20, 15
    ]  # fmt: skip
    assert (settings.optimizer, settings.mixup, settings.scale) == ("SGD", 0.15, 0.9)  # its defaults


def test_defaults_are_those_of_the_official_programs() -> None:
    train = compat.read("train_dual", ["--cfg", "gelan-t"])
    assert isinstance(train, TrainSettings)
    assert (train.optimizer, train.close_mosaic, train.batch, train.patience) == ("SGD", 0, 16, 100)
    detect = compat.read("detect_dual", []).as_dict()
    assert [detect[key] for key in ("conf", "iou", "max_det", "line_width", "name")] == [
        0.25, 0.45, 1000, 3, "exp"
    ]  # fmt: skip
    assert compat.read("val_dual", []).as_dict()["batch"] == 32
    assert "optimizer" not in compat.read("train_dual", ["--resume"]).given()  # what the run had stays


@pytest.mark.parametrize(
    ("program", "words", "key", "value"),
    [
        ("train", ["--cfg", "c", "--lr0", "0.02"], "lr0", 0.02),  # a native key beside official flags
        ("train", ["--cfg", "c", "--micro-batch=4"], "micro_batch", 4),
        ("train", ["--cfg", "c", "--no-amp"], "amp", False),
        ("train", ["--cfg", "c", "--freeze", "0", "2"], "freeze", (0, 2)),
        ("train", ["--cfg", "c", "--cache"], "cache", "ram"),
        ("train", ["--cfg", "", "--weights", "a.pt"], "weights", "a.pt"),
        ("train", ["--cfg", "c", "--name", "a=b c"], "name", "a=b c"),
        ("val", ["--conf", "0.2"], "conf", 0.2),  # the beginning of a flag
        ("val", ["--task", "speed"], "iou", 0.45),
        ("detect", ["--imgsz", "384", "640"], "imgsz", 640),
        ("detect", ["--classes", "0", "2"], "classes", (0, 2)),
        ("detect", ["--source", "0"], "source", "0"),
        ("detect", ["source=a", "--save-txt"], "source", "a"),
        ("export", ["--include", "torchscript", "onnx"], "format", ("torchscript", "onnx")),
        ("export", ["--imgsz", "384", "640"], "imgsz", (384, 640)),
        ("export", ["--weights", "a.pt", "--file", "b.torchscript"], "file", "b.torchscript"),
    ],
)
def test_words_become_keys(program: str, words: list[str], key: str, value: object) -> None:
    assert compat.read(program, words, say=lambda text: None).as_dict()[key] == (
        list(value) if isinstance(value, tuple) else value
    )


@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("train_dual", [], "needs a model. Add --cfg yolov9-s.yaml"),
        ("train_dual", ["--epochs"], "--epochs takes one value"),
        ("train_dual", ["--epochs", "3", "4"], "--epochs takes one value, 2 were given"),
        ("train_dual", ["--epoch_s", "3"], "no key 'epoch-s'. Did you mean 'epochs'?"),
        ("val", ["--save"], "'--save' may be any of --save-txt, --save-hybrid"),
        ("val", ["--weights", "a.pt", "b.pt"], "names 2 files"),
        ("val", ["--task", "study"], "Validate once for each --imgsz"),
        ("export", ["--weights", "a.pt", "--include", "engine"], "on the card it is for"),
        ("export", ["--weights", "a.pt", "--include", "onnx_end2end"], "--format onnx --nms"),
    ],
)
def test_mistakes_are_named(program: str, words: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        compat.read(program, words, say=lambda text: None)
    assert message in str(caught.value)


def test_train_validate_and_detect_by_official_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_demo(tmp_path / "data", images=8))
    monkeypatch.chdir(tmp_path)
    common = ["--device", "cpu", "--img", "64", "--workers", "0"]
    train = ["--data", data, "--cfg", "models/detect/gelan-t.yaml", "--weights", "", "--batch", "4"]
    train += ["--epochs", "1"]
    assert compat.main("train", [*train, *common, "--noplots", "--micro-batch", "4", "--ckpt", "off"]) == 0
    best = "runs/train/exp/weights/best.pt"
    assert compat.main("val", ["--data", data, "--weights", best, "--save-json", *common, "--no-plots"]) == 0
    source = str(data).replace("data.yaml", "images/val")
    detect = ["--source", source, "--weights", best, "--img", "64", "64", "--device", "cpu", "--save-txt"]
    assert compat.main("detect", detect) == 0
    assert Path("runs/detect/exp").is_dir()
    assert list(Path("runs/val/exp").glob("*.json"))
    out = capsys.readouterr()
    assert "train: --batch 4: images per optimizer step" in out.out
    assert out.err == ""


@pytest.mark.parametrize("program", LISTS)
def test_every_program_is_a_file_that_names_it(program: str) -> None:
    text = (ROOT / "compat" / f"{program}.py").read_text(encoding="utf-8")
    assert f'main("{program}")' in text
    assert sorted(path.stem for path in (ROOT / "compat").glob("*.py")) == sorted(LISTS)


def test_a_program_lists_its_flags_and_starts_from_any_folder(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "compat" / "train_dual.py"), "--help"],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert [flag for flag in PROGRAMS["train_dual"].flags if f"  --{flag} " not in run.stdout] == []
