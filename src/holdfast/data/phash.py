"""Perceptual hashes: 64 bits that stay when a picture is encoded again, resized or slightly changed.

The hash holds the signs of the lowest frequencies of a small gray version (a DCT) against their median. Two
pictures that look alike differ in few bits. `near_pairs` finds all such pairs without comparing each with
each: the 64 bits are cut into four parts of 16, and hashes that differ in at most 7 bits differ in at most
one bit in some part, so it is enough to look that part up as it is and with each of its bits turned.

Dimensions: N images.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from holdfast.data.image import Image

Hashes = npt.NDArray[np.uint64]

MAX_DISTANCE = 7  # what the lookup below is complete for
SIDE = 32  # of the small gray version
_PARTS, _BITS = 4, 16
_FLIPS = (0, *(1 << bit for bit in range(_BITS)))
_CHUNK = 2_000_000  # candidate pairs compared at once
_CROWD = 256  # of more hashes with one part in common, each is compared with this many
_ONES = np.array([bin(value).count("1") for value in range(1 << _BITS)], dtype=np.uint8)


def small_gray(image: Image) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB -> (SIDE, SIDE) uint8, averaged over the whole picture."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def perceptual_hash(gray: npt.NDArray[np.uint8]) -> int:
    """The hash of what `small_gray` returned."""
    waves = cv2.dct(gray.astype(np.float32))
    low = np.append(waves[:8, :8].ravel()[1:], waves[0, 8])  # without the mean, which brightness changes
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big")


def distance(left: Hashes, right: Hashes) -> npt.NDArray[np.uint8]:
    """How many of the 64 bits differ, element by element."""
    parts = np.ascontiguousarray(left ^ right).view(np.uint16).reshape(-1, _PARTS)
    return np.asarray(_ONES[parts].sum(axis=1), dtype=np.uint8)


def near_pairs(hashes: Hashes, limit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Finds the pairs of hashes that differ in at most `limit` bits.

    Equal hashes should be joined before: a crowd of more than some thousand that share a quarter of their
    bits is searched among neighbours only, so that time stays in proportion to the number of images.

    Args:
        hashes: (N,) uint64.
        limit: at most MAX_DISTANCE.

    Returns:
        Pairs (K, 2) of positions, the smaller first, sorted; and the distance (K,) of each.
    """
    assert limit <= MAX_DISTANCE
    found = [np.zeros((0, 2), np.int64)]
    for part in range(_PARTS):
        keys = (hashes >> np.uint64(part * _BITS)).astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        for flip in _FLIPS:
            wanted = keys ^ np.uint16(flip)
            start = np.searchsorted(ranked, wanted, side="left")
            count = np.minimum(np.searchsorted(ranked, wanted, side="right") - start, _CROWD)
            if not flip:  # among their own kind, each is compared with those behind it
                place = np.empty(len(order), np.int64)
                place[order] = np.arange(len(order))
                stop = np.searchsorted(ranked, wanted, side="right")
                start, count = place + 1, np.minimum(stop - place - 1, _CROWD)
            for left, right in _candidates(start, count, order):
                if flip:
                    once = left < right
                    left, right = left[once], right[once]
                close = distance(hashes[left], hashes[right]) <= limit
                found.append(np.stack([left[close], right[close]], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs, distance(hashes[pairs[:, 0]], hashes[pairs[:, 1]])


def _candidates(
    start: npt.NDArray[np.int64], count: npt.NDArray[np.int64], order: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Positions to compare, in chunks: each i with `count[i]` entries of `order` from `start[i]` on."""
    ends = count.cumsum()
    first = 0
    while first < len(count):
        done = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, done + _CHUNK, side="right")), first + 1)
        many = count[first:last]
        left = np.repeat(np.arange(first, last), many)
        within = np.arange(len(left)) - np.repeat(many.cumsum() - many, many)
        yield left, order[np.repeat(start[first:last], many) + within]
        first = last
