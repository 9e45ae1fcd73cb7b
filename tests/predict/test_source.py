"""Every kind of source gives upright RGB pictures, lazily, and names what cannot be read."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from holdfast.errors import DataError
from holdfast.predict.source import Frame, Source, Unreadable

RED_BGR = np.full((8, 12, 3), (0, 0, 255), np.uint8)
RED_RGB = RED_BGR[:, :, ::-1]


def write_png(path: Path, bgr: np.ndarray = RED_BGR) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", bgr)[1].tobytes())
    return path


def write_video(path: Path, frames: int = 10) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
    writer.release()
    return path


def frames_of(source: object, **options: int) -> list[Frame]:
    items = list(Source(source, **options))  # type: ignore[arg-type]
    assert all(isinstance(item, Frame) for item in items), items
    return items  # type: ignore[return-value]


def test_a_folder_gives_its_own_media_sorted_and_leaves_subfolders_and_other_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "C.PNG", "deep/d.png"):
        write_png(tmp_path / name)
    (tmp_path / "notes.md").write_text("no picture")
    assert [Path(f.path).name for f in frames_of(tmp_path)] == ["C.PNG", "a.png", "b.png"]


def test_a_pattern_with_two_stars_searches_subfolders(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    write_png(tmp_path / "x" / "y" / "b.png")
    assert [Path(f.path).name for f in frames_of(str(tmp_path / "**" / "*.png"))] == ["a.png", "b.png"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    assert len(frames_of(write_png(tmp_path / "shot [1].png"))) == 1


def test_paths_with_spaces_and_foreign_letters_work(tmp_path: Path) -> None:
    path = write_png(tmp_path / "Füße und 写真" / "Größe ñ.png")
    assert frames_of(path)[0].path == str(path)
    assert frames_of(path.parent)[0].path == str(path)


def test_a_list_file_is_relative_to_itself_and_skips_comments(tmp_path: Path) -> None:
    write_png(tmp_path / "sub" / "a b.png")
    (tmp_path / "list.txt").write_text("# pictures\nsub/a b.png\n\nsub/gone.png\n", encoding="utf-8")
    first, second = Source(tmp_path / "list.txt")
    assert isinstance(first, Frame)
    assert isinstance(second, Unreadable)
    assert "no such" in second.reason
    assert str(tmp_path) not in second.reason


@pytest.mark.parametrize(
    "red",
    [
        pytest.param(RED_BGR, id="array BGR"),
        pytest.param(np.dstack((RED_BGR, np.full((8, 12), 255, np.uint8))), id="array BGRA"),
        pytest.param(Image.fromarray(RED_RGB.copy()), id="PIL"),
        pytest.param(Image.fromarray(RED_RGB.copy()).convert("P"), id="PIL palette"),
        pytest.param(cv2.imencode(".png", RED_BGR)[1].tobytes(), id="bytes"),
        pytest.param(io.BytesIO(cv2.imencode(".png", RED_BGR)[1].tobytes()), id="BytesIO"),
        pytest.param(torch.from_numpy(RED_RGB.copy()).permute(2, 0, 1), id="tensor uint8"),
        pytest.param(torch.from_numpy(RED_RGB.copy()).permute(2, 0, 1) / 255, id="tensor float"),
    ],
)
def test_every_kind_of_picture_in_memory_arrives_as_red_in_rgb(red: object) -> None:
    (frame,) = frames_of(red)
    assert frame.image.dtype == np.uint8
    np.testing.assert_array_equal(frame.image, RED_RGB)
    assert frame.path == "image0.jpg"


def test_gray_arrays_and_stacks_of_arrays_work() -> None:
    gray = np.full((8, 12), 7, np.uint8)
    assert [f.image.shape for f in frames_of([gray, np.stack([RED_BGR, RED_BGR])])] == [(8, 12, 3)] * 3
    assert [f.path for f in frames_of([gray, RED_BGR])] == ["image0.jpg", "image1.jpg"]


def test_lists_mix_kinds_and_number_their_items(tmp_path: Path) -> None:
    items = frames_of([write_png(tmp_path / "a.png"), RED_BGR, str(tmp_path)])
    assert [item.number for item in items] == [0, 1, 2]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((3, 8, 8), np.uint8), "8 channels"),
        (torch.full((3, 8, 8), 2.0), "divide by 255"),
        (torch.zeros(8, 8), "not a picture"),
        (3.5, "float"),
        ([], "empty"),
    ],
)
def test_objects_that_are_no_pictures_are_refused_with_what_is_expected(bad: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(Source(bad))  # type: ignore[arg-type]


def test_a_missing_path_fails_at_once_and_names_the_nearest_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        Source(tmp_path / "gone" / "x.jpg")
    assert str(tmp_path.resolve()) in caught.value.hint


def test_an_empty_folder_fails_at_once_and_a_pattern_for_its_subfolders_is_offered(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image or video"):
        Source(tmp_path)
    write_png(tmp_path / "train" / "a.png")
    with pytest.raises(DataError) as caught:
        Source(tmp_path)
    assert "**" in caught.value.hint


def test_a_pattern_without_matches_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image or video matches"):
        Source(str(tmp_path / "*.jpg"))


def test_unreadable_files_come_out_in_place_and_the_rest_is_read(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("this is text")
    (tmp_path / "c.jpg").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    (tmp_path / "d.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "e.mp4").write_bytes(b"not a video")
    write_png(tmp_path / "f.png")
    items = list(Source(tmp_path))
    assert [type(item) for item in items] == [Frame, Unreadable, Unreadable, Unreadable, Unreadable, Frame]
    for item in items:
        if isinstance(item, Unreadable):
            assert "\n" not in item.reason
            assert item.path not in item.reason


def test_exif_rotation_cmyk_and_sixteen_bits_are_undone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(RED_RGB.copy()).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(RED_RGB.copy()).convert("CMYK").save(tmp_path / "b.jpg")
    cv2.imwrite(str(tmp_path / "c.png"), RED_BGR.astype(np.uint16) * 257)
    turned, cmyk, deep = frames_of(tmp_path)
    assert turned.image.shape == (12, 8, 3)
    assert cmyk.image.shape == deep.image.shape == (8, 12, 3)
    assert np.abs(cmyk.image.astype(int) - RED_RGB).max() < 12
    np.testing.assert_array_equal(deep.image, RED_RGB)


def test_a_video_gives_every_nth_frame_and_its_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    assert len(frames_of(path)) == 10
    frames = frames_of(path, vid_stride=4)
    assert [f.video.at for f in frames if f.video] == [0, 4, 8]
    assert [round(float(f.image.mean()) / 20) for f in frames] == [0, 4, 8]
    assert frames[0].video is not None
    assert frames[0].video.frames == 10
    assert frames[0].video.fps == pytest.approx(25 / 4)


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    for name in "abc":
        write_png(tmp_path / f"{name}.png")
    items = iter(Source(tmp_path))
    next(items)
    (tmp_path / "b.png").unlink()
    assert isinstance(next(items), Unreadable)
