"""The corpus: every entry of every source, either a document on one side or skipped and counted."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

from fim import LANGUAGES, Document, FimError, detect_language
from finetune.corpus.dedup import Record, exact_duplicates, make_record, skip_record
from finetune.corpus.filters import HEAD_BYTES, check_document, kept_languages, to_document
from finetune.corpus.git import resolve_commit
from finetune.corpus.sources import (
    File,
    Found,
    Skip,
    clean_path,
    is_wanted,
    read_source,
    source_key,
    source_path,
    walk_folder,
)
from finetune.corpus.split import choose_records, split_records
from finetune.corpus.spool import Spool
from finetune.recipe_corpus import Corpus, Filters, Source
from finetune.store import fingerprint, sha256_file

DOCUMENTS, SKIPPED = "documents.parquet", "skipped.parquet"
FIELDS = (
    "repo", "path", "language", "text", "revision", "committed_at", "licence", "weight",
)  # fmt: skip
_GROUP_ROWS, _GROUP_BYTES = 1_000, 2_000_000
"""A row group ends at so many rows, or texts of so many bytes: a reader holds a whole one."""


def write_corpus(
    folder: Path, corpus: Corpus, seed: int, progress: Callable[[Iterable], Iterable] = iter
) -> None:
    """Read, filter, deduplicate and split the sources of a recipe into two files of a folder.

    `documents.parquet` and `skipped.parquet` are sorted by (repo, path); equal sources give equal
    bytes. Texts wait on the disk: memory holds a few hundred bytes per file.

    Args:
        folder: where the files go.
        corpus: the recipe's section.
        seed: of the held-out and the chosen files.
        progress: wraps the stream of entries, as `tqdm` does.

    Raises:
        FimError: a source cannot be read, or no document is left.
    """
    seen_names: set[str] = set()
    entries = chain.from_iterable(
        read_source(source, seen_names, corpus.filters.max_bytes) for source in corpus.sources
    )
    records: list[Record] = []
    skipped: list[Skip] = []
    with Spool(folder / ".documents") as spool:
        for result in _judge(progress(entries), corpus.filters):
            if isinstance(result, Skip):
                skipped.append(result)
            else:
                records.append(make_record(result, spool.write(result)))
        records, copies = exact_duplicates(records)
        if not records:
            raise FimError(_nothing_left(skipped))
        train, held_out = split_records(records, corpus.split, seed)
        left_out: list[Record] = []
        if corpus.max_documents:
            train, left_out = choose_records(train, corpus.max_documents, seed)
        sides = dict.fromkeys(train, "train") | dict.fromkeys(held_out, "eval")
        rows = sorted(sides.items(), key=lambda row: row[0].order)
        _write_documents(folder / DOCUMENTS, ((spool.read(r.place), side) for r, side in rows))
    skipped += [*copies, *(skip_record(record, "not-chosen") for record in left_out)]
    skipped.sort(key=lambda s: (s.repo, s.path, s.reason, s.num_bytes))
    _write_skipped(folder / SKIPPED, skipped)


def corpus_fingerprint(corpus: Corpus) -> str:
    """Return digits that change when the section, a commit, or any file of a source changes.

    Commits stand for git sources, whatever `ref` leads to them; size and time for those files of a
    folder that can become documents; sha256 for single files. A dataset of the hub is known by its
    name only.

    Raises:
        FimError: a source does not exist.
    """
    kept = kept_languages(corpus.filters)
    states = [_source_state(source, kept) for source in corpus.sources]
    return fingerprint(asdict(without_refs(corpus)), states)


def without_refs(corpus: Corpus) -> Corpus:
    """Return the section with every `ref` at its default, so that two ways to say it are equal."""
    return replace(corpus, sources=tuple(replace(s, ref="HEAD") for s in corpus.sources))


def source_commits(corpus: Corpus) -> dict[str, str]:
    """Return the commit of each git source now, by the recipe's key that pins it.

    Raises:
        FimError: a repository or its `ref` does not exist.
    """
    return {
        f"corpus.sources.{number}.ref": resolve_commit(source_path(source), source.ref).id
        for number, source in enumerate(corpus.sources)
        if source.git
    }


def read_documents(
    folder: Path, side: str, ids: Collection[str] | None = None
) -> Iterator[Document]:
    """Read documents that `write_corpus` wrote, in the order of (repo, path), a few at a time.

    Args:
        folder: the corpus.
        side: `"train"` or `"eval"`.
        ids: read only these; None reads all of the side.

    Raises:
        FimError: a file is missing or damaged; run `sfim prepare` again.
    """
    for row in _read_rows(folder / DOCUMENTS, (*FIELDS, "id", "split")):
        if row["split"] != side or (ids is not None and row["id"] not in ids):
            continue
        document = Document(**{name: row[name] for name in FIELDS})
        if document.id != row["id"]:
            raise FimError(f"{folder / DOCUMENTS}: damaged; run 'sfim prepare' again")
        yield document


def document_ids(folder: Path, side: str) -> list[str]:
    """Return the ids of one side of a corpus, sorted, without reading a text.

    Raises:
        FimError: see `read_documents`.
    """
    rows = _read_rows(folder / DOCUMENTS, ("id", "split"))
    return sorted(row["id"] for row in rows if row["split"] == side)


def count_documents(folder: Path) -> dict[str, Any]:
    """Return the counts of documents in `stats.json`: each entry of the sources is in one.

    Raises:
        FimError: see `read_documents`.
    """
    sides: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    num_bytes = 0
    for row in _read_rows(folder / DOCUMENTS, ("split", "language", "num_bytes")):
        sides[row["split"]] += 1
        languages[row["language"]] += 1
        num_bytes += row["num_bytes"]
    skipped = Counter(row["reason"] for row in _read_rows(folder / SKIPPED, ("reason",)))
    return {
        "documents": {"kept": sides.total(), "skipped": dict(skipped.most_common())},
        "languages": dict(languages.most_common()),
        "bytes": num_bytes,
        "held_out": {"documents": sides["eval"]},
    }


def _write_documents(path: Path, rows: Iterable[tuple[Document, str]]) -> None:
    """Write documents and their sides, in row groups small enough for any reader's memory."""
    import pyarrow as pa
    from pyarrow import parquet

    other = {
        "text": pa.binary(), "committed_at": pa.int64(), "weight": pa.float64(),
        "num_bytes": pa.int64(),
    }  # fmt: skip
    names = ("id", *FIELDS, "num_bytes", "split")
    schema = pa.schema([(name, other.get(name, pa.string())) for name in names])
    repeated = ["repo", "language", "revision", "licence", "split"]
    with parquet.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=repeated
    ) as writer:  # fmt: skip
        for group in _row_groups(rows):
            columns = {name: [getattr(d, name) for d, _ in group] for name in ("id", *FIELDS)}
            columns["num_bytes"] = [len(d.text) for d, _ in group]
            columns["split"] = [side for _, side in group]
            writer.write_table(pa.table(columns, schema))


