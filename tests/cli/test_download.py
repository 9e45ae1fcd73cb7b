"""`holdfast download` and the names it makes usable; a server on this machine stands for the authors'."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fileserver import Plan, running, status, truncated

import holdfast
from holdfast import downloads
from holdfast.cli import main as cli
from holdfast.errors import SettingsError, WeightsError
from holdfast.settings import DownloadSettings

CONTENT = b"weights" * 30_000
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def plan() -> Plan:
    return Plan(CONTENT)


@pytest.fixture
def site(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with running(plan) as address:
        yield address


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloads, empty, and a working folder that is empty too."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache" / "holdfast" / "weights"


def test_a_file_is_downloaded_with_its_licence_and_checksum_told(
    plan: Plan, site: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["download", "yolov9-c", "--mirror", site]) == 0
    assert (cache / "yolov9-c.pt").read_bytes() == CONTENT
    assert [path for path, _ in plan.asked] == ["/yolov9-c.pt"]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.endswith(" of 0.2 MB")] == [
        "yolov9-c.pt: licence GPL-3.0, set by WongKinYiu/yolov9; check that your use allows it",
        f"yolov9-c.pt: {site}/yolov9-c.pt",
        f"yolov9-c.pt: 210,000 bytes in {cache / 'yolov9-c.pt'}, "
        f"no published checksum; computed sha256 {SHA}",
    ]
    assert lines[-2] == "  100% of 0.2 MB"


def test_a_file_that_is_there_is_left_alone_unless_forced(
    plan: Plan, site: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["download", "gelan-c.pt", f"mirror={site}"]
    assert cli.main(words) == 0
    (cache / "gelan-c.pt").write_bytes(b"mine")
    capsys.readouterr()
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert f"{cache / 'gelan-c.pt'} is there already, no published checksum" in out
    assert "licence GPL-3.0" in out
    assert (cache / "gelan-c.pt").read_bytes() == b"mine"
    assert cli.main([*words, "--force"]) == 0
    assert (cache / "gelan-c.pt").read_bytes() == CONTENT
    assert len(plan.asked) == 2


def test_a_file_that_is_there_but_not_the_published_one_is_an_error(
    plan: Plan, site: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir(parents=True)
    (cache / "yolo26n.pt").write_bytes(b"mine")
    assert cli.main(["download", "yolo26n", f"mirror={site}"]) == 4
    err = capsys.readouterr().err
    assert "is not the released file" in err
    assert "holdfast download yolo26n --force" in err
    assert plan.asked == []


def test_bytes_that_are_not_the_published_ones_are_refused(
    site: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["download", "yolo26n", f"mirror={site}"]) == 4
    assert "the server's file has 210000 bytes instead of 5544453" in capsys.readouterr().err
    assert list(cache.iterdir()) == []


def test_several_names_go_into_a_folder_of_choice(site: str, tmp_path: Path, cache: Path) -> None:
    words = ["yolov9-c", "gelan-c.pt", "gelan-c", "--folder", str(tmp_path / "w"), "--mirror", site]
    assert cli.main(["download", *words]) == 0
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["gelan-c.pt", "yolov9-c.pt"]
    assert not cache.exists()


def test_a_retry_is_told(plan: Plan, site: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan.answers = [truncated(100_000)]
    assert cli.main(["download", "gelan-c", f"mirror={site}"]) == 0
    out = capsys.readouterr().out
    assert "the connection ended after 100000 of 210000 bytes; attempt 2 of 4 in 1 s" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "download needs the name of a released weight file. Released files are yolo26n, "),
        (["yolo26k"], 2, "There is no released weight file 'yolo26k'. Did you mean 'yolo26"),
        (["gelan-c", "yolo26-n"], 2, "Did you mean 'yolo26n'?"),
        (["gelan-c", "--foldr", "x"], 2, "Did you mean 'folder'?"),
        (["gelan-c", "--timeout", "0"], 2, "timeout=0 does not fit"),
        (["gelan-c", "--mirror", "ftp://x"], 4, "'ftp://x/gelan-c.pt' is no http or https address"),
    ],
)
def test_mistakes_are_one_line_and_download_nothing(
    words: list[str], code: int, message: str, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["download", *words]) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not cache.exists()


def test_an_error_is_one_line(plan: Plan, site: str, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.answers = [status(404)]
    assert cli.main(["download", "gelan-c", f"mirror={site}"]) == 4
    err = capsys.readouterr().err
    assert f"{site}/gelan-c.pt could not be downloaded: the server answered 404 Not Found." in err
    assert f"put it into {cache} under the name gelan-c.pt" in err


@pytest.mark.parametrize(
    "words",
    [
        ["val", "--model", "yolo26n.pt", "--data", "x.yaml"],
        ["predict", "--model", "yolo26n.pt", "--source", "x.jpg"],
        ["train", "--model", "yolo26n.pt", "--data", "x.yaml"],
        ["train", "--model", "gelan-t", "--weights", "yolo26n.pt", "--data", "x.yaml"],
    ],
)
def test_a_released_file_that_is_missing_is_never_downloaded_unasked(
    words: list[str], cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 4
    err = capsys.readouterr().err
    assert f"'yolo26n.pt', neither here nor in {cache}" in err
    assert "Run 'holdfast download yolo26n'" in err
    assert not cache.exists()


def test_python_door_finds_downloaded_files_by_name(plan: Plan, site: str, cache: Path) -> None:
    from holdfast import YOLO, models
    from holdfast.weights.store import save_safetensors

    with pytest.raises(WeightsError, match="holdfast download gelan-c"):
        YOLO("gelan-c.pt")
    lines: list[str] = []
    assert holdfast.download("gelan-c", mirror=site, say=lines.append) == cache / "gelan-c.pt"
    assert "GPL-3.0" in lines[0]
    with pytest.raises(SettingsError, match="Did you mean 'mirror'"):
        holdfast.download("gelan-c", miror=site)
    model = models.build("gelan-t", 2)
    save_safetensors(cache / "own.safetensors", model.state_dict(), model.header)
    assert len(YOLO("own.safetensors").names) == 2
    assert len(YOLO("gelan-t").load("own.safetensors").names) == 2


def test_training_starts_from_a_downloaded_file_by_its_name(tmp_path: Path, cache: Path) -> None:
    from holdfast import models
    from holdfast.data.shapes import write_demo
    from holdfast.weights.store import save_safetensors

    cache.mkdir(parents=True)
    model = models.build("gelan-t", 3)
    save_safetensors(cache / "own.safetensors", model.state_dict(), model.header)
    data = write_demo(tmp_path / "data", images=8, seed=1)
    words = ["--epochs", "1", "--imgsz", "64", "--batch", "4", "--workers", "0", "--no-plots"]
    words += ["--weights", "own.safetensors", "--model", "gelan-t", "--data", str(data)]
    assert cli.main(["train", *words]) == 0
    settings = Path("runs/train/exp/args.yaml").read_text(encoding="utf-8")
    assert f"weights: {cache / 'own.safetensors'}\n" in settings


def test_the_verb_does_not_wait_for_torch(site: str, tmp_path: Path) -> None:
    code = (
        "import sys; from holdfast.cli.main import main; "
        f"assert main(['download', 'gelan-c', '--mirror', '{site}', '--folder', sys.argv[1]]) == 0; "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/holdfast/weights"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/h/.cache/holdfast/weights"),
        ("linux", {}, "/h/.cache/holdfast/weights"),
        ("darwin", {}, "/h/Library/Caches/holdfast/weights"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/holdfast/weights"),
        ("win32", {}, "/h/AppData/Local/holdfast/weights"),
    ],
)
def test_folder_of_downloads_follows_the_habits_of_the_system(
    platform: str, variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/h", **variables}.items():
        monkeypatch.setenv(name, value)
    assert downloads.weights_folder() == Path(folder)
    assert downloads.index_folder() == Path(folder).with_name("index")


def test_names_are_given_as_words_or_as_a_key() -> None:
    assert DownloadSettings(names="a,b").names == DownloadSettings(names=["a", "b"]).names == ("a", "b")
