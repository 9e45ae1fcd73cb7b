"""Hashes stay when a picture is encoded, resized or brightened, differ between pictures, and are found."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from holdfast.data.image import read_image
from holdfast.data.phash import distance, near_pairs, perceptual_hash, small_gray


def hashed(image: np.ndarray) -> np.ndarray:
    return np.array([perceptual_hash(small_gray(image))], dtype=np.uint64)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


def test_hash_of_a_photo_survives_what_leaves_it_the_same_photo(data_dir: Path) -> None:
    for path in sorted((data_dir / "coco_tiny" / "images" / "train").iterdir())[:10]:
        image = read_image(path)
        height, width = image.shape[:2]
        half = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        noise = np.random.default_rng(0).normal(0, 8, image.shape)
        noisy = (image + noise).clip(0, 255).astype(np.uint8)
        for changed in (jpeg(image, 30), half, noisy):
            assert distance(hashed(image), hashed(changed))[0] <= 4


def test_hashes_of_different_photos_differ_in_many_bits(data_dir: Path) -> None:
    files = sorted((data_dir / "coco_tiny" / "images").rglob("*.jpg"))
    hashes = np.concatenate([hashed(read_image(path)) for path in files])
    first, second = np.triu_indices(len(hashes), 1)
    assert distance(hashes[first], hashes[second]).min() >= 12


def test_hash_does_not_depend_on_brightness() -> None:
    image = np.random.default_rng(1).integers(0, 100, (40, 60, 3), dtype=np.uint8)
    assert distance(hashed(image), hashed(image + np.uint8(90)))[0] <= 2


@pytest.mark.parametrize("limit", [0, 3, 7])
def test_search_finds_what_comparing_each_with_each_finds(limit: int) -> None:
    rng = np.random.default_rng(limit)
    seeds = rng.integers(0, 2**64, 40, dtype=np.uint64)
    hashes = np.repeat(seeds, 10)
    for i in range(len(hashes)):
        for bit in rng.integers(0, 64, rng.integers(0, 7)):
            hashes[i] ^= np.uint64(1) << np.uint64(bit)
    first, second = np.triu_indices(len(hashes), 1)
    bits = distance(hashes[first], hashes[second])
    wanted = {(i, j): b for i, j, b in zip(first, second, bits, strict=True) if b <= limit}
    pairs, found = near_pairs(hashes, limit)
    assert {(i, j): b for (i, j), b in zip(pairs.tolist(), found, strict=True)} == wanted
    assert len(wanted) > 20


@pytest.mark.parametrize("count", [0, 1])
def test_search_of_nothing_finds_nothing(count: int) -> None:
    pairs, bits = near_pairs(np.zeros(count, np.uint64), 6)
    assert pairs.shape == (0, 2)
    assert len(bits) == 0


@pytest.mark.slow
def test_search_among_200_000_takes_seconds() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 200_000, dtype=np.uint64)
    hashes[150_000] = hashes[3] ^ np.uint64(0b1011)
    pairs, _ = near_pairs(hashes, 6)
    assert [3, 150_000] in pairs.tolist()
