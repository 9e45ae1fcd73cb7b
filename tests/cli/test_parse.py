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
