"""Rows of JSON Lines, Parquet and `datasets`, one at a time."""

import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fim import FimError
from finetune.progress import first_line
from finetune.recipe.corpus import Source

PACKINGS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def read_jsonl(source: Source, path: Path) -> Iterator[tuple[int, Any, int]]:
    """Yield number, value and bytes of every line that is not blank; None for one that is no JSON.

    A name that ends in `.gz`, `.zst` or `.bz2` is unpacked on the way.

    Raises:
        FimError: no such file, or it is packed and not whole.
    """
    import pyarrow as pa

    _check_file(path)
    packing = PACKINGS.get(path.suffix.lower())
    with (
        _whole(path, "packed"),
        open(path, "rb") as file,
        io.BufferedReader(pa.input_stream(file, compression=packing), 1 << 20) as lines,
    ):
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _parse(line), len(line)


def read_parquet(source: Source, path: Path) -> Iterator[tuple[int, Any, int]]:
    """Yield number, the columns the source names, and 0 for every row.

    Raises:
        FimError: no such file, it is no whole Parquet file, or has no such column.
    """
    from pyarrow import parquet

    _check_file(path)
    with _whole(path, "Parquet"), open(path, "rb") as file, parquet.ParquetFile(file) as table:
        known = table.schema_arrow.names
        _check_column(source, path, known)
        columns = [name for name in (source.column, source.path_column) if name in known]
        number = 0
        for batch in table.iter_batches(batch_size=256, columns=columns):
            values = [_unread(column).to_pylist() for column in batch.columns]
            for row in zip(*values, strict=True):
                number += 1
                yield number, dict(zip(batch.schema.names, row, strict=True)), 0


def read_dataset(source: Source, path: Path) -> Iterator[tuple[int, Any, int]]:
    """Yield number, columns and 0 for every row of `name`, `name:configuration` or with `:split`.

    Raises:
        FimError: the library cannot load it, or it has no such column.
    """
    import datasets

    name, configuration, split = split_dataset_name(source.dataset)
    place = str(path) if os.path.exists(path) else name
    try:
        # Streamed: the code is read where it lies, no copy of it stays in a cache folder.
        rows = datasets.load_dataset(place, configuration, split=split, streaming=True)
        if rows.column_names:
            _check_column(source, place, rows.column_names)
        for number, row in enumerate(rows, start=1):
            yield number, row, 0
    except FimError:
        raise
    except Exception as error:  # the library has no common exception
        raise FimError(f"{place}: 'datasets' cannot load it ({first_line(error)})") from None


def split_dataset_name(text: str) -> tuple[str, str | None, str]:
    """Split `name:configuration:split`; the last two may be absent or empty."""
    if os.path.exists(os.path.expanduser(text)):
        return text, None, "train"
    name, configuration, split = [*text.split(":", 2), "", ""][:3]
    return name, configuration or None, split or "train"


def _unread(column: Any) -> Any:
    """Return a column with strings as bytes: one that is no UTF-8 costs its row only."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    types = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    return column.view(types.get(column.type, column.type))


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        return None


def _check_column(source: Source, place: str | Path, known: Iterable[str]) -> None:
    if source.column not in known:
        raise FimError(
            f"{place}: no column {source.column!r}; set 'column' to one of: {', '.join(known)}"
        )


def _check_file(path: Path) -> None:
    if not os.path.isfile(path):
        raise FimError(f"{path}: no such file; correct corpus.sources")
    if not os.access(path, os.R_OK):
        raise FimError(f"{path}: not readable; change its permissions")


@contextmanager
def _whole(path: Path, kind: str) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise FimError(f"{path}: not a whole {kind} file ({first_line(error)})") from None
