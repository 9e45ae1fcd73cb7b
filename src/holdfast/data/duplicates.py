"""Pictures that are in a data set more than once: the same bytes, or nearly the same pixels.

Every image is opened once, at reduced size where its format allows. That also finds those whose header is
sound but whose pixels are not.

Dimensions: N images of all splits, one after the other; K pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from holdfast.data.image import read_reduced
from holdfast.data.phash import SIDE, near_pairs, perceptual_hash, small_gray
from holdfast.errors import DataError

Progress = Callable[[int, int], None]

NEAR_BITS = 6  # of 64; re-encoding and resizing change 0 to 2, cutting 2 % off the border some 6
_ALIKE = 0.95  # correlation of the small gray versions; other pictures stay below 0.8
_FLAT = 4.0  # standard deviation of gray levels below which a picture has nothing to compare
_REDUCED_SIDE = 2 * SIDE  # shorter side that is enough for the hash
_CHUNK = 64


@dataclass(frozen=True)
class Fingerprints:
    """What tells images apart.

    Attributes:
        digests: (N, 16) uint8, of the bytes of each file.
        hashes: (N,) uint64, of its look.
        grays: (N, 16, 16) uint8, small gray versions.
        comparable: (N,) False where an image is flat or could not be read.
        damaged: position -> why it could not be read.
    """

    digests: npt.NDArray[np.uint8]
    hashes: npt.NDArray[np.uint64]
    grays: npt.NDArray[np.uint8]
    comparable: npt.NDArray[np.bool_]
    damaged: dict[int, str]


class Pair(NamedTuple):
    """Two positions that hold the same picture.

    Attributes:
        first: the smaller position.
        second: the larger one.
        bits: bits of the perceptual hash that differ.
        same_file: True when the files agree byte by byte.
    """

    first: int
    second: int
    bits: int
    same_file: bool


def fingerprint(
    paths: Sequence[str],
    sizes: npt.NDArray[np.int32],
    *,
    workers: int = 8,
    progress: Progress = lambda done, total: None,
) -> Fingerprints:
    """Reads every image once.

    Args:
        paths: N files.
        sizes: (N, 2) height and width of each.
        workers: threads.
        progress: is told how many are done, and how many there are.
    """
    count = len(paths)
    digests = np.zeros((count, 16), np.uint8)
    hashes = np.zeros(count, np.uint64)
    grays = np.zeros((count, SIDE // 2, SIDE // 2), np.uint8)
    comparable = np.zeros(count, np.bool_)
    damaged: dict[int, str] = {}

    def read(start: int) -> None:
        for i in range(start, min(start + _CHUNK, count)):
            try:
                digest, gray = _look(paths[i], int(sizes[i].min()))
            except DataError as error:
                damaged[i] = error.message.rstrip(".")
                continue
            digests[i] = np.frombuffer(digest, np.uint8)
            grays[i] = gray.reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3))
            hashes[i] = perceptual_hash(gray)
            comparable[i] = gray.std() >= _FLAT

    starts = range(0, count, _CHUNK)
    with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="holdfast-look") as pool:
        for number, _ in enumerate(pool.map(read, starts), start=1):
            progress(min(number * _CHUNK, count), count)
    return Fingerprints(digests, hashes, grays, comparable, dict(sorted(damaged.items())))


def _look(path: str, side: int) -> tuple[bytes, npt.NDArray[np.uint8]]:
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror}).", path=path) from None
    divisor = 1
    while divisor < 8 and side // (2 * divisor) >= _REDUCED_SIDE:
        divisor *= 2
    image, _, _ = read_reduced(data, divisor, name=path)
    return hashlib.blake2b(data, digest_size=16).digest(), small_gray(image)


def find_pairs(prints: Fingerprints) -> list[Pair]:
    """Finds pictures that are there more than once.

    A picture that is there k times gives k - 1 pairs, each with the first of them.
    """
    readable = np.ones(len(prints.hashes), np.bool_)
    readable[list(prints.damaged)] = False
    pairs, single = _equal(np.flatnonzero(readable), prints.digests, same_file=True)
    single = single[prints.comparable[single]]
    alike, single = _equal(single, prints.hashes[:, None], same_file=False)
    near, bits = near_pairs(prints.hashes[single], NEAR_BITS)
    alike += [
        Pair(int(first), int(second), int(changed), False)
        for (first, second), changed in zip(single[near], bits, strict=True)
    ]
    pairs += [pair for pair in alike if _correlation(prints.grays, pair) >= _ALIKE]
    return sorted(pairs)


@dataclass(frozen=True)
class Leaks:
    """Pictures that training sees and validation or test measures with.

    Attributes:
        pairs: an image of an earlier split beside an image of a later one.
        earlier: all positions whose picture is in a later split too; without them nothing leaks.
    """

    pairs: list[Pair]
    earlier: set[int]


def find_leaks(pairs: Sequence[Pair], split_of: Sequence[int], prints: Fingerprints) -> Leaks:
    """Finds the pictures that are in several splits.

    Args:
        pairs: what `find_pairs` returned.
        split_of: N numbers of splits, which grow with the positions.
        prints: tells whether two files are the same bytes.
    """
    leader: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    for pair in sorted(pairs, key=lambda pair: (not pair.same_file, pair.bits)):
        for i in pair[:2]:
            members.setdefault(leader.setdefault(i, i), [i])
        if pair.bits == 0 and leader[pair.first] != leader[pair.second]:
            moved = members.pop(leader[pair.second])
            leader.update((i, leader[pair.first]) for i in moved)
            members[leader[pair.first]] += moved
    groups = [(sorted(group), sorted(group), 0) for group in members.values()]
    groups += [
        (sorted(members[leader[pair.first]]), sorted(members[leader[pair.second]]), pair.bits)
        for pair in pairs
        if pair.bits
    ]
    found: dict[tuple[int, int], Pair] = {}
    earlier: set[int] = set()
    for left, right, bits in groups:
        for mine, others in ((left, right), (right, left)):
            firsts = {split_of[i]: i for i in reversed(mine)}
            for second in others:
                for first in (i for split, i in firsts.items() if split < split_of[second]):
                    same = bool((prints.digests[first] == prints.digests[second]).all())
                    found.setdefault((first, second), Pair(first, second, bits, same))
            last = max(split_of[i] for i in others)
            earlier.update(i for i in mine if split_of[i] < last)
    return Leaks(sorted(found.values(), key=lambda pair: (not pair.same_file, pair.bits, pair)), earlier)


def _equal(
    chosen: npt.NDArray[np.int64], keys: npt.NDArray[np.generic], *, same_file: bool
) -> tuple[list[Pair], npt.NDArray[np.int64]]:
    """Pairs among the chosen positions with equal rows of `keys`, and the first position of each row."""
    if not len(chosen):
        return [], chosen
    _, first, group = np.unique(keys[chosen], axis=0, return_index=True, return_inverse=True)
    leader = chosen[first][group.reshape(-1)]
    again = np.flatnonzero(leader != chosen)
    pairs = [Pair(int(leader[i]), int(chosen[i]), 0, same_file) for i in again]
    return pairs, np.sort(chosen[first])


def _correlation(grays: npt.NDArray[np.uint8], pair: Pair) -> float:
    left, right = (grays[i].astype(np.float64) - grays[i].mean() for i in (pair.first, pair.second))
    return float((left * right).sum() / (np.linalg.norm(left) * np.linalg.norm(right)))
