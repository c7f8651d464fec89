"""Tokens of samples on the disk, while it is not known yet which of them share a pack."""

from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from fim import Tokens
from finetune.samples.sampling import Shard

_COLUMNS = {"epoch": "i4", "high": "u8", "low": "u8", "window": "i4", "length": "i4"}
"""What memory holds of a sample: two halves of its document's id, and three numbers."""


class TokenFile:
    """A file of tokens, written in the order the samples come and read in any other.

    It is deleted at the end of the `with` block. Samples are known by their number, from 0 in the
    order in which they were written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "w+b")
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
        self._columns: dict[str, np.ndarray] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink()

    def write(self, shard: Shard) -> None:
        """Append the samples of a shard."""
        for start, end in pairwise([0, *np.cumsum(shard.lengths).tolist()]):
            self._file.write(shard.input_ids[start:end].data)
            self._file.write(shard.labels[start:end].data)
        ids = shard.rows["document_id"]
        columns = {
            "epoch": shard.rows["epoch"],
            "high": [int(document_id[:16], 16) for document_id in ids],
            "low": [int(document_id[16:], 16) for document_id in ids],
            "window": shard.windows,
            "length": shard.lengths,
        }
        for name, dtype in _COLUMNS.items():
            self._parts[name].append(np.array(columns[name], dtype=dtype))

    def finish(self) -> int:
        """Return the number of samples; all are written, and can be read now."""
        for name, dtype in _COLUMNS.items():
            parts = self._parts.pop(name)
            self._columns[name] = np.concatenate([np.zeros(0, dtype), *parts])
        self._columns["end"] = np.cumsum(self._columns["length"], dtype=np.int64)
        return len(self._columns["end"])

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Return the numbers of an epoch's samples, in the order of (document id, window)."""
        numbers = np.flatnonzero(self._columns["epoch"] == epoch)
        keys = [self._columns[name][numbers] for name in ("window", "low", "high")]
        return numbers[np.lexsort(keys)]

    def lengths(self, numbers: np.ndarray) -> np.ndarray:
        """Return the tokens of some samples, `int64`."""
        return self._columns["length"][numbers].astype(np.int64)

    def sample_id(self, number: int) -> str:
        """Return the id of a sample, see `fim.Sample`."""
        high, low, epoch, window = (
            int(self._columns[name][number]) for name in ("high", "low", "epoch", "window")
        )
        return f"{high:016x}{low:016x}-{epoch}-{window}"

    def read(self, number: int) -> Tokens:
        """Read the tokens of a sample."""
        length, end = (int(self._columns[name][number]) for name in ("length", "end"))
        self._file.seek(8 * (end - length))
        both = np.frombuffer(self._file.read(8 * length), dtype=np.int32)
        return Tokens(input_ids=both[:length], labels=both[length:])
