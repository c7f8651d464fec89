"""The corpus: every entry of every source, either a document on one side or skipped and counted."""

import gc
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fim import Document, FimError
from finetune.corpus.cache import Cache, Damaged, delete_cache, mend_cache, open_cache, read_pickle
from finetune.corpus.collect import collect
from finetune.corpus.copies.dedup import Record
from finetune.corpus.entries import Skip
from finetune.corpus.filters import kept_languages
from finetune.corpus.funnel import make_funnel
from finetune.corpus.outputs import FIELDS, write_documents, write_rows
from finetune.corpus.sources.clones import strip_credentials
from finetune.corpus.sources.git import resolve_commit
from finetune.corpus.sources.read import expand_sources, source_path, source_state
from finetune.corpus.steps import STEPS, Building
from finetune.corpus.study import StudySettings, file_digits
from finetune.progress import warn
from finetune.recipe.corpus import Corpus
from finetune.store import fingerprint, read_json, write_json

DOCUMENTS, SKIPPED, COUNTS = "documents.parquet", "skipped.parquet", "counts.json"
CLUSTERS, FINDINGS = "clusters.parquet", "findings.parquet"


def write_corpus(
    folder: Path,
    corpus: Corpus,
    seed: int,
    cache: Path | None = None,
    versions: Mapping[str, str] | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> None:
    """Read, filter, redact, deduplicate, split and order the sources of a recipe.

    Writes `documents.parquet` in the order of (repo, position), `skipped.parquet`,
    `clusters.parquet`, `findings.parquet` and `counts.json`. Equal sources give equal bytes, for
    any number of workers and after any kill. Texts wait in the cache: memory holds about ten
    kilobytes per file.

    Args:
        folder: where the files go.
        corpus: the recipe's section with sources as `expand_sources` returns them.
        seed: of every choice.
        cache: folder of what is known of files from earlier runs; None keeps nothing.
        versions: of the libraries whose work is kept there.
        progress: wraps the stream of entries, as `tqdm` does.

    Raises:
        FimError: a source cannot be read, or no document is left.
    """
    if cache is None:
        with tempfile.TemporaryDirectory(prefix=".cache-", dir=folder) as place:
            return write_corpus(folder, corpus, seed, Path(place), versions, progress)
    made_with = StudySettings.of(corpus, seed).digits(versions or {})
    for repair in (mend_cache, delete_cache, delete_cache):
        try:
            with open_cache(cache, made_with) as opened, _rare_collections():
                return _write(folder, corpus, seed, opened, progress)
        except Damaged:
            warn(f"{cache}: damaged; files whose studies are not whole are studied again")
            repair(cache)
    raise FimError(f"{cache}: damaged as soon as it is written; check the disk")


def _write(
    folder: Path, corpus: Corpus, seed: int, cache: Cache, progress: Callable[[Iterable], Iterable]
) -> None:
    entries, skipped = collect(corpus, seed, cache, progress)
    building = Building(corpus=corpus, seed=seed, entries=entries, skipped=skipped)
    for step in STEPS:
        step(building)
    if not building.train and not building.held_out:
        cache.keep(())  # the filters will change, and with them every study
        raise FimError(_nothing_left(building.skipped))
    ordered = _order(building, cache)
    _write_documents(folder / DOCUMENTS, building, ordered, cache)
    _write_tables(folder, building)
    write_json(folder / COUNTS, _count(building))
    cache.keep({entry.place for entry in entries})


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let Python look for garbage rarely: millions of values are held, and a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _order(building: Building, cache: Cache) -> list[Record]:
    """Put the documents of both sides in the order of their repositories."""
    repos: dict[str, list[Record]] = {}
    for record in sorted((*building.train, *building.held_out), key=lambda r: r.order):
        repos.setdefault(record.repo, []).append(record)
    ordered: list[Record] = []
    quality: Counter[str] = Counter()
    for records in repos.values():
        positions, counts = _order_repository(building, records, cache)
        ordered += [records[position] for position in positions]
        quality.update(counts)
    building.counts["order"] = dict(quality)
    return ordered


def _order_repository(
    building: Building, records: list[Record], cache: Cache
) -> tuple[list[int], dict[str, int]]:
    """Order the documents of one repository, unless nothing that decides it has changed."""
    order, seed = building.corpus.order, building.seed
    places = [building.entries[record.place].place for record in records]
    found = cache.links(places)
    links = [found[place] for place in places]

    def make() -> tuple[list[int], dict[str, int]]:
        from finetune.corpus.links.order import (  # networkx: a third second
            OrderFile,
            order_repository,
        )

        files = [
            OrderFile(path=record.path, language=record.language, links=read_pickle(data))
            for record, data in zip(records, links, strict=True)
        ]
        ordering = order_repository(files, order, seed, cache.remember)
        quality = ordering.quality
        return ordering.positions, {**asdict(quality), "external": quality.external}

    names = (f"{record.path}\n{record.language}".encode() for record in records)
    return cache.remember((repr((order, seed)).encode(), *names, *links), make)


def _write_documents(
    path: Path, building: Building, ordered: Sequence[Record], cache: Cache
) -> None:
    held_out = {record.place for record in building.held_out}
    entries = [building.entries[record.place] for record in ordered]
    texts = cache.texts(entry.place for entry in entries)

    def rows() -> Iterator[tuple[Document, str]]:
        for record, entry, text in zip(ordered, entries, texts, strict=True):
            document = Document(
                repo=record.repo, path=record.path, language=record.language, text=text,
                revision=entry.file.revision, committed_at=entry.file.committed_at,
                licence=building.licences[record.repo, record.path], weight=entry.file.weight,
            )  # fmt: skip
            if document.id != record.id:
                raise Damaged
            yield document, "eval" if record.place in held_out else "train"

    write_documents(path, rows())


def _write_tables(folder: Path, building: Building) -> None:
    skipped = sorted(
        map(asdict, building.skipped),
        key=lambda s: (s["repo"], s["path"], s["reason"], s["num_bytes"], s["detail"]),
    )
    write_rows(folder / SKIPPED, ("repo", "path", "reason", "num_bytes", "detail"), skipped)
    clusters = list(map(asdict, building.clusters))
    write_rows(folder / CLUSTERS, ("cluster", "repo", "path", "similarity", "is_kept"), clusters)
    findings = [
        {"repo": e.file.repo, "path": e.file.path, "kind": kind, "number": number}
        for e in building.entries
        for kind, number in sorted(Counter(e.study.findings).items())
    ]
    write_rows(folder / FINDINGS, ("repo", "path", "kind", "number"), findings)


def _count(building: Building) -> dict[str, Any]:
    """Return what `counts.json` holds."""
    kept = [*building.train, *building.held_out]
    replay = [record for record in building.train if record.is_replay]
    train_bytes, replay_bytes = (sum(map(building.num_bytes, r)) for r in (building.train, replay))
    found = Counter(kind for entry in building.entries for kind in entry.study.findings)
    licences = Counter(building.licences[r.repo, r.path] or "unknown" for r in kept)
    return {
        "documents": {
            "kept": len(kept),
            "skipped": _sorted(Counter(skip.reason for skip in building.skipped)),
        },
        "languages": _sorted(Counter(record.language for record in kept)),
        "bytes": sum(map(building.num_bytes, kept)),
        "held_out": {"documents": len(building.held_out)},
        "funnel": make_funnel([record.num_bytes for record in kept], building.skipped),
        "secrets": _sorted(found),
        "licences": _sorted(licences),
        "benchmarks": _sorted(
            Counter(s.detail for s in building.skipped if s.reason == "benchmark")
        ),
        "replay": {
            "documents": len(replay),
            "bytes": replay_bytes,
            "share": round(replay_bytes / max(1, train_bytes), 4),
        },
        "projects": [],
        **building.counts,
    }


def _sorted(counts: Counter[str]) -> dict[str, int]:
    """The commonest first, whatever the order they were counted in."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def corpus_fingerprint(corpus: Corpus, expanded: Corpus) -> str:
    """Return digits that change when the section, a commit, or any file of a source changes.

    Commits stand for git sources, whatever `ref` leads to them; size and time for those files of a
    folder that can become documents; sha256 for single files. A dataset of the hub is known by its
    name only.

    Args:
        corpus: the recipe's section.
        expanded: with its sources as `expand_sources` returns them.

    Raises:
        FimError: a source does not exist.
    """
    kept = kept_languages(corpus.filters)
    states = [(source.name, source_state(source, kept)) for source in expanded.sources]
    files = [*corpus.benchmarks, *filter(None, [corpus.drop_list])]
    return fingerprint(asdict(without_refs(corpus)), states, [file_digits(path) for path in files])


def without_refs(corpus: Corpus) -> Corpus:
    """Return the section with every `ref` at its default, and URLs without user and password.

    Two ways to say it are equal then.
    """
    sources = (replace(s, ref="HEAD", git=strip_credentials(s.git)) for s in corpus.sources)
    return replace(corpus, sources=tuple(sources))


def source_commits(corpus: Corpus, cache: Path) -> dict[str, str]:
    """Return the commit of each git source now, by the recipe's key that pins it.

    Those of a glob have their name behind the key.

    Raises:
        FimError: a repository or its `ref` does not exist.
    """
    commits = {}
    for number, source in enumerate(corpus.sources):
        places = expand_sources((source,), cache, fetch=False) if source.git else ()
        for place in places:
            key = f"corpus.sources.{number}.ref" + (f" ({place.name})" if len(places) > 1 else "")
            commits[key] = resolve_commit(source_path(place), place.ref).id
    return commits


def read_documents(
    folder: Path, side: str, ids: Collection[str] | None = None
) -> Iterator[Document]:
    """Read documents that `write_corpus` wrote, in the order of the file, a few at a time.

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
        FimError: the file is missing or damaged.
    """
    return read_json(folder / COUNTS)


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


def _read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=256, columns=list(columns)):
                yield from batch.to_pylist()
    except (ArrowException, OSError):
        raise FimError(f"{path}: missing or damaged; run 'sfim prepare' again") from None
