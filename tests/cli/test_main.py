"""The command line answers in one line and an exit code; help is complete; nothing ends in a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

from holdfast import __version__
from holdfast.cli import main as cli
from holdfast.cli.flags import help_text, markdown_table
from holdfast.settings import (
    CheckSettings,
    ConvertSettings,
    DemoSettings,
    DownloadSettings,
    PredictSettings,
    TrainSettings,
    ValSettings,
)
from holdfast.settings.base import Settings

VERBS = {
    "train": TrainSettings,
    "val": ValSettings,
    "predict": PredictSettings,
    "demo": DemoSettings,
    "check": CheckSettings,
    "convert": ConvertSettings,
    "download": DownloadSettings,
}


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"]])
def test_help_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    for verb in (*VERBS, "models", "env", "help", "version"):
        assert f"\n  {verb} " in out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_every_key_and_default(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    for title in VERBS[verb].groups():
        assert f"\n{title}\n" in out
    for key in VERBS[verb].model_fields:
        assert f"  --{key.replace('_', '-')}" in out


@pytest.mark.parametrize("kind", VERBS.values())
def test_documentation_table_has_a_row_per_key(kind: type[Settings]) -> None:
    rows = markdown_table(kind).splitlines()
    assert all(row.count("|") == 5 for row in rows)
    assert [row.split("`")[1] for row in rows if "`" in row] == [k for g in kind.groups().values() for k in g]


def test_help_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    lines = help_text(TrainSettings, summary="Train").splitlines()
    assert max(len(line) for line in lines if line.startswith("    ")) <= 70


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"holdfast {__version__}\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trian"], 2, "There is no verb 'trian'. Did you mean 'train'?"),
        (["detect"], 2, "Did you mean 'predict'?"),
        (["train", "--epoch", "3"], 2, "train has no key 'epoch'. Did you mean 'epochs'?"),
        (["train", "--epochs", "0"], 2, "epochs=0 does not fit"),
        (["train"], 2, "train needs 'data'"),
        (["val", "--data", "x.yaml"], 2, "val needs 'model'"),
        (["predict", "--model", "yolov9-t"], 2, "predict needs 'source'"),
        (["models", "--all"], 2, "takes no keys"),
        (["help", "trian"], 2, "There is no verb 'trian'"),
        (["train", "--data", "no-such.yaml"], 3, "no-such.yaml"),
        (["val", "--model", "no-such.pt", "--data", "x.yaml"], 4, "no-such.pt"),
        (["val", "--model", "no-such.pt"], 4, "no-such.pt"),
        (["predict", "--model", "no-such.pt", "--source", "x.jpg"], 4, "no-such.pt"),
        (["predict", "segment", "model=yolo26n", "source=x"], 2, "for the task 'detect', not 'segment'"),
        (["pose", "val", "model=yolo26n", "data=x.yaml"], 2, "a model for the task 'detect', not 'pose'"),
    ],
)
def test_mistakes_are_one_line_with_an_exit_code(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == code
    err = capsys.readouterr().err
    assert err.startswith("holdfast: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_ctrl_c_ends_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(words: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli._VERBS, "train", ("Train", interrupted))
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "holdfast: stopped by Ctrl-C\n"


def test_closed_pipe_is_no_error() -> None:
    code = "import sys; from holdfast.cli.main import main; sys.exit(main(['train', '--help']))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()
    assert (child.wait(), err) == (0, b"")


def test_models_lists_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    from holdfast.models import available

    assert cli.main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in available())


def test_env_reports_versions(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert cli.main(["env"]) == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out
    assert sys.version.split()[0] in out
