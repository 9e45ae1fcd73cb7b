"""A key that nothing reads would be a promise broken in silence: every key is used by its verb's program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.settings import (
    AdviseSettings,
    BenchmarkSettings,
    CertifySettings,
    CheckSettings,
    CompareSettings,
    ConvertSettings,
    DemoSettings,
    DownloadSettings,
    EnvSettings,
    ExportSettings,
    PlanSettings,
    PredictSettings,
    ReportSettings,
    TrainSettings,
    TuneSettings,
    ValSettings,
    WatchSettings,
    components,
)
from holdfast.settings.base import Settings

SOURCE = Path(__file__).parents[2] / "src" / "holdfast"
PLACES = {
    TrainSettings: "train/*.py",
    ValSettings: "val/*.py",
    PredictSettings: "predict/*.py",
    DemoSettings: "demo.py",
    CheckSettings: "checking.py",
    ConvertSettings: "conversion.py",
    DownloadSettings: "downloads.py",
    PlanSettings: "planning.py",
    WatchSettings: "watching.py",
    AdviseSettings: "advising.py",
    ReportSettings: "reporting.py",
    BenchmarkSettings: "benchmarking.py",
    CompareSettings: "comparing.py",
    ExportSettings: "exporting.py",
    EnvSettings: "cli/environment.py",
}
# Read elsewhere: by settings themselves, by the door, or under the name of the property that limits it.
ELSEWHERE = {"dnn", "hyp", "workers", "model", "task", "source", "ranks", "supervise"}


@pytest.mark.parametrize("kind", PLACES)
def test_every_key_is_read_by_its_program(kind: type[Settings]) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.glob(PLACES[kind]))
    read = set(re.findall(r"\bsettings\.(\w+)", text))
    for component in re.findall(r"\bsettings\.part\((\w+)\)", text):  # all go to one constructor
        read |= getattr(components, component).model_fields.keys()
    assert [key for key in kind.model_fields if key not in read | ELSEWHERE] == []


@pytest.mark.parametrize("kind", [TuneSettings, CertifySettings])
def test_programs_of_several_trainings_hand_keys_on(kind: type[Settings]) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (SOURCE / kind.verb()).glob("*.py"))
    own = kind.__mro__[1].model_fields.keys() - TrainSettings.model_fields.keys()
    assert own
    assert [key for key in own if f"settings.{key}" not in text] == []
    assert "settings.as_dict()" in text or "training.as_dict()" in text
