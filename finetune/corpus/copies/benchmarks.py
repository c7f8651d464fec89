"""Tasks of evaluation sets inside the corpus: files that hold one are left out."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fim import LANGUAGES, Document, FimError
from finetune.corpus.copies.dedup import Record, compare, make_record
from finetune.corpus.copies.words import (
    CLASSES,
    DIGIT,
    LETTER,
    PADDING,
    Hashes,
    Places,
    find_runs,
    hash_words,
    shingle,
)

WORDS = 8
"""Words of an n-gram."""
MIN_SHARE = 0.4
"""Share of the n-grams of a text that a file must have to hold it."""
MIN_GRAMS = 6
"""A text of fewer n-grams of its own is too short to be told from ordinary code."""
MAX_TASKS = 2
"""N-grams of more tasks of a set are habits of it, and count for none."""
MIN_SIMILARITY = 0.6
"""A file whose words are so similar to those of a whole task, or more, is a near copy of it."""

_LOW = np.uint64((1 << 22) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Benchmarks:
    """The texts of evaluation sets, ready to be looked for; there are none by default."""

    sets: tuple[str, ...] = ()
    """Name of the set of each text."""
    sizes: Places = field(default_factory=lambda: np.zeros(0, np.int64))
    """Different n-grams of each text."""
    grams: Hashes = field(default_factory=lambda: np.zeros(0, np.uint64))
    """N-grams of all texts, sorted."""
    owners: Places = field(default_factory=lambda: np.zeros(0, np.int64))
    """Number of the text of each n-gram."""
    table: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(int(_LOW) + 1, bool))
    """Whether there is an n-gram with these low bits."""
    tasks: tuple[Record, ...] = ()
    """Whole tasks; the repository is the set."""

    @classmethod
    def load(cls, paths: Iterable[str | Path]) -> "Benchmarks":
        """Read JSON Lines files, `.gz` too, one task a line; every text column counts.

        Raises:
            FimError: a file is missing, no JSON Lines, or holds no text.
        """
        sets: list[str] = []
        parts: list[tuple[Hashes, Places]] = []
        wholes: dict[bytes, Record] = {}
        for path in map(Path, paths):
            name = path.name.removesuffix(".gz").removesuffix(".jsonl")
            language = _language(name)
            tasks = _read_tasks(path)
            for task in tasks:
                for text in task[:2]:
                    document = Document(repo=name, path="", language=language, text=text)
                    wholes.setdefault(text, make_record(document))
            grams, owners, number = _own_grams(tasks)
            parts.append((grams, owners + len(sets)))
            sets += [name] * number
        if not parts:
            return cls()
        grams, owners = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(grams, kind="stable")
        table = np.zeros(int(_LOW) + 1, bool)
        table[grams & _LOW] = True
        return cls(
            sets=tuple(sets),
            sizes=np.bincount(owners, minlength=len(sets)),
            grams=grams[order],
            owners=owners[order],
            table=table,
            tasks=tuple(wholes.values()),
        )

    def find(self, text: bytes) -> str:
        """Return the name of the set a text holds a task of, empty if it holds none.

        The task may be a small part of the text.
        """
        if not self.sets:
            return ""
        grams = make_grams(text)
        grams = _distinct(grams[self.table[grams & _LOW]])
        first = np.searchsorted(self.grams, grams, "left")
        counts = np.searchsorted(self.grams, grams, "right") - first
        if not counts.any():
            return ""
        places = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        shares = np.bincount(self.owners[places], minlength=len(self.sets)) / self.sizes
        best = int(shares.argmax())
        return self.sets[best] if shares[best] >= MIN_SHARE else ""


def find_near_tasks(records: Sequence[Record], benchmarks: Benchmarks) -> dict[int, str]:
    """Return which records are near copies of a whole task, by number, with the name of its set.

    That is what `Benchmarks.find` does not see: a solution with other names, alone in a file.
    """
    tasks = benchmarks.tasks
    near = compare([*tasks, *records], MIN_SIMILARITY).near(range(len(tasks)))
    return {number - len(tasks): tasks[task].repo for number, (task, _) in near.items()}


def make_grams(text: bytes) -> Hashes:
    """Return the hashes of all runs of `WORDS` words, at least half of them no numbers."""
    text = b"\n" + text + PADDING
    classes = CLASSES[np.frombuffer(text, np.uint8)]
    starts, ends = find_runs(classes >= DIGIT)
    if len(starts) < WORDS:
        return np.zeros(0, np.uint64)
    grams = shingle(hash_words(text, starts, ends), WORDS)
    names = np.cumsum(np.concatenate(([0], classes[starts] == LETTER)))
    return grams[2 * (names[WORDS:] - names[:-WORDS]) >= WORDS]


def _distinct(hashes: Hashes) -> Hashes:
    """Return different hashes in order; `np.unique` takes ten times as long for so few."""
    hashes = np.sort(hashes)
    return hashes[np.concatenate(([True], hashes[1:] != hashes[:-1]))[: len(hashes)]]


def _own_grams(tasks: Sequence[Sequence[bytes]]) -> tuple[Hashes, Places, int]:
    """Return the n-grams of the texts of tasks, less those that more than `MAX_TASKS` tasks have.

    Returns:
        N-grams, number of the text of each, and how many texts have enough of their own.
    """
    texts = [_distinct(make_grams(text)) for task in tasks for text in task]
    tasks_of = np.repeat(np.arange(len(tasks)), [len(task) for task in tasks])
    owners = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    grams = np.concatenate([np.zeros(0, np.uint64), *texts])
    order = np.lexsort((owners, grams))
    grams, owners = grams[order], owners[order]
    places = tasks_of[owners]
    is_first = np.concatenate(([True], grams[1:] != grams[:-1]))[: len(grams)]
    is_other = is_first | np.concatenate(([True], places[1:] != places[:-1]))[: len(grams)]
    kinds = np.cumsum(is_first) - 1
    is_own = np.bincount(kinds, weights=is_other)[kinds] <= MAX_TASKS
    sizes = np.bincount(owners[is_own], minlength=len(texts))
    is_own &= sizes[owners] >= MIN_GRAMS
    numbers = np.cumsum(sizes >= MIN_GRAMS) - 1
    return grams[is_own], numbers[owners[is_own]], int((sizes >= MIN_GRAMS).sum())


def _language(name: str) -> str:
    """Return the language the name of a set says, Python if it says none."""
    for word in re.split(r"[^a-z0-9+#]+", name.lower()):
        for language, row in LANGUAGES.items():
            if word == language or f".{word}" in row.extensions:
                return language
    return "python"


def _read_tasks(path: Path) -> list[tuple[bytes, ...]]:
    """Return the texts of each task, the whole first, those of equal tasks once.

    A row with a suffix is a task cut in three: its pieces are put together.
    """
    tasks: dict[tuple[bytes, ...], None] = {}
    for columns in _read_rows(path):
        solution = columns.get("canonical_solution", "")
        whole = columns.get("prompt", "") + solution + columns.get("suffix", "")
        bare = columns.get("declaration", "") + solution
        if "suffix" in columns:
            columns, bare = {"test": columns.get("test", "")}, ""
        texts = (whole or "\n".join(columns.values()), bare, *columns.values())
        tasks[tuple(text.encode(errors="replace") for text in texts if text.strip())] = None
    found = [task for task in tasks if task]
    if not found:
        raise FimError(f"corpus.benchmarks: {path}: no task in it; correct the path")
    return found


def _text_of(value: Any) -> str:
    """Return the text of a column, lists of texts line by line."""
    if isinstance(value, list):
        return "\n".join(map(_text_of, value))
    return value if isinstance(value, str) else ""


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield the text of each column of each row, by its name, in the order of names."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line) if line.strip() else {}
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is no object")
                yield {name: _text_of(row[name]) for name in sorted(row)}
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise FimError(
            f"corpus.benchmarks: {path}: expected JSON Lines, one task a line ({error})"
        ) from None
