"""A supervised run is started again when it is lost, leaves a page about that, and repeats no mistake."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from holdfast.errors import SettingsError
from holdfast.launching import processes
from holdfast.settings import TrainSettings
from holdfast.train.incident import checks, next_page, page
from holdfast.train.launch import CRASHED, Loss
from killing import command, start, until


def child_of(run: subprocess.Popen[str]) -> psutil.Process:
    """The training, which the supervisor has started."""
    until(lambda: psutil.Process(run.pid).children(), 30)
    return psutil.Process(run.pid).children()[0]


def test_a_killed_training_goes_on_by_itself_and_leaves_a_page(shapes: Path, tmp_path: Path) -> None:
    run = start(command(shapes, tmp_path, "run", supervise=True))
    last = tmp_path / "run" / "weights" / "last.pt"
    until(last.is_file)
    child_of(run).kill()
    out, _ = run.communicate(timeout=200)
    assert run.returncode == 0, out
    assert "the training was ended by SIGKILL; it starts again in 1 s" in out
    assert "resumed after epoch" in out
    assert out.count("epoch 2/2") == 1
    text = (tmp_path / "run" / "incidents" / "001.md").read_text()
    assert text.startswith("# The training was ended by SIGKILL")
    assert "what was done: it starts again in 1 s" in text
    assert "steps of the next, step " in text
    assert len((tmp_path / "run" / "results.csv").read_text().splitlines()) == 3


def test_a_mistake_of_the_user_is_told_once_and_ends_a_supervised_run(shapes: Path, tmp_path: Path) -> None:
    run = start(command(shapes, tmp_path, "run", supervise=True, weights="nowhere.pt"))
    out, _ = run.communicate(timeout=100)
    assert run.returncode == 4
    assert out.count("nowhere.pt") == 1
    assert "again" not in out
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_one_request_to_stop_saves_and_a_second_ends_at_once(
    shapes: Path, tmp_path: Path, ranks: int
) -> None:
    words = command(shapes, tmp_path, "run", supervise=True, epochs=200, ranks=ranks)
    last = tmp_path / "run" / "weights" / "last.pt"
    run = start(words)
    until(last.is_file)
    run.send_signal(signal.SIGTERM)
    out, _ = run.communicate(timeout=100)
    assert run.returncode == 128 + signal.SIGTERM
    assert f"saved in {last}" in out
    before = last.stat().st_mtime_ns
    run = start(words)
    until(lambda: last.stat().st_mtime_ns > before)
    children = psutil.Process(run.pid).children()
    assert len(children) == ranks
    for child in children:
        child.suspend()  # in a step that never ends
    run.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # two at the same moment would be one
    run.send_signal(signal.SIGTERM)
    out, _ = run.communicate(timeout=100)
    assert run.returncode == 128 + signal.SIGTERM
    assert not any(child.is_running() for child in children)
    assert not (tmp_path / "run" / "incidents").exists()


@pytest.mark.slow
def test_a_run_that_is_lost_again_and_again_is_given_up(shapes: Path, tmp_path: Path) -> None:
    run = start(command(shapes, tmp_path, "run", supervise=True, epochs=200, save_every=0, nosave=True))
    seen: set[int] = set()
    while run.poll() is None:
        for child in psutil.Process(run.pid).children():
            if child.pid not in seen and (tmp_path / "run" / "manifest.json").is_file():
                seen.add(child.pid)
                child.send_signal(signal.SIGSEGV)
        time.sleep(0.05)
    out, _ = run.communicate()
    assert run.returncode == 8, out
    assert "4 attempts in a row ended so without getting on" in out
    pages = sorted((tmp_path / "run" / "incidents").glob("*.md"))
    assert [path.stem for path in pages] == ["001", "002", "003", "004"]
    assert "given up: 4 attempts" in pages[-1].read_text()
    assert "A compiled library failed" in pages[0].read_text()


def test_under_another_launcher_supervision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes(TrainSettings(supervise=True), print) == 1
    assert processes(TrainSettings(), print) == 0
    assert processes(TrainSettings(device="cpu", ranks=2), print) == 2
    monkeypatch.setitem(os.environ, "RANK", "0")
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    assert processes(TrainSettings(device="cpu", ranks=2), print) == 0
    with pytest.raises(SettingsError, match="max-restarts"):
        processes(TrainSettings(supervise=True), print)


@pytest.mark.parametrize(
    ("loss", "kills", "word"),
    [
        (Loss(0, -9, ()), 2, "The kernel ended 2 processes for want of memory"),
        (Loss(0, -9, ()), 0, "Somebody or something killed it"),
        (Loss(0, -11, ("Fatal Python error: Segmentation fault",)), 0, "A compiled library failed"),
        (Loss(1, CRASHED, ("RuntimeError: CUDA error: unspecified launch failure",)), 0, "GPU or its driver"),
        (Loss(0, CRASHED, ("KeyError: 'x'",)), 0, "An unexpected error in the program"),
    ],
)
def test_a_page_says_what_to_check(tmp_path: Path, loss: Loss, kills: int, word: str) -> None:
    assert checks(loss, kills=kills)[0].startswith(("The", word[:3]))
    assert word in checks(loss, kills=kills)[0]
    text = page(loss, "it starts again in 1 s", tmp_path, position={}, kills=kills)
    assert all(line in text for line in loss.tail)
    assert "last checkpoint: none yet" in text
    assert len(text.splitlines()) < 60
    assert next_page(tmp_path).name == "001.md"
