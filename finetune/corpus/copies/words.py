"""Hashes of the words of a text and of runs of them, whole texts at a time."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

PADDING = bytes(16)
"""What `hash_words` wants to stand after a text."""
BLANK, OTHER, DIGIT, LETTER = range(4)
"""Classes of bytes; all of a character beyond ASCII are letters."""
CLASSES = np.full(256, OTHER, np.uint8)
CLASSES[list(b" \t\n\r\f\v\0")] = BLANK
CLASSES[list(b"0123456789")] = DIGIT
CLASSES[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_$")] = LETTER
CLASSES[128:] = LETTER

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_STEPS = tuple(
    np.uint64(odd)
    for odd in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xFF51AFD7ED558CCD)
)
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
"""Of so many first bytes of eight."""


def find_runs(flags: NDArray[np.bool_]) -> tuple[Places, Places]:
    """Return starts and ends of the runs of `True`; the first and the last flag are `False`."""
    edges = (flags[1:] != flags[:-1]).nonzero()[0] + 1
    return edges[::2], edges[1::2]


def hash_words(text: bytes, starts: Places, ends: Places) -> Hashes:
    """Hash each word by its length, its first sixteen bytes and its last eight.

    Args:
        text: ends with `PADDING`.
        starts: of each word, in bytes.
        ends: one past the last byte of each word.

    Returns:
        As many hashes, the same in every process.
    """
    eights = np.ndarray(len(text) - 7, "<u8", text, strides=(1,))
    sizes = ends - starts
    hashes = (eights[starts] & _MASKS.take(sizes, mode="clip")) * _STEPS[1] + sizes.view(np.uint64)
    long = (sizes > 8).nonzero()[0]
    more = eights[starts.take(long) + 8] & _MASKS.take(sizes.take(long) - 8, mode="clip")
    hashes[long] += more * _STEPS[2] + eights[ends.take(long) - 8] * _STEPS[3]
    return _mix(hashes)


def shingle(hashes: Hashes, size: int) -> Hashes:
    """Hash each run of `size` hashes, the order inside counts.

    Args:
        hashes: of the words of a text, in its order.
        size: a power of two up to 16, or one more.
    """
    shingles, width = hashes, 1
    for step in _STEPS:
        if 2 * width <= size:
            shingles = shingles[:-width] * step + shingles[width:]
            width *= 2
    if width < size:
        shingles = shingles[:-1] * _STEPS[3] + hashes[width:]
    return shingles


@cache
def small_hashes() -> Hashes:
    """Return hashes of the numbers from 0 to 255."""
    return _mix(np.arange(1, 257, dtype=np.uint64))


def _mix(hashes: Hashes) -> Hashes:
    """Spread each hash over all of its bits."""
    hashes = hashes * _STEPS[0]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _STEPS[1]
    hashes ^= hashes >> np.uint64(29)
    return hashes
