"""Words of a command line become keys and values, in every accepted spelling."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.cli.parse import parse
from holdfast.errors import SettingsError
from holdfast.settings import ConvertSettings, DownloadSettings, PredictSettings, TrainSettings
from holdfast.settings.base import Settings


@pytest.mark.parametrize("words", [["--lr0", "0.1"], ["--lr0=0.1"], ["lr0=0.1"]])
def test_three_spellings_mean_the_same(words: list[str]) -> None:
    assert parse(TrainSettings, words) == {"lr0": "0.1"}


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--rect"], {"rect": True}),
        (["rect"], {"rect": True}),
        (["rect=False"], {"rect": False}),
        (["--rect", "no"], {"rect": False}),
        (["--no-amp"], {"amp": False}),
        (["--no-amp", "--rect"], {"amp": False, "rect": True}),
        (["no_amp=True"], {"amp": False}),
        (["--rect", "batch=4"], {"rect": True, "batch": 4}),
        (["--resume"], {"resume": True}),
        (["--resume", "epochs=3"], {"resume": True, "epochs": 3}),
        (["--resume", "runs/a=b/last.pt"], {"resume": "runs/a=b/last.pt"}),  # '=' in a path, not a key
        (["--save-period", "-1"], {"save_period": -1}),
        (["--freeze", "0", "neck", "--batch", "4"], {"freeze": (0, "neck"), "batch": 4}),
        (["--freeze", "10"], {"freeze": 10}),
        (["--img-size", "320", "--batch_size", "8"], {"imgsz": 320, "batch": 8}),
        (["name="], {"name": ""}),
        (["data=a=b.yaml"], {"data": "a=b.yaml"}),
    ],
)
def test_training_words(words: list[str], values: dict[str, Any]) -> None:
    assert TrainSettings(**parse(TrainSettings, words)).given() == values


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--classes", "0", "2", "5"], {"classes": (0, 2, 5)}),
        (["--classes", "0,2", "source=a"], {"classes": (0, 2), "source": "a"}),
        (["classes=[0, 2]"], {"classes": (0, 2)}),
        (["--source", "a folder/ä.jpg", "--nosave"], {"source": "a folder/ä.jpg", "save": False}),
    ],
)
def test_prediction_words(words: list[str], values: dict[str, Any]) -> None:
    assert PredictSettings(**parse(PredictSettings, words)).given() == values


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["a"], {"names": ("a",)}),
        (["a.pt", "--force", "b", "folder=x"], {"names": ("a.pt", "b"), "force": True, "folder": "x"}),
        (["a", "--names", "b", "c"], {"names": ("a", "b", "c")}),
        (["--folder", "x", "a"], {"names": ("a",), "folder": "x"}),
        ([], {}),
    ],
)
def test_words_without_a_key_belong_to_the_list_of_a_verb_that_has_one(
    words: list[str], values: dict[str, Any]
) -> None:
    assert DownloadSettings(**parse(DownloadSettings, words)).given() == values


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["a", "b"], {"source": "a", "target": "b"}),
        (["a,b.pt", "--half", "--form", "official", "c"],
         {"source": "a,b.pt", "target": "c", "half": True, "form": "official"}),
        (["--source", "a", "b"], {"source": "a", "target": "b"}),
        (["target=b", "a"], {"source": "a", "target": "b"}),
        (["a"], {"source": "a"}),
    ],
)  # fmt: skip
def test_words_without_a_key_go_to_the_keys_of_a_verb_in_order(
    words: list[str], values: dict[str, Any]
) -> None:
    assert ConvertSettings(**parse(ConvertSettings, words)).given() == values


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        (TrainSettings, ["--epochs"], "--epochs needs a value"),
        (TrainSettings, ["--epochs", "--batch", "3"], "--epochs needs a value"),
        (TrainSettings, ["epochs"], "train does not know what 'epochs' means"),
        (TrainSettings, ["--epoch=3"], "Did you mean 'epochs'?"),
        (TrainSettings, ["epoch=3"], "Did you mean 'epochs'?"),
        (TrainSettings, ["--cos-lr", "often"], "does not know what 'often' means"),
        (PredictSettings, ["photo.jpg"], "does not know what 'photo.jpg' means"),
        (ConvertSettings, ["a", "b", "c"], "convert does not know what 'c' means"),
        (ConvertSettings, ["--target", "a", "b", "c"], "convert does not know what 'c' means"),
        (PredictSettings, ["--classes", "--save"], "--classes needs at least one value"),
    ],
)
def test_mistakes_are_named(kind: type[Settings], words: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(kind, words)
    assert message in str(caught.value)


@pytest.mark.parametrize("words", [["profile=False"], ["--profile=False", "dropout=0.0"], ["time=None"]])
def test_keys_of_other_programs_that_ask_for_nothing_are_taken(words: list[str]) -> None:
    assert TrainSettings(**parse(TrainSettings, words)).given() == {}


@pytest.mark.parametrize("words", [["profile=True"], ["--profile"], ["--profile", "False"]])
def test_others_are_told_what_to_do_instead(words: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"train has no key 'profile'.*'holdfast val' prints"):
        TrainSettings(**parse(TrainSettings, words))


def test_validation_and_saving_are_switched_off_in_both_words() -> None:
    words = ["val=False", "--save", "no"]
    assert TrainSettings(**parse(TrainSettings, words)).given() == {"noval": True, "nosave": True}


@pytest.mark.parametrize(
    "line",
    """
    --batch 64|--batch-size 64|--micro-batch 4|--accumulate 4|--ckpt|--amp|--amp-dtype bfloat16
    --amp-dtype float16|--fp16|--no-amp|--device 0|--device 0,1|--device 0,1,2,3|--device cpu
    --workers 4|--workers auto|--img 640|--imgsz 640|--img-size 640|--val-imgsz 320|--val-img-size 320
    --cfg yolov9-s.yaml|--weights a.pt|--data x.yaml|--lr0 0.1|--lrf 0.1|--momentum 0.9
    --weight-decay 0|--warmup-epochs 1|--box 7|--cls 1|--dfl 1|--hsv-h 0|--hsv-s 0|--hsv-v 0|--mosaic 0
    --mixup 0|--copy-paste 0.1|--degrees 5|--translate 0|--scale 0.9|--shear 1|--perspective 0.001
    --flipud 0.1|--fliplr 0|--label-smoothing 0.1|--lr-scale none|--lr-scale linear|--lr-scale sqrt
    --autoaugment randaugment|--autoaugment autoaugment|--close-mosaic 15|--ema|--no-ema
    --ema-decay 0.99|--val-interval 2|--patience 3|--noval|--nosave|--save-period 2|--cache ram
    --cache disk|--cache off|--sync-bn|--resume|--resume last.pt|--optimizer SGD|--optimizer Adam
    --optimizer AdamW|--optimizer LION|--optimizer MuSGD|--optimizer auto|--cos-lr|--flat-cos-lr
    --fixed-lr|--multi-scale|--rect|--single-cls|--freeze 10|--seed 1|--quad|--min-items 1
    --noautoanchor|--exist-ok|--project p|--name n|--ddp-timeout 60|--gpu-mem-limit 16GB
    --memory-limit 16GB|--hyp scratch-high
    """.replace("\n", "|").split("|"),
)
def test_every_flag_of_a_training_is_known(line: str) -> None:
    settings = TrainSettings(**parse(TrainSettings, line.split()))
    taken = not line.strip() or line.strip() in ("--quad", "--noautoanchor")
    assert bool(settings.given()) is not taken
    assert len(settings.notes) == (line.strip() in ("--quad", "--noautoanchor"))


@pytest.mark.parametrize("line", ["--evolve", "--evolve 30"])
def test_flags_that_cannot_act_say_what_to_do(line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        TrainSettings(**parse(TrainSettings, line.split()))
    assert caught.value.hint
    assert "--help" not in caught.value.hint


@pytest.mark.parametrize(("words", "given"), [(["--fp16"], "float16"), (["--bf16"], "bfloat16"),
                                              (["fp16=False"], "auto"), (["--fp16", "no"], "auto")])
def test_a_switch_may_mean_a_value(words: list[str], given: str) -> None:
    assert TrainSettings(**parse(TrainSettings, words)).given() == {"amp_dtype": given}


def test_none_leaves_a_key_alone() -> None:
    assert parse(TrainSettings, ["freeze=None", "epochs=3"]) == {"epochs": "3"}
