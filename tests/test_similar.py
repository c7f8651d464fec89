"""The search finds what comparing all pairs finds, and asks far fewer."""

import numpy as np
import pytest

from finetune.corpus.copies.near import SIGNATURE_BYTES, SLOTS
from finetune.corpus.copies.similar import Signatures


def make_signatures(number: int, share: float, seed: int = 0) -> list[bytes]:
    """Make pairs of signatures of which about this share of the slots is equal."""
    rng = np.random.default_rng(seed)
    first = rng.integers(1, 1 << 16, (number, 2 * SLOTS), np.uint16)
    other = rng.integers(1, 1 << 16, first.shape, np.uint16)
    second = np.where(rng.random(first.shape) < share, first, other)
    second[:, SLOTS:] = 0  # words only
    return [row.astype("<u2").tobytes() for pair in zip(first, second, strict=True) for row in pair]


def search(signatures: list[bytes], threshold: float, slack: float = 0.0) -> Signatures:
    return Signatures(signatures, ["python"] * len(signatures), threshold, slack)


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.85, 0.95, 1.0])
def test_no_pair_above_the_threshold_is_missed(threshold):
    signatures = make_signatures(300, share=threshold)
    values = np.frombuffer(b"".join(signatures), "<u2").reshape(-1, 2, SLOTS)[:, 0]
    similarity = (values[::2] == values[1::2]).mean(axis=1)

    leaders = search(signatures, threshold).leaders(range(600))

    expected = {2 * n + 1: (2 * n, s) for n, s in enumerate(similarity) if s >= threshold}
    assert 100 < len(expected) <= 300
    assert {n: found for n, found in leaders.items() if found[0] != n} == expected


def test_slack_lowers_the_threshold():
    signatures = make_signatures(100, share=0.65)

    assert search(signatures, 0.8).near(range(0, 200, 2)) == {}
    near = search(signatures, 0.8, slack=0.25).near(range(0, 200, 2))
    assert {number: other for number, (other, _) in near.items()} == {
        number: number - 1 for number in range(1, 200, 2)
    }


def test_the_order_decides_who_leads():
    signatures = make_signatures(1, share=1.0)

    assert search(signatures, 0.7).leaders([0, 1]) == {0: (0, 1.0), 1: (0, 1.0)}
    assert search(signatures, 0.7).leaders([1, 0]) == {1: (1, 1.0), 0: (1, 1.0)}


def test_structure_counts_within_one_language_only():
    words = np.arange(1, SLOTS + 1, dtype="<u2")
    structure = words[::-1].tobytes()
    signatures = [words.tobytes() + structure, (words + 999).astype("<u2").tobytes() + structure]

    same = Signatures(signatures, ["go", "go"], 0.7, 0.0)
    other = Signatures(signatures, ["go", "rust"], 0.7, 0.0)

    assert same.leaders(range(2)) == {0: (0, 1.0), 1: (0, 1.0)}
    assert other.leaders(range(2)) == {0: (0, 1.0), 1: (1, 1.0)}


def test_what_is_not_judged_is_like_nothing():
    words = np.arange(1, SLOTS + 1, dtype="<u2").tobytes()
    signatures = [b"", b"", words.ljust(SIGNATURE_BYTES, b"\0"), words[::-1] + bytes(2 * SLOTS)]

    leaders = search(signatures, 0.5).leaders(range(4))

    assert leaders == {number: (number, 1.0) for number in range(4)}
    assert search([], 0.7).leaders([]) == {}


def test_few_candidates_are_compared():
    signatures = make_signatures(1_000, share=0.2)

    buckets = search(signatures, 0.7).buckets

    assert sum(map(len, buckets)) < 200
