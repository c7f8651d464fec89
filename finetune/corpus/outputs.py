"""The tables of a corpus: Parquet, written a few rows at a time."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fim import Document
from finetune.corpus.batches import cut

if TYPE_CHECKING:
    from pyarrow import Array, Table
    from pyarrow.parquet import ParquetWriter

FIELDS = (
    "repo", "path", "language", "text", "revision", "committed_at", "licence", "weight",
)  # fmt: skip
"""Columns of a document, by the names of its fields."""
_GROUP_ROWS, _GROUP_BYTES = 1_000, 2_000_000
"""A row group ends at so many rows, or texts of so many bytes: a reader holds a whole one."""
_TYPES = {
    "text": "binary", "committed_at": "int64", "weight": "float64", "num_bytes": "int64",
    "cluster": "int64", "number": "int64", "similarity": "float64", "is_kept": "bool",
}  # fmt: skip
"""Columns that are no strings."""
_REPEATED = ("repo", "language", "revision", "licence", "split", "reason", "kind")


def write_documents(path: Path, rows: Iterable[tuple[Document, str]]) -> None:
    """Write documents and their sides, in row groups small enough for any reader's memory."""
    names = ("id", *FIELDS, "num_bytes", "split")
    with _open(path, names) as writer:
        for group in cut(rows, lambda row: len(row[0].text), _GROUP_ROWS, _GROUP_BYTES):
            columns = {name: [getattr(d, name) for d, _ in group] for name in ("id", *FIELDS)}
            columns["num_bytes"] = [len(d.text) for d, _ in group]
            columns["split"] = [side for _, side in group]
            writer.write_table(_make_table(columns))


def write_rows(path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the columns named, in the order given; a file without rows has them too."""
    with _open(path, names) as writer:
        for start in range(0, max(1, len(rows)), _GROUP_ROWS):
            group = rows[start : start + _GROUP_ROWS]
            writer.write_table(_make_table({name: [row[name] for row in group] for name in names}))


def _open(path: Path, names: Sequence[str]) -> "ParquetWriter":
    from pyarrow import parquet

    repeated = [name for name in names if name in _REPEATED]
    schema = _make_table({name: [] for name in names}).schema
    return parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)


def _make_table(columns: Mapping[str, list[Any]]) -> "Table":
    """Make a table of lists; `pyarrow.table` would import pandas for it, a third of a second."""
    import pyarrow as pa

    return pa.table({name: _make_array(name, values) for name, values in columns.items()})


def _make_array(name: str, values: list[Any]) -> "Array":
    import pyarrow as pa

    kind = pa.type_for_alias(_TYPES.get(name, "string"))
    if kind in (pa.string(), pa.binary()):
        data = [value.encode() for value in values] if kind == pa.string() else values
        ends = np.cumsum([0, *map(len, data)], dtype=np.int32)
        buffers = [ends, b"".join(data)]
    elif kind == pa.bool_():
        buffers = [np.packbits(np.array(values, dtype=bool), bitorder="little")]
    else:
        buffers = [np.array(values, dtype=kind.to_pandas_dtype())]
    return pa.Array.from_buffers(kind, len(values), [None, *map(pa.py_buffer, buffers)])
