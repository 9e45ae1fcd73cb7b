"""The grammar of Ultralytics: tasks and modes in any order, spaces around '=', and its keys, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast import api
from holdfast.cli import main as cli
from holdfast.cli.grammar import MODES, SPECIAL, TASKS, translated
from holdfast.errors import SettingsError
from holdfast.settings import PredictSettings, TrainSettings, ValSettings
from holdfast.settings.base import Settings

VERBS = tuple(cli._VERBS)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("detect train data=x", "train data=x"),
        ("train detect data=x", "train data=x"),
        ("task=detect mode=train data=x", "train data=x"),
        ("train task=detect data=x", "train data=x"),
        ("mode=predict source=x", "predict source=x"),
        ("segment train data=x", "train data=x task=segment"),
        ("mode=val task=obb model=x", "val model=x task=obb"),
        ("demo task=pose epochs=1", "demo epochs=1 task=pose"),
        ("export task=segment model=x", "export model=x"),
        ("detect predict model=a.pt source=detect", "predict model=a.pt source=detect"),
        ("train data = x.yaml epochs = 3", "train data=x.yaml epochs=3"),
        ("train data=x, epochs=3,", "train data=x epochs=3"),
        ("predict classes=[0, 2] source=x", "predict classes=[0,2] source=x"),
        ("train --data x, --name a", "train --data x, --name a"),  # our own spelling stays as it is
        ("predict --source pose", "predict --source pose"),
        ("help train", "help train"),
        ("", ""),
    ],
)
def test_words_come_in_our_order(words: str, meant: str) -> None:
    assert translated(words.split(), verbs=VERBS) == meant.split()


@pytest.mark.parametrize("task", [task for task in TASKS if task not in api.TASKS])
@pytest.mark.parametrize("words", ["{} train data=x", "train {} data=x", "train task={} data=x", "{}"])
def test_a_task_without_models_is_refused_in_one_sentence(task: str, words: str) -> None:
    with pytest.raises(SettingsError, match=rf"There is no task '{task}' yet\. Models here do this"):
        translated(words.format(task).split(), verbs=VERBS)


@pytest.mark.parametrize("word", [*MODES, *SPECIAL])
def test_modes_and_commands_without_a_counterpart_say_what_to_do(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if word in VERBS:
        return
    for words in ([word, "model=a.pt"], ["detect", word]) if word in MODES else ([word],):
        assert cli.main(words) == 2
        err = capsys.readouterr().err
        assert f"There is no verb '{word}'. {(MODES.get(word) or SPECIAL[word])}" in err


# The published defaults of every key, as `yolo cfg` prints them.
COMMON: dict[str, Any] = {"task": "detect", "device": None, "project": None, "name": None, "exist_ok": False,
                          "verbose": True, "half": False, "dnn": False, "augment": False, "visualize": False}
TRAIN: dict[str, Any] = {
    **COMMON, "mode": "train", "model": "yolo26n.yaml", "data": "coco8.yaml", "epochs": 100, "time": None,
    "patience": 100, "batch": 16, "imgsz": 640, "save": True, "save_period": -1, "cache": False, "workers": 8,
    "pretrained": True, "optimizer": "auto", "seed": 0, "deterministic": True, "single_cls": False,
    "rect": False,
    "cos_lr": False, "close_mosaic": 10, "resume": False, "amp": True, "fraction": 1.0, "profile": False,
    "freeze": None, "multi_scale": 0.0, "compile": False, "overlap_mask": True, "mask_ratio": 4,
    "dropout": 0.0,
    "cls_remap": True, "channels_last": "auto", "val": True, "split": "val", "save_json": False, "conf": None,
    "iou": 0.7, "max_det": 300, "plots": True, "agnostic_nms": False, "classes": None, "nms": None,
    "end2end": None,
    "lr0": 0.01, "lrf": 0.01, "momentum": 0.937, "weight_decay": 0.0005, "warmup_epochs": 3.0,
    "warmup_momentum": 0.8, "warmup_bias_lr": 0.1, "nbs": 64, "box": 7.5, "cls": 0.5, "cls_pw": 0.0,
    "dfl": 1.5,
    "pose": 12.0, "kobj": 1.0, "rle": 1.0, "angle": 1.0, "dlog": 1.0, "dgrad": 0.5, "dlam": 1.0,
    "hsv_h": 0.015,
    "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 0.0, "translate": 0.1, "scale": 0.5, "shear": 0.0,
    "perspective": 0.0,
    "flipud": 0.0, "fliplr": 0.5, "bgr": 0.0, "mosaic": 1.0, "mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0,
    "copy_paste_mode": "flip", "auto_augment": "randaugment", "erasing": 0.4, "augmentations": None,
    "distill_model": None, "dis": 6.0, "quantize": None,
}  # fmt: skip
VAL: dict[str, Any] = {
    **COMMON, "mode": "val", "model": "a.pt", "data": "coco8.yaml", "imgsz": 640, "batch": 16,
    "save_json": False, "conf": None, "iou": 0.7, "max_det": 300, "plots": True, "rect": True,
    "split": "val", "workers": 8, "compile": False,
    "save_txt": False, "save_conf": False, "save_hybrid": False, "single_cls": False, "agnostic_nms": False,
    "classes": None, "nms": None, "end2end": None, "quantize": None,
}  # fmt: skip
PREDICT: dict[str, Any] = {
    **COMMON, "mode": "predict", "model": "a.pt", "source": "photos", "conf": 0.25, "iou": 0.7, "imgsz": 640,
    "rect": True, "batch": 1, "max_det": 300, "vid_stride": 1, "stream_buffer": False, "agnostic_nms": False,
    "classes": None, "retina_masks": False, "embed": None, "show": False, "save": True, "save_frames": False,
    "save_txt": False, "save_conf": False, "save_crop": False, "show_labels": True, "show_conf": True,
    "show_boxes": True, "line_width": None, "stream": False, "nms": None, "end2end": None,
    "tracker": "botsort.yaml", "compile": False, "persist": False, "quantize": None,
}  # fmt: skip
KINDS = {"train": (TrainSettings, TRAIN), "val": (ValSettings, VAL), "predict": (PredictSettings, PREDICT)}


@pytest.mark.parametrize("verb", KINDS)
def test_a_command_line_that_spells_out_every_default_runs(verb: str) -> None:
    from holdfast.cli.parse import parse

    kind, values = KINDS[verb]
    words = translated(["detect", verb, *(f"{key}={value}" for key, value in values.items())], verbs=VERBS)
    assert words[0] == verb
    settings = kind(**parse(kind, words[1:]))
    assert _changed(settings) <= {"model", "data", "source"}


@pytest.mark.parametrize("verb", KINDS)
def test_a_script_that_spells_out_every_default_runs(verb: str) -> None:
    kind, values = KINDS[verb]
    assert _changed(kind(**values)) <= {"model", "data", "source"}


def _changed(settings: Settings) -> set[str]:
    fields = type(settings).model_fields
    return {key for key, value in settings.given().items() if value != fields[key].default}


EVERY_KEY = [(verb, key) for verb, (_, values) in KINDS.items() for key in values]


@pytest.mark.parametrize(("verb", "key"), EVERY_KEY)
def test_every_key_with_another_value_acts_or_is_refused_with_advice(verb: str, key: str) -> None:
    kind, values = KINDS[verb]
    default = values[key]
    other: Any = (not default) if isinstance(default, bool) else "17"
    try:
        settings = kind(**{key: other})
    except SettingsError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.hint or "does not fit: expected" in str(refused)
        return
    assert settings.given() or key == "stream"  # the command line holds one picture at a time either way


def test_a_key_of_another_verb_names_it() -> None:
    with pytest.raises(SettingsError, match=r"no key 'epochs'\. It belongs to 'holdfast train'\."):
        PredictSettings(epochs=3)
