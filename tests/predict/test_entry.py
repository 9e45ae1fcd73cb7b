"""A prediction run: one line per file, the files it writes, and the count of what could not be read."""

from __future__ import annotations

import functools
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from holdfast.errors import DataError, SettingsError
from holdfast.predict.entry import predict_settings
from holdfast.settings import PredictSettings

RED = np.zeros((64, 64, 3), np.uint8)
RED[16:32, 16:32] = (0, 0, 255)


def settings(tmp_path: Path, **keys: Any) -> PredictSettings:
    return PredictSettings(**{"imgsz": 64, "device": "cpu", "project": str(tmp_path / "runs"), **keys})


def write(path: Path, image: np.ndarray = RED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_folder_with_everything_that_can_be_wrong(detector: Any, tmp_path: Path) -> None:
    folder = tmp_path / "Füße und 写真"
    write(folder / "good one.png")
    (folder / "text.jpg").write_text("hello")
    (folder / "zero.jpg").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:16, :16] = 255, 0, 0  # RGB: red in the upper left corner
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying down; upright the corner is at the upper right
    Image.fromarray(wide).save(folder / "turned.jpg", exif=exif, quality=95)
    Image.fromarray(RED[:, :, ::-1].copy()).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    write(folder / "deep.png", RED.astype(np.uint16) * 257)

    lines: list[str] = []
    results = predict_settings(
        settings(tmp_path, save_txt=True, save_conf=True), model=detector, source=folder, say=lines.append
    )

    assert [Path(r.path).name for r in results] == ["cmyk.jpg", "deep.png", "good one.png", "turned.jpg"]
    assert all(len(r) for r in results)
    turned = results[-1]
    assert turned.orig_shape == (64, 32)
    assert turned.boxes.xyxy[:, 0].min() >= 14
    assert turned.boxes.xyxy[:, 3].max() <= 18
    for bad in ("text.jpg", "zero.jpg", "cut.jpg"):
        assert sum(bad in line and "not read" in line for line in lines) == 1
    assert any("4 pictures" in line and "3 not readable" in line for line in lines)
    assert all("\n" not in line for line in lines)
    run = tmp_path / "runs" / "predict"
    assert any(str(run) in line for line in lines)
    pictures = ["cmyk.jpg", "deep.png", "good one.png", "turned.jpg"]
    labels = [f"labels/{Path(p).stem}.txt" for p in pictures]
    assert names(run) == sorted([*pictures, *labels])
    rows = (run / "labels" / "good one.txt").read_text().splitlines()
    assert len(rows) == len(results[2])
    assert all(len(row.split()) == 6 for row in rows)
    assert results[0].save_dir == str(run)


def test_runs_are_numbered_and_exist_ok_writes_over(detector: Any, tmp_path: Path) -> None:
    for keys in ({}, {}, {"exist_ok": True}):
        predict_settings(settings(tmp_path, verbose=False, save_txt=True, **keys), model=detector, source=RED)
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["predict", "predict2"]
    rows = (tmp_path / "runs" / "predict" / "labels" / "image0.txt").read_text().splitlines()
    assert len(rows) == 4  # not appended to the first run's


def test_nothing_is_written_and_nothing_is_said_unless_asked_for(
    detector: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = settings(tmp_path, save=False, verbose=False)
    assert len(predict_settings(quiet, model=detector, source=[RED, RED])) == 2
    assert not (tmp_path / "runs").exists()
    assert capsys.readouterr().out == ""


def test_unreadable_files_are_named_even_by_a_quiet_run(detector: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    quiet = settings(tmp_path, save=False, verbose=False)
    assert (
        predict_settings(quiet, model=detector, source=[b"junk", RED], say=lines.append)[0].path
        == "image1.jpg"
    )
    assert len(lines) == 3
    assert "1 not readable" in lines[1]


def test_files_of_one_stem_do_not_overwrite_each_other(detector: Any, tmp_path: Path) -> None:
    sources = [
        write(tmp_path / "a" / "x.png"),
        write(tmp_path / "b" / "x.png"),
        write(tmp_path / "b" / "X.jpg"),
    ]
    predict_settings(settings(tmp_path, save_txt=True, verbose=False), model=detector, source=sources)
    assert names(tmp_path / "runs" / "predict") == sorted(
        ["x.png", "x_2.png", "X_3.jpg", "labels/x.txt", "labels/x_2.txt", "labels/X_3.txt"]
    )


def test_a_picture_at_an_address_is_a_picture(detector: Any, tmp_path: Path) -> None:
    write(tmp_path / "site" / "bus.png")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        sources = [f"{address}/bus.png?raw=1", f"{address}/gone.jpg"]
        lines: list[str] = []
        results = predict_settings(
            settings(tmp_path, save=True), model=detector, source=sources, say=lines.append
        )
        server.shutdown()

    assert [r.path for r in results] == sources[:1]
    np.testing.assert_array_equal(results[0].orig_img, RED)
    assert names(tmp_path / "runs" / "predict") == ["bus.jpg"]
    assert f"1/2 {sources[0]}: 64x64" in "\n".join(lines)
    assert f"2/2 {sources[1]}: not read: cannot be fetched (" in "\n".join(lines)


def test_crops_and_formats_that_cannot_be_written_become_jpeg(detector: Any, tmp_path: Path) -> None:
    Image.fromarray(RED[:, :, ::-1].copy()).save(tmp_path / "old.ppm")
    predict_settings(
        settings(tmp_path, save_crop=True, verbose=False), model=detector, source=tmp_path / "old.ppm"
    )
    files = names(tmp_path / "runs" / "predict")
    assert "old.jpg" in files
    assert sum(name.startswith("crops/red/old") for name in files) == 4


def test_a_video_becomes_one_annotated_video_and_labels_by_frame(detector: Any, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for _ in range(6):
        writer.write(RED)
    writer.release()
    lines: list[str] = []
    stream = predict_settings(
        settings(tmp_path, save_txt=True, vid_stride=2),
        model=detector,
        source=[str(tmp_path / "clip.avi"), RED],
        stream=True,
        say=lines.append,
    )
    assert not isinstance(stream, list)
    assert len(list(stream)) == 4
    run = tmp_path / "runs" / "predict"
    assert names(run) == [
        *("clip.mp4", "image0.jpg"),
        *("labels/clip_0.txt", "labels/clip_2.txt", "labels/clip_4.txt", "labels/image0.txt"),
    ]
    video = cv2.VideoCapture(str(run / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(5)
    assert any("frame 3/6" in line for line in lines)


def test_leaving_a_stream_early_ends_its_thread_and_closes_its_video(detector: Any, tmp_path: Path) -> None:
    stream = predict_settings(
        settings(tmp_path), model=detector, source=[RED] * 50, stream=True, say=lambda line: None
    )
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    import threading

    assert not any(thread.name == "holdfast-prefetch" for thread in threading.enumerate())


def test_no_source_and_missing_sources_are_said_before_anything_is_made(
    detector: Any, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="needs a source"):
        predict_settings(settings(tmp_path), model=detector)
    for stream in (False, True):
        with pytest.raises(DataError, match="no such image"):
            predict_settings(settings(tmp_path, source="gone.jpg"), model=detector, stream=stream)  # type: ignore[call-overload]
    assert not os.path.exists(tmp_path / "runs")
