"""Settings: spellings, precedence, refusals, and the one owner of defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from holdfast.errors import SettingsError
from holdfast.settings import DemoSettings, DownloadSettings, PredictSettings, TrainSettings, ValSettings
from holdfast.settings.base import Settings, expected
from holdfast.settings.presets import preset_names

VERBS = [TrainSettings, ValSettings, PredictSettings, DemoSettings, DownloadSettings]


@pytest.mark.parametrize("kind", VERBS)
def test_every_key_has_a_description_and_belongs_to_one_component(kind: type[Settings]) -> None:
    grouped = [key for fields in kind.groups().values() for key in fields]
    assert sorted(grouped) == sorted(kind.model_fields)
    for key, field in kind.model_fields.items():
        assert field.description, key
        assert not field.is_required(), key
        assert "typing" not in expected(field), key  # every kind of value has words


@pytest.mark.parametrize("kind", VERBS)
def test_defaults_pass_their_own_checks(kind: type[Settings]) -> None:
    assert kind(**kind().as_dict()) == kind()


@pytest.mark.parametrize(
    ("key", "value"),
    [("scale", 0.5), ("mixup", 0.0), ("close_mosaic", 10), ("epochs", 100), ("batch", 16), ("imgsz", 640),
     ("patience", 100), ("optimizer", "auto"), ("lr0", 0.01), ("lrf", 0.01), ("nbs", 64), ("box", 7.5),
     ("warmup_epochs", 3.0),
     ("cls", 0.5), ("dfl", 1.5), ("conf", 0.001), ("iou", 0.7), ("project", "runs/train")],
)
def test_training_defaults_are_those_users_know(key: str, value: Any) -> None:
    assert getattr(TrainSettings(), key) == value


@pytest.mark.parametrize(
    ("kind", "keys", "expected_values"),
    [
        (TrainSettings, {"img": 320}, {"imgsz": 320}),
        (TrainSettings, {"img-size": "320"}, {"imgsz": 320}),
        (TrainSettings, {"img_size": 320.0}, {"imgsz": 320}),
        (TrainSettings, {"batch-size": 8}, {"batch": 8}),
        (TrainSettings, {"cfg": "gelan-c.yaml", "weights": "a"}, {"model": "gelan-c.yaml", "weights": "a"}),
        (ValSettings, {"weights": "a.pt", "conf-thres": 0.1}, {"model": "a.pt", "conf": 0.1}),
        (PredictSettings, {"line-thickness": 2}, {"line_width": 2}),
        (PredictSettings, {"nosave": True}, {"save": False}),
        (TrainSettings, {"nosave": True}, {"nosave": True}),
        (TrainSettings, {"no-amp": True}, {"amp": False}),
        (TrainSettings, {"no_amp": "false"}, {"amp": True}),
        (TrainSettings, {"optimizer": "adamw"}, {"optimizer": "AdamW"}),
        (TrainSettings, {"amp_dtype": "bf16"}, {"amp_dtype": "bfloat16"}),
        (TrainSettings, {"device": 0}, {"device": "0"}),
        (TrainSettings, {"device": [0, 1]}, {"device": "0,1"}),
        (TrainSettings, {"device": None, "name": None, "freeze": None, "save": None}, {}),
        (ValSettings, {"split": None, "conf": None, "project": None, "imgsz": 96}, {"imgsz": 96}),
        (TrainSettings, {"data": Path("a b/ä.yaml")}, {"data": "a b/ä.yaml"}),
        (TrainSettings, {"lr0": "1e-3", "cos_lr": "True"}, {"lr0": 0.001, "cos_lr": True}),
        (TrainSettings, {"freeze": "10"}, {"freeze": 10}),
        (TrainSettings, {"freeze": "0,backbone"}, {"freeze": (0, "backbone")}),
        (TrainSettings, {"freeze": "neck"}, {"freeze": ("neck",)}),
        (TrainSettings, {"resume": "true"}, {"resume": True}),
        (TrainSettings, {"resume": "runs/last.pt"}, {"resume": "runs/last.pt"}),
        (PredictSettings, {"classes": "0,2"}, {"classes": (0, 2)}),
        (PredictSettings, {"classes": "[0, 2]"}, {"classes": (0, 2)}),
        (PredictSettings, {"classes": 3}, {"classes": (3,)}),
        (PredictSettings, {"classes": "none"}, {"classes": None}),
    ],
)
def test_spellings_and_values_users_write(
    kind: type[Settings], keys: dict[str, Any], expected_values: dict[str, Any]
) -> None:
    settings = kind(**keys)
    assert settings.given() == expected_values
    for key, value in expected_values.items():
        assert type(getattr(settings, key)) is type(value)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        (TrainSettings, {"epoch": 3}, "train has no key 'epoch'. Did you mean 'epochs'?"),
        (PredictSettings, {"conf_thresh": 1}, "predict has no key 'conf_thresh'. Did you mean 'conf_thres'?"),
        (TrainSettings, {"zzz": 3}, "train has no key 'zzz'. See 'holdfast train --help'."),
        (ValSettings, {"epochs": 3}, "val has no key 'epochs'."),  # a key of another verb is unknown here
        (TrainSettings, {"img": 1, "imgsz": 2}, "'imgsz' is given twice, as 'img' and 'imgsz'."),
        (TrainSettings, {"epochs": "ten"}, "epochs=ten does not fit: expected a whole number from 1 up"),
        (TrainSettings, {"epochs": 1.5}, "epochs=1.5 does not fit"),
        (TrainSettings, {"batch": 0}, "batch=0 does not fit"),
        (TrainSettings, {"batch": -2}, "batch=-2 does not fit"),
        (ValSettings, {"batch": -1}, "batch=-1 does not fit"),
        (TrainSettings, {"ckpt": "all"}, "ckpt=all does not fit: expected auto, off, norm, stages"),
        (TrainSettings, {"lr0": float("nan")}, "lr0=nan does not fit"),
        (TrainSettings, {"mosaic": 1.2}, "mosaic=1.2 does not fit: expected a number from 0 to 1"),
        (TrainSettings, {"optimizer": "sdg"}, "expected one of auto, SGD, Adam, AdamW, LION"),
        (TrainSettings, {"cos_lr": True, "fixed_lr": True}, "cos_lr and fixed_lr exclude each other"),
        (PredictSettings, {"classes": "cat"}, "classes=cat does not fit: expected a list of whole numbers"),
        (PredictSettings, {"line_width": 0}, "line_width=0 does not fit"),
        (TrainSettings, {"amp": "maybe"}, "amp=maybe does not fit: expected true or false"),
    ],
)
def test_mistakes_are_one_clear_sentence(kind: type[Settings], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        kind(**keys)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match="epochs=0 .*; .*batch=0|batch=0 .*; .*epochs=0"):
        TrainSettings(epochs=0, batch=0)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        TrainSettings().epochs = 3  # type: ignore[misc]


def test_hand_given_beats_hyp_beats_default(tmp_path: Path) -> None:
    hyp = tmp_path / "mine.yaml"
    hyp.write_text("scale: 0.9\nlr0: 0.02\nimg-size: 320\n".replace("img-size", "imgsz"))
    settings = TrainSettings(hyp=hyp, lr0=0.03)
    assert (settings.scale, settings.lr0, settings.imgsz, settings.momentum) == (0.9, 0.03, 320, 0.937)


@pytest.mark.parametrize("name", ["scratch-high", "hyp.scratch-high", "data/hyps/hyp.scratch-high.yaml"])
def test_presets_answer_to_their_historic_names(name: str) -> None:
    settings = TrainSettings(hyp=name)
    assert (settings.scale, settings.mixup, settings.warmup_bias_lr) == (0.9, 0.15, 0.1)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_passes_the_checks(name: str) -> None:
    assert TrainSettings(hyp=name).notes == ()


def test_official_hyp_file_is_accepted_and_says_what_has_no_effect(tmp_path: Path) -> None:
    hyp = tmp_path / "hyp.mine.yaml"
    hyp.write_text("box: 7.5\nobj: 0.7\niou_t: 0.2\nanchor_t: 5\ncls_pw: 1.0\nfl_gamma: 0\ncopy_paste: 0.3\n")
    settings = TrainSettings(hyp=hyp)
    (note,) = settings.notes
    assert "obj, iou_t, anchor_t, cls_pw, fl_gamma have no effect" in note
    assert settings.copy_paste == 0.3


@pytest.mark.parametrize(
    ("given", "spread"), [(True, 0.5), ("true", 0.5), (False, 0.0), ("0.25", 0.25), (0, 0.0), (0.3, 0.3)]
)
def test_multi_scale_is_a_share_or_a_switch(given: object, spread: float) -> None:
    settings = TrainSettings(multi_scale=given)
    assert type(settings.multi_scale) is float
    assert settings.multi_scale == spread


@pytest.mark.parametrize("value", [1.0, -0.1, "much", 1])
def test_a_spread_of_a_whole_side_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match="multi_scale"):
        TrainSettings(multi_scale=value)


def test_policies_may_be_switched_off_by_many_words() -> None:
    assert TrainSettings(autoaugment="RandAugment").autoaugment == "randaugment"
    for off in (None, False, "none", "off", ""):
        assert TrainSettings(autoaugment=off).autoaugment == "none"
    assert TrainSettings(mosaic_tiles=9).mosaic_tiles == "9"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fl_gamma: 1.5", "fl_gamma=1.5 is not supported"),
        ("lr00: 1", "unknown key 'lr00'. Did you mean 'lr0'?"),
        ("hyp: other.yaml", "unknown key 'hyp'"),
        ("lr0: -1", "lr0=-1 does not fit"),
        ("- 1", "must hold lines of 'key: value'"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_faults_in_a_hyp_file_are_named(tmp_path: Path, content: str, message: str) -> None:
    hyp = tmp_path / "mine.yaml"
    hyp.write_text(content)
    with pytest.raises(SettingsError) as caught:
        TrainSettings(hyp=hyp)
    assert message in str(caught.value)


def test_missing_hyp_names_the_nearest_preset() -> None:
    with pytest.raises(SettingsError, match=r"neither a file nor a preset\. Did you mean 'scratch-high'"):
        TrainSettings(hyp="scratchhigh")


def test_args_yaml_restores_the_run_without_the_hyp_file(tmp_path: Path) -> None:
    hyp = tmp_path / "mine.yaml"
    hyp.write_text("scale: 0.9")
    settings = TrainSettings(hyp=hyp, freeze=[0, "neck"], data="ä b.yaml", resume=True)
    (tmp_path / "args.yaml").write_text(settings.as_yaml(), encoding="utf-8")
    hyp.unlink()
    again = TrainSettings.load(tmp_path / "args.yaml")
    assert again == settings
    assert again.hyp == str(hyp)
    plain = yaml.safe_load((tmp_path / "args.yaml").read_text(encoding="utf-8"))
    assert plain["freeze"] == [0, "neck"]
    assert set(plain) == set(TrainSettings.model_fields)


@pytest.mark.parametrize("content", ["epochs: none", "what: 1", "- 1", ": :"])
def test_damaged_args_yaml_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "args.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"args\.yaml"):
        TrainSettings.load(path)


def test_replace_checks_again_and_keeps_the_rest() -> None:
    settings = TrainSettings(batch=8).replace(img=320)
    assert settings.given() == {"batch": 8, "imgsz": 320}
    with pytest.raises(SettingsError, match="imgsz=7"):
        settings.replace(imgsz=7)


def test_require_names_the_missing_key() -> None:
    with pytest.raises(SettingsError, match=r"val needs 'data' .*Add --data VALUE"):
        ValSettings(model="a.pt").require("model", "data")


def test_a_hyp_file_does_not_say_where_a_run_is_written(tmp_path: Path) -> None:
    hyp = tmp_path / "mine.yaml"
    hyp.write_text("scale: 0.9\nproject: /etc\nname: ../../evil\nresume: auto\n")
    settings = TrainSettings(hyp=hyp)
    assert settings.scale == 0.9
    assert (settings.project, settings.name, settings.resume) == ("runs/train", "exp", False)
    assert settings.notes == ("hyp file mine.yaml: project, name, resume have no effect here.",)


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("30s", 30), ("1h", 3600), ("90", 90), (0, 0)])
def test_the_interval_of_saving_is_a_time(text: object, seconds: float) -> None:
    assert TrainSettings(**{"save-every": text}).save_every == seconds
