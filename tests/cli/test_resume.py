"""`holdfast resume`: which run, and which keys."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

import holdfast
from holdfast.cli.main import main
from holdfast.downloads import data_file
from holdfast.errors import SettingsError, WeightsError


def test_a_run_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", f"{tmp_path}/last.pt", "--epochs", "3"]) == 4
    assert f"{tmp_path}/last.pt: there is no such checkpoint" in capsys.readouterr().err
    assert main(["resume", f"project={tmp_path}"]) == 2
    assert f"There is no run to resume in {tmp_path}" in capsys.readouterr().err
    assert main(["resume", f"{tmp_path}/last.pt", "--epoch", "3"]) == 2
    assert "Did you mean 'epochs'" in capsys.readouterr().err


def test_the_function_takes_what_the_verb_takes(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such checkpoint"):
        holdfast.resume(tmp_path / "last.pt", epochs=3)
    with pytest.raises(SettingsError, match="no run to resume"):
        holdfast.resume(project=tmp_path)


def test_help_names_the_run_and_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Usage: holdfast resume [RUN]" in text
    assert "--resume auto" in text


def test_a_zip_file_stands_for_the_data_file_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("set/data.yaml", "names: [a]\ntrain: images\n")
    found = Path(data_file(str(tmp_path / "set.zip")))
    assert found.parts[-2:] == ("set", "data.yaml")
    assert tmp_path / "cache" / "holdfast" / "datasets" in found.parents
    assert data_file("data.yaml") == "data.yaml"
    assert data_file("missing.zip") == "missing.zip"  # told as any missing data file
