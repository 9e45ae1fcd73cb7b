from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from holdfast.data.image import FILL, MAX_PIXELS, read_image, read_reduced, read_size
from holdfast.data.image_header import parse_header
from holdfast.errors import DataError


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A smooth picture without any symmetry, 90 x 120."""
    y, x = np.mgrid[0:90, 0:120]
    return np.stack([x * 2, y * 2.5, 255 - x - y], axis=2).clip(0, 255).astype(np.uint8)


def encode(picture: PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(colour: np.ndarray) -> bytes:
    done, data = cv2.imencode(".png", colour[:, :, ::-1].astype(np.uint16) * 257)
    assert done
    return data.tobytes()


def palette(picture: PIL.Image.Image) -> PIL.Image.Image:
    return picture.quantize(256, dither=PIL.Image.Dither.NONE)


Encoder = Callable[[PIL.Image.Image], bytes]
ENCODINGS: dict[str, tuple[Encoder, float]] = {
    "jpeg": (lambda p: encode(p, "JPEG", quality=95), 3),
    "progressive jpeg": (lambda p: encode(p, "JPEG", quality=95, progressive=True), 3),
    "jpeg with 4:2:0 chroma": (lambda p: encode(p, "JPEG", quality=95, subsampling=2), 4),
    "cmyk jpeg": (lambda p: encode(p.convert("CMYK"), "JPEG", quality=95), 4),
    "png": (lambda p: encode(p, "PNG"), 0),
    "png with alpha": (lambda p: encode(p.convert("RGBA"), "PNG"), 0),
    "16-bit png": (lambda p: png16(np.asarray(p)), 0),
    "palette png": (lambda p: encode(palette(p), "PNG"), 12),
    "gif": (lambda p: encode(palette(p), "GIF"), 12),
    "bmp": (lambda p: encode(p, "BMP"), 0),
    "tiff": (lambda p: encode(p, "TIFF"), 0),
    "lzw tiff": (lambda p: encode(p, "TIFF", compression="tiff_lzw"), 0),
    "webp": (lambda p: encode(p, "WEBP", quality=95), 6),
    "lossless webp": (lambda p: encode(p, "WEBP", lossless=True), 0),
    "animated webp": (
        lambda p: encode(p, "WEBP", lossless=True, save_all=True, append_images=[p.rotate(180)]),
        0,
    ),
    "animated png": (lambda p: encode(p, "PNG", save_all=True, append_images=[p.rotate(180)]), 0),
    "ppm": (lambda p: encode(p, "PPM"), 0),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_photo_is_the_same_in_every_encoding(photo: np.ndarray, encoding: str, tmp_path: Path) -> None:
    encoder, tolerance = ENCODINGS[encoding]
    path = tmp_path / "photo.jpg"  # the suffix says nothing
    path.write_bytes(encoder(PIL.Image.fromarray(photo)))
    image = read_image(path)
    assert image.shape == photo.shape
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - photo).mean() <= tolerance / 2
    assert read_size(path) == (90, 120)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_stand_upright(photo: np.ndarray, orientation: int, kind: str, tmp_path: Path) -> None:
    undo = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1]}
    undo |= {5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a)}
    undo |= {7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1)}
    stored = PIL.Image.fromarray(np.ascontiguousarray(undo[orientation](photo)))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.img"
    path.write_bytes(encode(stored, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {})))
    assert read_size(path) == (90, 120)
    image = read_image(path)
    assert image.shape == photo.shape
    assert np.abs(image.astype(int) - photo).mean() < 4
    small, scale_x, scale_y = read_reduced(path, 2)
    assert small.shape == (45, 60, 3)
    assert (scale_x, scale_y) == (0.5, 0.5)
    assert np.abs(cv2.resize(small, (120, 90)).astype(int) - photo).mean() < 5


def test_gray_of_any_depth_becomes_three_equal_channels(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 256, dtype=np.uint8), (20, 1))
    files = {
        "8.png": encode(PIL.Image.fromarray(ramp), "PNG"),
        "8.jpg": encode(PIL.Image.fromarray(ramp), "JPEG", quality=100),
        "la.png": encode(PIL.Image.fromarray(ramp).convert("LA"), "PNG"),
        "16.png": encode(PIL.Image.fromarray(ramp.astype(np.uint16) * 257), "PNG"),
        "16.tif": encode(PIL.Image.fromarray(ramp.astype(np.uint16) * 257), "TIFF"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        image = read_image(tmp_path / name)
        assert image.shape == (20, 256, 3), name
        assert np.abs(image.astype(int) - ramp[:, :, None]).max() <= 2, name


def test_one_bit_images_are_black_and_white(tmp_path: Path) -> None:
    dots = np.zeros((16, 16), dtype=bool)
    dots[4:8, 2:12] = True
    (tmp_path / "a.png").write_bytes(encode(PIL.Image.fromarray(dots), "PNG"))
    assert (read_image(tmp_path / "a.png")[:, :, 0] == dots * 255).all()


def test_transparent_pixels_show_the_gray_of_the_letterbox(tmp_path: Path) -> None:
    colour = np.zeros((10, 10, 4), dtype=np.uint8)
    colour[:, :5] = (200, 10, 10, 255)
    colour[:, 5:] = (200, 10, 10, 0)
    path = tmp_path / "a.png"
    path.write_bytes(encode(PIL.Image.fromarray(colour), "PNG"))
    image = read_image(path)
    assert (image[:, :5] == (200, 10, 10)).all()
    assert (image[:, 5:] == FILL).all()


def test_names_of_any_bytes(photo: np.ndarray, tmp_path: Path) -> None:
    data = encode(PIL.Image.fromarray(photo), "PNG")
    for name in ["with space.png", "Größe 画像.png", os.fsdecode(b"latin1-\xe9.png"), "[1]*.png"]:
        path = tmp_path / name
        path.write_bytes(data)
        assert np.array_equal(read_image(path), photo)
        assert read_size(str(path)) == (90, 120)


def _png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def _faulty(photo: np.ndarray) -> dict[str, tuple[bytes, str]]:
    picture = PIL.Image.fromarray(np.tile(photo, (4, 4, 1)))
    jpeg, png = encode(picture, "JPEG"), encode(picture, "PNG")
    return {
        "empty": (b"", "empty"),
        "text": (b"hello, this is no image\n" * 50, "not an image"),
        "html": (b"<!DOCTYPE html><html>not found</html>", "not an image"),
        "jpeg cut in half": (jpeg[: len(jpeg) // 2], "cut short"),
        "jpeg without its last bytes": (jpeg[:-900], "cut short"),
        "png cut in half": (png[: len(png) // 2], "cut short"),
        "webp cut in half": (encode(picture, "WEBP")[:400], "cut short"),
        "only a jpeg signature": (b"\xff\xd8\xff\xe0", "cut short|not an image"),
        "zeros": (bytes(5000), "not an image"),
        "bomb": (_png_of_size(60000, 60000), "limit"),
        "float": (encode(PIL.Image.fromarray(np.ones((20, 20), np.float32)), "TIFF"), "float"),
    }


FAULTS = [
    *("empty", "text", "html", "jpeg cut in half", "jpeg without its last bytes", "png cut in half"),
    *("webp cut in half", "only a jpeg signature", "zeros", "bomb", "float"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_named_in_one_line(photo: np.ndarray, fault: str, tmp_path: Path) -> None:
    data, reason = _faulty(photo)[fault]
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if fault not in ("webp cut in half", "float"):  # those show only when decoded
        with pytest.raises(DataError, match=reason):
            read_size(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such image file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(DataError, match="cannot be opened"):
        read_image(tmp_path)


def test_bombs_are_refused_before_memory_is_taken() -> None:
    header = parse_header(_png_of_size(60000, 60000))
    assert header is not None
    assert header.height * header.width > MAX_PIXELS


def test_a_jpeg_with_bytes_behind_its_end_is_read(photo: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(PIL.Image.fromarray(photo), "JPEG", quality=95) + b"maker's note" * 20)
    assert read_image(path).shape == photo.shape
    assert read_size(path) == (90, 120)


@pytest.mark.parametrize("size", [(1, 1), (50, 20000), (20000, 50), (7, 13)])
def test_odd_shapes(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(PIL.Image.new("RGB", (size[1], size[0]), (10, 200, 30)), "JPEG"))
    assert read_image(path).shape == (*size, 3)
    assert read_size(path) == size
    for divisor in (2, 8, 32):
        small, scale_x, scale_y = read_reduced(path, divisor)
        assert abs(small.shape[0] - size[0] * scale_y) < 1
        assert abs(small.shape[1] - size[1] * scale_x) < 1
        assert np.abs(small.astype(int) - (10, 200, 30)).max() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_reduced_reading_averages(kind: str) -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    small, _, _ = read_reduced(encode(PIL.Image.fromarray(stripes), kind), 4)
    assert small.shape == (16, 16, 3)
    assert np.abs(small.astype(int) - 100).max() <= 6  # skipping pixels would give 0 or 200


def test_real_photos_have_the_size_their_header_says(data_dir: Path) -> None:
    for path in sorted((data_dir / "coco_tiny" / "images").rglob("*.jpg")):
        assert read_image(path).shape[:2] == read_size(path)
