from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.features
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


def deep(suffix: str, picture: PIL.Image.Image, alpha: bool = False) -> bytes:
    """16 bits per channel, which Pillow cannot write."""
    colour = np.asarray(picture)[:, :, ::-1]
    if alpha:
        colour = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
    done, data = cv2.imencode(suffix, colour.astype(np.uint16) * 257)
    assert done
    return data.tobytes()


def bmp(picture: PIL.Image.Image, bits: int) -> bytes:
    """A bitmap with its first row on top, of 24 bits or of 16 (5 red, 6 green, 5 blue)."""
    colour = np.asarray(picture)
    rows, masks, method = np.ascontiguousarray(colour[:, :, ::-1]).tobytes(), b"", 0
    if bits == 16:
        red, green, blue = (colour[:, :, channel].astype("<u2") for channel in range(3))
        rows = ((red >> 3) << 11 | (green >> 2) << 5 | blue >> 3).tobytes()
        masks, method = struct.pack("<III", 0xF800, 0x07E0, 0x001F), 3
    start = 54 + len(masks)
    head = b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start)
    size = picture.width, -picture.height
    info = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, method, len(rows), 0, 0, 0, 0)
    return head + info + masks + rows


def pages(picture: PIL.Image.Image, kind: str, **options: object) -> bytes:
    """An animation, or a file of several pages, whose second picture is upside down."""
    return encode(picture, kind, save_all=True, append_images=[picture.rotate(180)], **options)


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
    "16-bit png": (lambda p: deep(".png", p), 0),
    "16-bit png with alpha": (lambda p: deep(".png", p, alpha=True), 0),
    "palette png": (lambda p: encode(palette(p), "PNG"), 12),
    "palette png with a clear colour": (
        lambda p: encode(p.quantize(255, dither=PIL.Image.Dither.NONE), "PNG", transparency=255),
        12,
    ),
    "palette png with alpha": (lambda p: encode(palette(p), "PNG", transparency=bytes([255] * 256)), 12),
    "png with a clear colour": (lambda p: encode(p, "PNG", transparency=(1, 2, 3)), 0),
    "jpeg in red green blue": (lambda p: encode(p, "JPEG", quality=95, keep_rgb=True), 3),
    "jpeg with restarts": (lambda p: encode(p, "JPEG", quality=95, restart_marker_blocks=3), 3),
    "two jpegs in one (mpo)": (lambda p: pages(p, "MPO", quality=95), 3),
    "gif": (lambda p: encode(palette(p), "GIF"), 12),
    "animated gif": (lambda p: pages(palette(p), "GIF"), 12),
    "bmp": (lambda p: encode(p, "BMP"), 0),
    "bmp with alpha": (lambda p: encode(p.convert("RGBA"), "BMP"), 0),
    "bmp from the top": (lambda p: bmp(p, 24), 0),
    "16-bit bmp": (lambda p: bmp(p, 16), 5),
    "tiff": (lambda p: encode(p, "TIFF"), 0),
    "16-bit tiff": (lambda p: deep(".tif", p), 0),
    "16-bit tiff with alpha": (lambda p: deep(".tif", p, alpha=True), 0),
    "cmyk tiff": (lambda p: encode(p.convert("CMYK"), "TIFF"), 0),
    "jpeg in tiff": (lambda p: encode(p, "TIFF", compression="jpeg"), 4),
    "palette tiff": (lambda p: encode(palette(p), "TIFF"), 12),
    "tiff of two pages": (lambda p: pages(p, "TIFF"), 0),
    "lzw tiff": (lambda p: encode(p, "TIFF", compression="tiff_lzw"), 0),
    "webp": (lambda p: encode(p, "WEBP", quality=95), 6),
    "lossless webp": (lambda p: encode(p, "WEBP", lossless=True), 0),
    "animated webp": (lambda p: pages(p, "WEBP", lossless=True), 0),
    "animated png": (lambda p: pages(p, "PNG"), 0),
    "ppm": (lambda p: encode(p, "PPM"), 0),
    "16-bit ppm": (
        lambda p: b"P6 %d %d 65535 " % p.size + (np.asarray(p).astype(">u2") * 257).astype(">u2").tobytes(),
        0,
    ),
    "jpeg 2000": (lambda p: encode(p, "JPEG2000"), 0),
    "avif": (lambda p: encode(p, "AVIF", quality=95), 6),
    "avif with alpha": (lambda p: encode(p.convert("RGBA"), "AVIF", quality=95), 6),
    "animated avif": (lambda p: pages(p, "AVIF", quality=95), 6),
}
FEATURES = {"avif": "avif", "jpeg 2000": "jpg_2000"}


