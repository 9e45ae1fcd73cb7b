"""Images that go bad after the index was built: the run ends as planned and says what happened."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from holdfast.data.shapes import write_demo
from holdfast.report import run as reporter
from holdfast.settings import TrainSettings
from holdfast.train.session import fit
from holdfast.val.run import Evaluator


def test_a_run_goes_on_without_the_images_that_went_bad(tmp_path: Path) -> None:
    data = write_demo(tmp_path / "shapes", images=24)
    train, val = (sorted((data.parent / "images" / split).iterdir()) for split in ("train", "val"))
    said: list[str] = []

    def plant(folder: Path) -> None:
        train[0].unlink()
        Image.fromarray(np.full((160, 160), np.nan, np.float32)).save(train[1], format="TIFF")
        train[2].unlink()
        os.mkfifo(train[2])  # hangs, as a dead network drive does
        val[0].unlink()

    settings = TrainSettings(
        model="gelan-t",
        data=data,
        imgsz=64,
        batch=4,
        epochs=2,
        workers=2,
        device="cpu",
        project=tmp_path / "runs",
        plots=False,
        micro_batch=64,
        ckpt="off",
        read_timeout=1,
    )
    try:
        result = fit(
            settings, make_evaluator=Evaluator, reporter=reporter, say=said.append, made=plant
        )
    finally:
        os.close(os.open(train[2], os.O_RDWR | os.O_NONBLOCK))  # ends the read
    assert result.progress.epoch == 2
    reasons = ("no such image file", "32-bit floats", "did not end in 1 s")
    for path, reason in zip(train, reasons, strict=False):
        lines = [line for line in said if str(path) in line]
        assert len(lines) == 1
        assert reason in lines[0]
        assert lines[0].endswith("other images take its place")
    assert sum(str(val[0]) in line for line in said) == 1
    unread = f"1 of {len(val)} images could not be read and count as images on which nothing was found"
    assert said.count(f"validation: {unread}") == 3  # two epochs, and the best weights
    assert "3 training images could not be read while the run was under way; others took their place" in said
    summary = json.loads((result.folder / "results.json").read_text())
    assert summary["images"] == len(val)  # the number is about all of them
    assert summary["images_unread"] == 1
    with (result.folder / "quarantine.csv").open(newline="", encoding="utf-8") as file:
        named = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert set(named) == {str(path) for path in train[:3]}
    assert all(reason in named[str(path)] for path, reason in zip(train, reasons, strict=False))
