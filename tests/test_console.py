"""Text on terminals of all widths, on dumb ones, in pipes and log files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.console import Progress, Row, Rows, Screen
from holdfast.errors import WeightsError
from terminals import run_in_terminal, terminal, visible

SOURCE = str(Path(__file__).parents[1] / "src")
LONG = "a sentence of [0.3] words :smile: " * 8
PROGRAM = f"""
import sys
from holdfast.console import Row, Rows, Screen
screen = Screen(sys.stdout)
screen.say({LONG!r})
for step in range(3):
    first = Row([(0, "epoch 1/3"), (1, f"{{step}}/3"), (2, "64.0 img/s")], step / 3)
    screen.draw(Rows([first, Row([(0, "box 1")])]))
    print("printed", {LONG!r})
    print("warned", file=sys.stderr)
"""


@pytest.mark.parametrize("columns", [1, 9, 20, 40, 80, 160])
def test_a_row_fits_whatever_the_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [(0, "epoch 1/3"), (2, "88/312"), (3, "64.0 img/s"), (1, "03:44 left")]
    with terminal(columns, monkeypatch) as (out, seen):
        screen = Screen(out)
        for done in (0.0, 0.5, 1.0):
            screen.draw(Rows([Row(parts, done), Row(parts), Row([(0, "")])]))
            lines = seen()
            assert len(lines) == 2
            assert all(len(line) <= columns for line in lines)
            assert lines[1].startswith("epoch 1/3"[:columns])
            assert ("━" in lines[0]) == (columns >= 20)
            assert ("64.0 img/s" in lines[1]) == (columns >= 80)
        screen.clear()
        assert not any(seen())


def test_what_is_printed_while_something_is_drawn_stays_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(40, monkeypatch) as (out, seen):
        screen = Screen(out)
        screen.draw(Row([(0, "drawn")]))
        print(LONG)
        screen.say("said [0.3]")
        lines = seen()
        assert "".join(line.ljust(40) for line in lines).startswith(LONG)  # only the terminal has broken it
        assert lines[-2:] == ["said [0.3]", "drawn"]
        screen.clear()
        assert sys.stdout is out
        print("after")
        assert [line for line in seen() if line][-2:] == ["said [0.3]", "after"]


def test_a_program_that_ends_anyhow_leaves_the_terminal_as_it_was() -> None:
    for end in ("", "raise KeyboardInterrupt", "import os; os.kill(os.getpid(), 9)"):
        words = [sys.executable, "-c", PROGRAM + end]
        _, written = run_in_terminal(words, 40, environment={"PYTHONPATH": SOURCE, "TERM": "xterm"})
        lines = visible(written, 40)
        assert b"\x1b[?" not in written  # no mode of the terminal is changed, the cursor stays visible
        assert lines.count("warned") == 3
        assert any(line.startswith("epoch 1/3  ") and "2/3" in line for line in lines)


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_dumb_terminal_gets_plain_lines_and_no_colour_means_none(variables: dict[str, str]) -> None:
    words = [sys.executable, "-c", PROGRAM]
    _, written = run_in_terminal(words, 40, environment={"PYTHONPATH": SOURCE, **variables})
    if variables["TERM"] == "dumb":
        assert b"\x1b" not in written
        assert b"epoch" not in written
    else:
        assert b"\x1b[2K" in written
        assert b"\x1b[3" not in written
        assert b"epoch" in written


@pytest.mark.parametrize("variables", [{}, {"FORCE_COLOR": "1", "COLUMNS": "40"}])
def test_a_pipe_gets_whole_lines_and_no_control_codes(variables: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": SOURCE, **variables},
    )  # fmt: skip
    assert done.stdout.splitlines() == [LONG, *(["printed " + LONG] * 3)]
    assert done.stderr == "warned\n" * 3


def test_progress_on_a_terminal_is_a_bar_that_is_cleared_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(60, monkeypatch) as (out, seen):
        with Progress(out) as progress:
            progress.show(0, 2_000_000)
            progress.show(2_000_000, 2_000_000)
            (line,) = seen()
            assert line.startswith("  100%  ━━━")
            assert line.endswith("━  2.0 MB of 2.0 MB  0 s left")
            progress.screen.say("done")
        assert [line for line in seen() if line] == ["done"]


def test_progress_is_cleared_when_an_error_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(60, monkeypatch) as (out, seen):

        def fails(progress: Progress) -> None:
            with progress:
                progress.show(5_000_000, None)
                assert seen() == ["  5.0 MB"]
                raise WeightsError("gone")

        with pytest.raises(WeightsError):
            fails(Progress(out))
        assert not any(seen())
        assert sys.stdout is out


def test_a_pipe_sees_a_plain_line_per_quarter() -> None:
    out = io.StringIO()
    with Progress(out) as progress:
        for file in (4_000_000, 2_000_000):
            for done in range(0, file + 1, 100_000):
                progress.show(done, file)
    lines = out.getvalue().splitlines()
    assert lines[:4] == ["   25% of 4.0 MB", "   50% of 4.0 MB", "   75% of 4.0 MB", "  100% of 4.0 MB"]
    assert lines[4:] == [line.replace("4.0", "2.0") for line in lines[:4]]


def test_what_is_done_at_once_needs_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress(out, unit=lambda count: f"{count} images", after=1.0)
    for seconds, done in ((5.0, 100), (0.9, 400), (0.2, 100), (1.5, 200), (1.0, 400)):
        now[0] += seconds
        progress.show(done, 400)
    assert out.getvalue().splitlines() == ["   50% of 400 images", "  100% of 400 images"]
