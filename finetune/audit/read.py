"""A built run as it stands on the disk: its documents, its rows of samples, and their tokens."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fim import FORMATS, FimError
from finetune.recipe.file import read_recipe
from finetune.recipe.schema import Recipe
from finetune.samples.anneal import Decay, plan_decay
from finetune.samples.tokenizer import load_tokenizer
from finetune.store import read_json

SPLITS = ("train", "eval")
_TEXTS = (
    "sample_id", "document_id", "repo", "path", "language", "order", "sampler", "kind", "boundary",
)  # fmt: skip
_NUMBERS = (
    "start_byte", "end_byte", "node_start_byte", "epoch", "prefix_tokens", "middle_tokens",
    "suffix_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of `samples.parquet`, and where its tokens are."""

    split: str
    """`train` or `eval`: the packs it is in."""
    sample_id: str
    document_id: str
    repo: str
    path: str
    language: str
    order: str
    sampler: str
    kind: str
    boundary: str
    start_byte: int
    end_byte: int
    node_start_byte: int
    epoch: int
    prefix_tokens: int
    middle_tokens: int
    suffix_tokens: int
    places: tuple[tuple[int, int, int], ...]
    """Pack, first token and number of tokens, of each time it is in a pack: once."""

    @property
    def window(self) -> int:
        """Number of the window, the last part of the sample's id; -1 where it has none."""
        last = self.sample_id.rpartition("-")[2]
        return int(last) if last.isdecimal() else -1


@dataclass(frozen=True)
class BuiltRun:
    """A run folder after `sfim prepare`."""

    folder: Path
    recipe: Recipe

    @cached_property
    def stats(self) -> dict[str, Any]:
        """What `prepare` says it made."""
        return read_json(self.folder / "packs" / "stats.json")

    @cached_property
    def format(self) -> Any:
        """Row of `FORMATS` that the packs were rendered with."""
        return FORMATS[self.stats["format"]]

    @property
    def documents(self) -> Path:
        """The corpus."""
        return self.folder / "corpus" / "documents.parquet"

    def has(self, split: str) -> bool:
        """Whether the run has packs of a split."""
        return (self.folder / "packs" / split).is_dir()

    def epochs(self, document: Mapping[str, Any]) -> list[int]:
        """Epochs that draw from a document."""
        if document["split"] != "train":
            return [0]
        passes = range(self.recipe.train.epochs)
        if not self.decay:
            return [*passes]
        facts = (document[name] for name in ("id", "repo", "language"))
        return [*passes, *self.decay.epochs_of(*facts)]

    @cached_property
    def decay(self) -> Decay | None:
        """The epochs of the decay phase, if it has a mix of its own."""
        return plan_decay(self.recipe.train, self.folder / "corpus", self.recipe.fim.seed)

    def packs(self, split: str) -> "Packs":
        """Open the packs of a split."""
        return Packs(self.folder / "packs" / split)

    def rows(self, split: str, packs: "Packs") -> list[Row]:
        """Read the rows of a split, each with its places in the packs."""
        places = packs.places()
        columns = read_columns(self.folder / "packs" / split / "samples.parquet")
        named = [columns[name] for name in (*_TEXTS, *_NUMBERS)]
        return [
            Row(
                **dict(zip((*_TEXTS, *_NUMBERS), values, strict=True)),
                split=split,
                places=tuple(places.get(values[0], ())),
            )
            for values in zip(*named, strict=True)
        ]

    def tokenizer(self) -> Any:
        """Load the tokenizer of the run, as `transformers` has it."""
        model = self.recipe.model
        if model.scratch:
            return load_tokenizer(str(self.folder / "tokenizer"))
        return load_tokenizer(model.name, model.revision)


class Packs:
    """The packs of one split, mapped from the disk."""

    def __init__(self, folder: Path) -> None:
        from datasets import load_from_disk

        table = load_from_disk(str(folder)).data
        self.epochs: list[int] = table.column("epoch").to_pylist()
        self.seq_lengths: list[list[int]] = table.column("seq_lengths").to_pylist()
        self.sample_ids: list[list[str]] = table.column("sample_ids").to_pylist()
        self._input_ids = _slices(table.column("input_ids"))
        self._labels = _slices(table.column("labels"))

    def __len__(self) -> int:
        return len(self.epochs)

    def num_tokens(self, pack: int) -> tuple[int, int]:
        """Return how many ids and how many labels a pack has."""
        return len(self._input_ids[pack]), len(self._labels[pack])

    def places(self) -> dict[str, list[tuple[int, int, int]]]:
        """Return pack, first token and number of tokens of each sample, by its id."""
        found: dict[str, list[tuple[int, int, int]]] = {}
        for pack, (names, lengths) in enumerate(
            zip(self.sample_ids, self.seq_lengths, strict=True)
        ):
            offset = 0
            for name, length in zip(names, lengths, strict=False):
                found.setdefault(name, []).append((pack, offset, length))
                offset += length
        return found

    def tokens(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """Return ids and labels of a sample that is in a pack, each of shape `(length,)`."""
        pack, offset, length = row.places[0]
        part = slice(offset, offset + length)
        return self._input_ids[pack][part], self._labels[pack][part]


def _slices(column: Any) -> list[np.ndarray]:
    """The lists of an Arrow column as arrays that share its memory."""
    found = []
    for chunk in column.chunks:
        values, offsets = chunk.values.to_numpy(), chunk.offsets.to_numpy()
        found += [values[a:b] for a, b in pairwise(offsets)]
    return found


def open_run(folder: Path) -> BuiltRun:
    """Open a run folder.

    Raises:
        FimError: it is none, or `sfim prepare` did not finish in it.
    """
    if not (folder / "recipe.yaml").is_file():
        raise FimError(f"{folder}: no run folder (no recipe.yaml); give one like runs/quickstart")
    if not (folder / "packs" / "manifest.json").is_file():
        raise FimError(f"{folder}: no packs; run 'sfim prepare' with its recipe first")
    run = BuiltRun(folder, read_recipe(folder / "recipe.yaml"))
    if run.stats["format"] not in FORMATS:
        raise FimError(f"{folder}: unknown format {run.stats['format']!r}; prepare it again")
    return run


def read_columns(
    path: Path, names: Sequence[str] | None = None, filters: Any = None
) -> dict[str, list]:
    """Read columns of a Parquet file, all by default, of the rows that pass pyarrow's `filters`.

    Raises:
        FimError: it is missing or damaged.
    """
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(
            path, columns=names and list(names), filters=filters, partitioning=None
        )
    except (ArrowException, OSError):
        raise FimError(f"{path}: missing or damaged; run 'sfim prepare' again") from None
    return table.to_pydict()


def read_documents(path: Path, group: int) -> Iterator[dict[str, Any]]:
    """Yield the documents of one row group, with their text.

    Raises:
        FimError: the file is damaged.
    """
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield from file.read_row_group(group).to_pylist()
    except (ArrowException, OSError):
        raise FimError(f"{path}: missing or damaged; run 'sfim prepare' again") from None


def read_texts(run: BuiltRun, ids: Collection[str]) -> dict[str, bytes]:
    """Read the text of some documents.

    Raises:
        FimError: one is not in the corpus.
    """
    texts = read_columns(run.documents, ("id", "text"), [("id", "in", list(ids))])
    found = dict(zip(texts["id"], texts["text"], strict=True))
    if len(found) < len(ids):
        raise FimError(f"{run.documents}: lacks a document; run 'sfim prepare' again")
    return found
