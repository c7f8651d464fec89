"""Near copies among signatures: candidates by locality-sensitive hashing, then each one checked."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.corpus.copies.near import SIGNATURE_BYTES, SLOTS

MIN_STRUCTURE_SIMILARITY = 0.9
"""Two files are copies with other names if their structures are so similar, or more."""
_MISS_RATE = 1e-4
"""Share of pairs at the threshold that the buckets may miss."""

Similar = tuple[int, float]
"""Number of a file, and the similarity to it."""


class Signatures:
    """Signatures of files in an order, and in which buckets each falls.

    Memory: the signatures, and 8 bytes for each bucket that a file shares with another.
    """

    def __init__(
        self, signatures: Sequence[bytes], languages: Sequence[str], threshold: float, slack: float
    ) -> None:
        """Fill the buckets.

        Args:
            signatures: of `make_signature`, empty ones included.
            languages: of the files; only files of one language are compared by structure.
            threshold: Jaccard similarity of words from which on two files are near copies.
            slack: what is taken off this and `MIN_STRUCTURE_SIMILARITY`.
        """
        table = b"".join(s or bytes(SIGNATURE_BYTES) for s in signatures)
        self.values = np.frombuffer(table, "<u2").reshape(-1, 2, SLOTS)
        self.limits = np.array([threshold, max(threshold, MIN_STRUCTURE_SIMILARITY)]) - slack
        names = {name: number for number, name in enumerate(sorted(set(languages)))}
        self.languages = np.array([names[name] for name in languages], np.int64)
        self.is_judged = self.values.any(axis=2)
        self.buckets = self._fill_buckets()

    def leaders(self, order: Iterable[int]) -> dict[int, Similar]:
        """Give each file the earlier one it is a near copy of, itself if there is none.

        Only files without a leader lead others, so each is compared with the one that stays for it,
        and no chain of small changes joins two that differ.

        Args:
            order: numbers of the files, the first to lead first.
        """
        members: dict[int, list[int]] = defaultdict(list)
        found = {}
        for number in order:
            best = self._best(number, members)
            if best is None:
                best = number, 1.0
                for bucket in self.buckets[number]:
                    members[bucket].append(number)
            found[number] = best
        return found

    def near(self, marked: Collection[int]) -> dict[int, Similar]:
        """Return those that are near copies of a marked file, with the most similar of these."""
        members: dict[int, list[int]] = defaultdict(list)
        for number in sorted(marked):
            for bucket in self.buckets[number]:
                members[bucket].append(number)
        others = (n for n in range(len(self.buckets)) if n not in marked)
        found = ((number, self._best(number, members)) for number in others)
        return {number: best for number, best in found if best is not None}

    def _best(self, number: int, members: dict[int, list[int]]) -> Similar | None:
        candidates = {n for bucket in self.buckets[number] for n in members.get(bucket, ())}
        if not candidates:
            return None
        others = np.array(sorted(candidates))
        scores = np.count_nonzero(self.values[others] == self.values[number], axis=2) / SLOTS
        scores[~(self.is_judged[others] & self.is_judged[number])] = 0
        scores[self.languages[others] != self.languages[number], 1] = 0
        scores[scores < self.limits] = 0
        best = scores.max(axis=1)
        first = int(best.argmax())
        return (int(others[first]), float(best[first])) if best[first] > 0 else None

    def _fill_buckets(self) -> list[list[int]]:
        """Return the buckets of each file that another file is in, too."""
        buckets: list[list[int]] = [[] for _ in self.values]
        taken = 0
        for half, limit in enumerate(self.limits):
            judged = np.flatnonzero(self.is_judged[:, half])
            for keys in _bands(self.values[judged, half], limit):
                _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
                shared = np.flatnonzero(counts[inverse] > 1)
                for number, bucket in zip(
                    judged[shared].tolist(), (inverse[shared] + taken).tolist(), strict=True
                ):
                    buckets[number].append(bucket)
                taken += len(counts)
        return buckets


def _bands(values: NDArray[np.uint16], threshold: float) -> Iterator[NDArray[np.uint64]]:
    """Yield a key for each file, band by band: files with an equal key are candidates."""
    rows = _band_rows(threshold)
    for start in range(0, SLOTS - rows + 1, rows):
        keys = np.zeros(len(values), np.uint64)
        for row in range(start, start + rows):
            keys = (keys + values[:, row]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
        yield keys


def _band_rows(threshold: float) -> int:
    """Return the most values per band that miss no more pairs at the threshold than they may.

    Source:
        Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4.
    """
    return max(
        rows
        for rows in range(1, 17)
        if rows == 1 or (1 - threshold**rows) ** (SLOTS // rows) <= _MISS_RATE
    )
