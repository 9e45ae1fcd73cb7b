"""`holdfast check` by its doors: text, JSON, page, copy and exit codes."""

from __future__ import annotations

import html.parser
import json
import shutil
from pathlib import Path

import pytest

import holdfast
from holdfast.cli import main as cli
from holdfast.data.shapes import write_demo
from holdfast.errors import SettingsError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_demo(tmp_path / "shapes", images=100)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def leak(data: Path) -> None:
    """Puts a picture of train into val, and a row that cannot be used into a label file."""
    shutil.copy(data.parent / "images/train/0003.jpg", data.parent / "images/val/<b>x & y.jpg")
    shutil.copy(data.parent / "labels/train/0003.txt", data.parent / "labels/val/<b>x & y.txt")
    with (data.parent / "labels/train/0000.txt").open("a") as file:
        file.write("9 .5 .5 .1 .1\n")


def test_sound_data(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(data)]) == 0
    out, err = capsys.readouterr()
    assert "Data OK: 80 train, 20 val\n" in out
    assert err == ""
    folder = tmp_path / "runs" / "check" / "exp"
    assert sorted(path.name for path in folder.iterdir()) == ["check.html", "labels.jpg"]
    assert str(Path("runs/check/exp/check.html")) in out


def test_warnings_name_count_example_and_remedy(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leak(data)
    assert cli.main(["check", f"data={data}", "--no-plots"]) == 1
    out = capsys.readouterr().out
    assert "warning  1 x class out of range (train)\n" in out
    assert "0000.txt line" in out
    assert "warning  1 x picture of val that is in train too (val)\n" in out
    assert "-> Delete one of each pair" in out
    assert "Data usable, with 2 warnings to look at: 80 train, 21 val\n" in out
    assert "Add --fix FOLDER for a cleaned copy, free of 2 of 2 warnings.\n" in out
    assert not Path("runs").exists()


def test_errors_exit_with_2_and_write_no_page(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.write_text("names: [a]\nval: !!python/none {}\n")
    assert cli.main(["check", str(data)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"error    {data} line 2: uses a yaml tag")
    assert out.endswith("Data cannot be trained on: 1 error\n")
    assert err == ""
    assert not Path("runs").exists()
    assert cli.main(["check", "none.yaml"]) == 2
    assert cli.main(["check"]) == 2


@pytest.mark.parametrize("broken", [False, True])
def test_json_is_one_object_and_nothing_else(
    data: Path, broken: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    leak(data)
    if broken:
        data.write_text("names: []")
    code = cli.main(["check", str(data), "--json", "--fix", "clean"])
    out, err = capsys.readouterr()
    assert err == ""
    content = json.loads(out)
    assert content["exit_code"] == code == (2 if broken else 1)
    if not broken:
        assert content["splits"]["train"]["images"] == 80
        assert [c["name"] for c in content["classes"]] == ["disc", "square", "triangle"]
        assert {f["level"] for f in content["findings"]} == {"warning"}
        assert content["leaks"][0]["val"].endswith("<b>x & y.jpg")
        assert Path(content["page"]).is_file()
        assert Path(content["copy"]).is_file()


def test_copy_is_ok(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leak(data)
    assert cli.main(["check", str(data), "--fix", "clean", "--no-plots"]) == 1
    assert "Cleaned copy: clean" in capsys.readouterr().out
    assert cli.main(["check", "clean", "--no-plots"]) == 0
    assert "Data OK: 79 train, 21 val\n" in capsys.readouterr().out
    assert cli.main(["check", str(data), "--fix", "clean", "--no-plots"]) == 2
    out, err = capsys.readouterr()
    assert out == ""  # refused before any work
    assert "nothing is overwritten" in err


def test_python_gets_the_findings(data: Path) -> None:
    leak(data)
    said: list[str] = []
    result = holdfast.check(data, say=said.append, plots=False)
    assert result.exit_code == 1
    assert said[-2] == result.verdict
    assert [finding.count for finding in result.findings] == [1, 1]
    with pytest.raises(SettingsError, match="Did you mean 'imgsz'"):
        holdfast.check(data, imgzs=320)


def test_quiet(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(data), "--no-verbose"]) == 0
    assert capsys.readouterr().out == ""


def test_help_says_what_the_exit_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: holdfast check DATA " in out
    for line in ("  0  nothing is wrong", "  1  usable, but", "  2  cannot be trained on"):
        assert f"\n{line}" in out


class Page(html.parser.HTMLParser):
    """Collects what a page would load, and checks that its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_holds_its_pictures_and_loads_nothing(data: Path) -> None:
    leak(data)
    text = Path("runs/check/exp/check.html")
    holdfast.check(data, say=lambda line: None)
    page = Page()
    page.feed(text.read_text(encoding="utf-8"))
    assert page.open == []
    assert len(page.sources) == 2  # the leaked pair
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    content = text.read_text(encoding="utf-8")
    assert "url(" not in content
    assert "http://" not in content
    assert "https://" not in content
    assert "&lt;b&gt;x &amp; y.jpg" in content  # file names are text, not markup
    assert "prefers-color-scheme: dark" in content
