"""The pictures and the page of a training, from whatever its folder holds."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from histories import GIB, history
from holdfast.cli import main as cli
from holdfast.health.log import NAME
from holdfast.health.records import Breakdown, Epoch, Event, to_row
from holdfast.report.gradient_plots import gradient_panels, plot_gradients
from holdfast.report.memory_plots import plot_memory
from holdfast.report.panels import inline
from holdfast.report.rate_plots import plot_rates
from holdfast.report.run import finish
from holdfast.report.run_folder import read_run
from holdfast.report.run_page import MOST, run_page
from holdfast.report.speed_plots import plot_speed

VOID = {"meta", "img", "br", "link", "hr", "input"}


def write_health(folder: Path, length: int, *, full: bool = True) -> Path:
    """health.jsonl of a run that was started again twice, lost some records and met trouble."""

    def change(epoch: Epoch) -> dict[str, Any]:
        rates = {"rates": (0.01, 0.01, 0.02 / epoch.epoch)}
        return rates | ({"norm": None, "norm_max": None} if epoch.epoch % 7 == 5 else {})

    made = history(length, change)
    rows = [to_row(made.facts)]
    for epoch in made.epochs:
        if epoch.epoch % 50 != 49:
            rows.append(to_row(epoch))
        if full and epoch.epoch in (2, 100):
            rows.append(to_row(made.facts))
            event = Event(
                what="skip", text="step left out: <b>", epoch=epoch.epoch, step=9, time=0.0, facts={"x": 1}
            )
            rows.append(to_row(event))
    parts = Breakdown(
        weights=2**20, gradients=2**20, state=2**21, average=0, images=2**23, activations=6 * GIB,
        validation=GIB, other=GIB, peak=9 * GIB,
    )  # fmt: skip
    rows += [to_row(parts)] if full else []
    (folder / NAME).write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "epo')
    return folder


class Check(html.parser.HTMLParser):
    """Elements that are not closed in order, and addresses that leave the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith(("data:", "#")):
                self.faults.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")


def checked(page: bytes) -> str:
    """The page as text; it is sound HTML and names no other file or address."""
    check = Check()
    check.feed(page.decode())
    assert check.faults == []
    assert check.open == []
    assert len(check.ids) == len(set(check.ids))
    assert b"<script" not in page
    assert not re.search(rb"@import|url\((?!#|data:)", page)
    return page.decode()


@pytest.mark.parametrize("length", [1, 3, 300])
def test_pictures_of_health_are_drawn_for_runs_of_any_length(tmp_path: Path, length: int) -> None:
    run = read_run(write_health(tmp_path, length))
    for path in (plot_rates(run), plot_memory(run), plot_gradients(run), plot_speed(run)):
        image = cv2.imread(str(path))
        assert image is not None
        assert image.std() > 1
        edges = (image[:3], image[-3:], image[:, :3], image[:, -3:])
        assert min(edge.min() for edge in edges) == 255, f"{path.name}: something is cut off"


def test_records_become_one_value_per_epoch_with_gaps_where_nothing_is_known(tmp_path: Path) -> None:
    run = read_run(write_health(tmp_path, 120))
    norms = run.series(lambda epoch: epoch.norm)
    assert run.epochs.tolist() == list(range(1, 121))
    assert np.flatnonzero(np.isnan(norms)).tolist() == sorted({*range(4, 120, 7), 48, 98})
    assert run.starts == (2, 100)
    assert run.end == ""
    assert not run.finished


def test_a_chart_in_a_page_takes_its_colours_from_the_page(tmp_path: Path) -> None:
    run = read_run(write_health(tmp_path, 5))
    text = inline(gradient_panels(run)[0], number=3)
    assert text.startswith('<svg role="img" aria-label="Norm of all gradients"')
    assert "var(--ink)" in text
    assert "var(--red)" in text
    assert "#000000" not in text
    assert "#ffffff" not in text
    assert set(re.findall(r'id="(..)', text)) == {"c3"}
    assert "<style" not in text


@pytest.mark.parametrize(
    "files", [(), (NAME,), ("results.csv",), (NAME, "args.yaml", "quarantine.csv", "data.json")]
)
def test_a_page_of_an_incomplete_folder_says_what_is_missing(tmp_path: Path, files: tuple[str, ...]) -> None:
    contents = {
        "results.csv": "epoch,time,train/box_loss,metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0\n1,2,3,,,0.1\n",
        "args.yaml": "epochs: 3\nclip_norm: 10.0\nname: <i>\n",
        "quarantine.csv": "file,reason,step\n<bad>.jpg,loss is not finite,7\n",
        "data.json": "{cut",
    }
    for name in files:
        (tmp_path / name).write_text(contents[name]) if name in contents else write_health(tmp_path, 3)
    text = checked(run_page(read_run(tmp_path)))
    assert "Under way, or ended without a word" in text
    assert "Not in this folder: results.json. It comes with the validation at the end of a run." in text
    assert ("Not in this folder: manifest.json." in text) == ("manifest.json" not in files)
    assert ("Not in this folder: args.yaml." in text) == ("args.yaml" not in files)
    if "quarantine.csv" in files:
        assert "&lt;bad&gt;.jpg" in text
        assert "step left out: &lt;b&gt;" in text
        assert "Started again after epochs 2." in text


def test_a_page_stays_under_its_size_whatever_the_pictures_weigh(tmp_path: Path) -> None:
    for name in ("PR_curve.png", "F1_curve.png", "confusion_matrix.png"):
        (tmp_path / name).write_bytes(b"x" * (MOST * 3 // 7))
    page = run_page(read_run(tmp_path))
    assert MOST // 2 < len(page) < MOST + 200_000
    assert "Too large for this page: F1_curve.png." in page.decode()


def test_a_disk_that_refuses_is_told_and_ends_nothing(tmp_path: Path) -> None:
    write_health(tmp_path, 2)
    for name in ("mem_usage.png", "report.html"):
        (tmp_path / name).mkdir()  # as good as a full disk: nothing can be put there
    said: list[str] = []
    assert finish(tmp_path, said.append) is None
    assert [line.split(" could")[0] for line in said] == ["mem_usage.png", "report.html"]
    assert (tmp_path / "throughput.png").is_file()


def test_the_verb_draws_a_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_health(tmp_path, 2)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"report: {tmp_path / 'report.html'}\n"
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {
        NAME, "report.html", "lr_heatmap.png", "mem_usage.png", "grad_health.png", "throughput.png",
    }  # fmt: skip
    assert cli.main(["report", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
    if found is None:
        pytest.skip("there is no Chromium here, so the page is not opened in a browser")
    return found


@pytest.mark.parametrize("width", [1280, 400])
def test_a_browser_shows_the_page_without_a_complaint(tmp_path: Path, width: int) -> None:
    program = chromium()
    write_health(tmp_path, 3)
    page = finish(tmp_path, pytest.fail)
    assert page is not None
    shot = tmp_path / "shot.png"
    command = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width},2000", f"--screenshot={shot}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert "CONSOLE" not in done.stderr
    image = cv2.imread(str(shot))
    assert image is not None
    assert image.shape[1] == width
    assert image.std() > 5
    assert image[:, -8:].std() == 0, "something reaches over the right edge"