def needs(name: str) -> None:
    """Skips where this Pillow lacks a format."""
    for word, feature in FEATURES.items():
        if word in name.lower() and not PIL.features.check(feature):
            pytest.skip(f"this Pillow has no {word}")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_photo_is_the_same_in_every_encoding(photo: np.ndarray, encoding: str, tmp_path: Path) -> None:
    needs(encoding)
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
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_images_stand_upright(photo: np.ndarray, orientation: int, kind: str, tmp_path: Path) -> None:
    needs(kind)
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


CUT = [
    "progressive jpeg", "cmyk jpeg", "palette png with alpha", "gif", "bmp", "16-bit bmp", "tiff", "lzw tiff",
    "16-bit tiff", "cmyk tiff", "jpeg in tiff", "lossless webp", "ppm", "jpeg 2000", "avif",
]  # fmt: skip


@pytest.mark.parametrize("part", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("encoding", CUT)
def test_cut_files_are_never_half_an_image(
    photo: np.ndarray, encoding: str, part: float, tmp_path: Path
) -> None:
    needs(encoding)
    data = ENCODINGS[encoding][0](PIL.Image.fromarray(photo))
    path = tmp_path / "photo.jpg"
    path.write_bytes(data[: int(len(data) * part)])
    for divisor in (1, 4):
        with pytest.raises(DataError, match="cut short|damaged"):
            read_reduced(path, divisor)


def _gif_of_size(width: int, height: int) -> bytes:
    screen = struct.pack("<HHBBB", 10, 10, 0x80, 0, 0) + bytes(3) + b"\xff" * 3  # says less than its frame
    return b"GIF89a" + screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02D\x01\0;"


def _bmp_of_size(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info + bytes(100)


def _tiff_of_size(width: int, height: int) -> bytes:
    """16 bits per channel, compressed: nothing in its length gives it away."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, 16), (259, 3, 5), (262, 3, 1), (273, 4, 8),
               (277, 3, 1), (278, 4, height), (279, 4, 100)]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 108) + bytes(100) + struct.pack("<H", len(entries)) + table + bytes(4)


def _jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encode(PIL.Image.new("RGB", (16, 16)), "JPEG"))
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


_EXIF = b"\0\0\0\x06eXIfII*\0\0\0" + struct.pack(">I", zlib.crc32(b"eXIfII*\0\0\0"))
BOMBS: dict[str, Callable[[int, int], bytes]] = {
    "png": _png_of_size,
    "png with exif": lambda w, h: _png_of_size(w, h)[:33] + _EXIF + _png_of_size(w, h)[33:],
    "jpeg": _jpeg_of_size,
    "gif": _gif_of_size,
    "bmp": _bmp_of_size,
    "tiff": _tiff_of_size,
    "ppm": lambda w, h: b"P6 %d %d 255 " % (w, h) + bytes(100),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_of_every_format_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(BOMBS[kind](30000, 30000))
    for read in (read_image, read_size):
        with pytest.raises(DataError, match=r"more than the limit of 178,956,970\. Cut the image"):
            read(path)


def test_large_images_below_the_limit_are_no_cause_for_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(_gif_of_size(10_000, 10_000))
    assert read_size(path) == (10_000, 10_000)


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
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "AVIF"])
def test_odd_shapes(size: tuple[int, int], kind: str, tmp_path: Path) -> None:
    needs(kind)
    if kind == "WEBP" and max(size) > 16383:
        pytest.skip("WebP ends at 16,383 pixels")
    path = tmp_path / "a.jpg"
    path.write_bytes(encode(PIL.Image.new("RGB", (size[1], size[0]), (10, 200, 30)), kind))
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
