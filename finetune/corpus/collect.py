"""Every entry of the sources, studied in worker processes or known from an earlier run."""

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from finetune.corpus.batches import cut
from finetune.corpus.cache import Cache, Damaged
from finetune.corpus.entries import File, Reason, Skip
from finetune.corpus.sources.read import read_source, unique_names
from finetune.corpus.steps import Entry
from finetune.corpus.study import Study, StudySettings, study_files
from finetune.corpus.workers import Limits, run_shards
from finetune.recipe.corpus import Corpus

_SHARD_FILES, _SHARD_BYTES = 64, 500_000
"""A shard ends at so many files, or files of so many bytes."""


def collect(
    corpus: Corpus, seed: int, cache: Cache, progress: Callable[[Iterable], Iterable]
) -> tuple[list[Entry], list[Skip]]:
    """Read every source, and study the files that are new to the cache.

    Args:
        corpus: the recipe's section with expanded sources.
        seed: of every choice.
        cache: gets what is found out, shard by shard.
        progress: wraps the stream of entries.

    Returns:
        All files in a fixed order, and what is none.

    Raises:
        FimError: a source cannot be read, or see `study_files`.
    """
    skipped: list[Skip] = []
    known: list[tuple[File, int]] = []

    def new_files() -> Iterator[File]:
        entries = _read_entries(corpus, lambda file: cache.find(file) is not None)
        for entry in progress(entries):
            if isinstance(entry, Skip):
                skipped.append(entry)
            elif (place := cache.find(entry)) is not None:
                known.append((replace(entry, data=b""), place))
            else:
                yield entry

    new = list(_study(corpus, seed, cache, new_files()))
    facts = {place: (study, num_bytes) for place, study, num_bytes in cache.facts()}
    if any(place not in facts for _, place in (*known, *new)):
        raise Damaged
    entries = [
        Entry(file=file, study=facts[place][0], place=place, num_bytes=facts[place][1])
        for file, place in (*known, *new)
    ]
    entries.sort(key=lambda e: (e.file.repo, e.file.path, e.study.id, e.file.content_id))
    return entries, skipped


def study_slice(corpus: Corpus, seed: int, cache: Cache, rank: int, world_size: int) -> int:
    """Study one of so many slices of the files; return how many were new to the cache.

    The files of a slice are known by repository and path, so each is in one, in any order.

    Raises:
        FimError: see `collect`.
    """

    def is_wanted(file: File) -> bool:
        name = f"{file.repo}\n{file.path}".encode()
        return zlib.crc32(name) % world_size == rank and not cache.is_known(file)

    entries = _read_entries(corpus, lambda file: not is_wanted(file))
    files = (entry for entry in entries if isinstance(entry, File) and is_wanted(entry))
    return sum(1 for _ in _study(corpus, seed, cache, files))


def _read_entries(corpus: Corpus, is_known: Callable[[File], bool]) -> Iterator[File | Skip]:
    names = unique_names(corpus.sources)
    for source, name in zip(corpus.sources, names, strict=True):
        times = corpus.split.by == "time"
        yield from read_source(source, name, corpus.filters.max_bytes, is_known, times)


def _study(
    corpus: Corpus, seed: int, cache: Cache, files: Iterable[File]
) -> Iterator[tuple[File, int]]:
    """Study files in worker processes; give each without its content, with its place.

    Files go through side by side. Where their process is lost, each goes again by itself.
    """
    study = partial(study_files, StudySettings.of(corpus, seed))
    limits = Limits(seconds=corpus.file_seconds, memory=corpus.file_memory)
    workers = corpus.workers or os.cpu_count() or 1
    waiting: deque[list[File]] = deque()

    def shards() -> Iterator[list[list[File]]]:
        for shard in cut(files, lambda file: len(file.data), _SHARD_FILES, _SHARD_BYTES):
            waiting.append(shard)
            yield [shard]

    for [outcome] in run_shards(study, shards(), limits, workers):
        shard = waiting.popleft()
        outcomes = [outcome]
        if isinstance(outcome, Reason) and len(shard) > 1:
            alone = run_shards(study, ([[file]] for file in shard), limits, workers)
            outcomes = [outcome for [outcome] in alone]
        studies = [study for outcome in outcomes for study in _studies(outcome)]
        known = [replace(file, data=b"") for file in shard]
        yield from zip(known, cache.add(zip(known, studies, strict=True)), strict=True)


def _studies(outcome: list[Study] | Reason) -> list[Study]:
    """Return the studies of a process, or the one that says why there is none."""
    if isinstance(outcome, Reason):
        return [Study(reason=outcome.name, detail=outcome.detail)]
    return outcome
