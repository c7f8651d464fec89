"""Encoded samples to packs on the disk, and the counts of what is in them.

Samples stay on the disk all the way: memory holds 36 bytes of each, and one batch of packs.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fim import FimError, Pack, pack, plan_packs
from finetune.recipe.schema import Fim
from finetune.samples.sampling import ROW_NUMBERS, ROW_TEXTS, Shard
from finetune.samples.token_file import TokenFile
from finetune.store import read_json, write_json

_BATCH_TOKENS = 1 << 20
"""Packs are written in batches of at least so many tokens."""
_GROUP_ROWS = 10_000
"""Rows of `samples.parquet` are written at least so many at a time."""
_DATA = "data-00000-of-00001.arrow"
"""The only file of a dataset, named as `datasets` names it."""
_ORDERS = ("psm", "spm", "ar")


def write_packs(folder: Path, shards: Iterable[Shard], fim: Fim, epochs: int) -> dict[str, Any]:
    """Pack samples epoch by epoch, write them with a row per sample, and count.

    Args:
        folder: to be made; `datasets.load_from_disk` opens it.
        shards: samples of every epoch; their order is that of `samples.parquet`, and changes no
            pack.
        fim: the recipe's section, automatic values filled in.
        epochs: epochs the samples were drawn for.

    Returns:
        The sample counts of `stats.json`, and `content`, the sha256 of all packs.

    Raises:
        FimError: there is no sample.
    """
    folder.mkdir(parents=True)
    counts = _Counts()
    with TokenFile(folder / ".tokens") as tokens:
        rows = _store(shards, tokens, counts)
        _save_rows(folder / "samples.parquet", rows)
        if tokens.finish() == 0:
            raise FimError("no sample fits: raise fim.max_length")
        packs = (row for epoch in range(epochs) for row in _pack_epoch(tokens, epoch, fim))
        content = _save_packs(folder, packs, counts)
    return counts.summary(fim.max_length) | {"content": content}


@dataclass
class _Counts:
    """What is in the packs, counted as it passes."""

    orders: Counter[str] = field(default_factory=Counter)
    samplers: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    boundaries: Counter[str] = field(default_factory=Counter)
    middle_bytes: Counter[int] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    """By order."""
    packs: int = 0

    def add(self, shard: Shard) -> None:
        """Count the samples of a shard."""
        rows = shard.rows
        for order, length in zip(rows["order"], shard.lengths.tolist(), strict=True):
            self.orders[order] += 1
            self.tokens[order] += length
        is_fim = [order != "ar" for order in rows["order"]]
        self.samplers.update(compress(rows["sampler"], is_fim))
        self.kinds.update(compress(rows["kind"], is_fim))
        self.boundaries.update(compress(rows["boundary"], is_fim))
        sizes = np.subtract(rows["end_byte"], rows["start_byte"]).tolist()
        self.middle_bytes.update(compress(sizes, is_fim))

    def summary(self, max_length: int) -> dict[str, Any]:
        """Return the counts as `stats.json` has them; utilisation is tokens against room."""
        self.kinds.pop("", None)  # of random cuts
        sizes = np.repeat(list(self.middle_bytes) or [0], list(self.middle_bytes.values()) or [1])
        tokens = self.tokens.total()
        return {
            "samples": {name: self.orders[name] for name in _ORDERS},
            "samplers": dict(self.samplers.most_common()),
            "kinds": dict(self.kinds.most_common()),
            "boundaries": dict(self.boundaries.most_common()),
            "middle_bytes": {f"p{q}": int(np.percentile(sizes, q)) for q in (10, 50, 90)},
            "packs": self.packs,
            "tokens": tokens,
            "tokens_by_order": {name: self.tokens[name] for name in _ORDERS},
            "utilisation": round(tokens / max(1, self.packs * max_length), 4),
        }


def _store(
    shards: Iterable[Shard], tokens: TokenFile, counts: _Counts
) -> Iterator[dict[str, list]]:
    """Put the tokens of each shard away, count it, and pass its rows on."""
    for shard in shards:
        tokens.write(shard)
        counts.add(shard)
        yield shard.rows


def _save_rows(path: Path, parts: Iterable[dict[str, list]]) -> None:
    """Write one row per sample, without its text."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema(
        [(name, pa.string()) for name in ROW_TEXTS] + [(name, pa.int64()) for name in ROW_NUMBERS]
    )
    with parquet.ParquetWriter(path, schema) as writer:
        waiting: list[pa.Table] = []
        for part in parts:
            waiting.append(pa.table(part, schema))
            if sum(map(len, waiting)) >= _GROUP_ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        writer.write_table(pa.concat_tables([*waiting, schema.empty_table()]))


def _pack_epoch(tokens: TokenFile, epoch: int, fim: Fim) -> Iterator[dict[str, Any]]:
    """Packs of one epoch: an epoch ends where its packs end."""
    numbers = tokens.of_epoch(epoch)
    items, ends = plan_packs(tokens.lengths(numbers), fim.max_length, seed=fim.seed + epoch)
    for start, end in pairwise([0, *ends.tolist()]):
        chosen = numbers[items[start:end]].tolist()
        joined: Pack = pack([tokens.read(number) for number in chosen])
        yield {
            "input_ids": joined.input_ids,
            "labels": joined.labels,
            "seq_lengths": joined.seq_lengths,
            "sample_ids": [tokens.sample_id(number) for number in chosen],
            "epoch": epoch,
        }


def _save_packs(folder: Path, packs: Iterable[dict[str, Any]], counts: _Counts) -> str:
    """Write packs as Arrow that `datasets.load_from_disk` opens; return the content's sha256.

    `datasets` writes the files around it; it would hold all packs to write them itself.
    """
    import pyarrow as pa
    from datasets import Dataset, Features, List, Value, disable_progress_bars

    disable_progress_bars()
    integers = List(Value("int32"))
    features = Features(
        input_ids=integers, labels=integers, seq_lengths=integers,
        sample_ids=List(Value("string")), epoch=Value("int32"),
    )  # fmt: skip
    Dataset.from_dict({name: [] for name in features}, features=features).save_to_disk(folder)
    digest = hashlib.sha256()
    with pa.ipc.new_stream(str(folder / _DATA), features.arrow_schema) as stream:
        for batch in _batches(packs):
            for row in batch:
                digest.update(row["input_ids"].data)
                digest.update(row["labels"].data)
                digest.update(np.asarray(row["seq_lengths"], dtype=np.int32).data)
            columns = {name: [row[name] for row in batch] for name in features}
            stream.write_batch(pa.RecordBatch.from_pydict(columns, features.arrow_schema))
            counts.packs += len(batch)
    state = read_json(folder / "state.json") | {
        "_data_files": [{"filename": _DATA}],
        "_fingerprint": digest.hexdigest()[:16],  # what `datasets` caches is known by it
    }
    write_json(folder / "state.json", state)
    return digest.hexdigest()


def _batches(packs: Iterable[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    num_tokens = 0
    for row in packs:
        batch.append(row)
        num_tokens += len(row["input_ids"])
        if num_tokens >= _BATCH_TOKENS:
            yield batch
            batch, num_tokens = [], 0
    if batch:
        yield batch