def _row_groups(rows: Iterable[tuple[Document, str]]) -> Iterator[list[tuple[Document, str]]]:
    group: list[tuple[Document, str]] = []
    num_bytes = 0
    for row in rows:
        group.append(row)
        num_bytes += len(row[0].text)
        if len(group) == _GROUP_ROWS or num_bytes >= _GROUP_BYTES:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _write_skipped(path: Path, skipped: Sequence[Skip]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.string()) for name in ("repo", "path", "reason")])
    schema = schema.append(pa.field("num_bytes", pa.int64()))
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, max(1, len(skipped)), _GROUP_ROWS):
            rows = [asdict(skip) for skip in skipped[start : start + _GROUP_ROWS]]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _judge(entries: Iterable[File | Skip], filters: Filters) -> Iterator[Document | Skip]:
    """Turn each entry into a document no rule objects to, or a skip."""
    for entry in entries:
        result = to_document(entry) if isinstance(entry, File) else entry
        reason = check_document(result, filters) if isinstance(result, Document) else None
        yield _skip(result, reason) if reason else result


def _skip(document: Document, reason: str) -> Skip:
    return Skip(repo=document.repo, path=document.path, reason=reason, num_bytes=len(document.text))


def _nothing_left(skipped: list[Skip]) -> str:
    if not skipped:
        return "corpus.sources: they hold no file; correct their paths"
    counts = Counter(skip.reason for skip in skipped)
    commonest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
    reasons = ", ".join(f"{reason} {count}" for reason, count in commonest)
    return (
        f"corpus: none of {len(skipped)} files is left ({reasons}); "
        "correct corpus.sources or loosen corpus.filters"
    )


def _source_state(source: Source, kept: Collection[str]) -> Any:
    key, path = source_key(source), source_path(source)
    if key == "git":
        return resolve_commit(path, source.ref).id
    if os.path.isdir(path):
        found = (f for f in walk_folder(source) if key != "folder" or _is_material(f, source, kept))
        return [(ascii(f.path), f.reason, f.num_bytes, f.mtime_ns) for f in found]
    if os.path.isfile(path):
        return sha256_file(path)
    if key == "dataset":
        return source.dataset
    raise FimError(
        f"{path}: no such {'folder' if key == 'folder' else 'file'}; correct corpus.sources"
    )


def _is_material(found: Found, source: Source, kept: Collection[str]) -> bool:
    """Whether a walked entry may become a document in one of the languages that are kept.

    What a shared extension means is left open.
    """
    path = clean_path(os.fsencode(found.path))
    if found.reason or not is_wanted(path, source):
        return False
    suffix = Path(path).suffix.lower()
    if suffix:
        is_shared = any(suffix in LANGUAGES[name].shared for name in kept)
        return is_shared or detect_language(path) in kept
    try:
        with open(source_path(source) / found.path, "rb") as file:
            return detect_language(path, file.read(HEAD_BYTES)) in kept
    except OSError:
        return False


def _read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=256, columns=list(columns)):
                yield from batch.to_pylist()
    except (ArrowException, OSError):
        raise FimError(f"{path}: missing or damaged; run 'sfim prepare' again") from None
