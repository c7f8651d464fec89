"""What is decided with the whole corpus in view, step by step, without holding a text."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fim import FimError
from finetune.corpus.copies.benchmarks import Benchmarks, find_near_tasks
from finetune.corpus.copies.dedup import Copy, Record, find_duplicates, skip_record
from finetune.corpus.entries import File, Skip
from finetune.corpus.licences import check_licence, licences_of
from finetune.corpus.sources.git import resolve_commit
from finetune.corpus.sources.projects import project_facts, rank_projects
from finetune.corpus.sources.read import source_path, unique_names
from finetune.corpus.split import choose_records, split_records
from finetune.corpus.study import Study
from finetune.corpus.weights import choose_replay, thin_out
from finetune.recipe.corpus import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a source, without its content, and what was found out about it."""

    file: File
    study: Study
    """Without text and links."""
    place: int
    """Where in the cache text and links are."""
    num_bytes: int
    """Of the text, cleaned and redacted."""


@dataclass(slots=True, kw_only=True)
class Building:
    """A corpus while the steps go over it: what is left, what is not, and what was counted."""

    corpus: Corpus
    """With expanded sources."""
    seed: int
    entries: list[Entry]
    """All files, sorted; a record's `place` is an index here."""
    skipped: list[Skip]
    train: list[Record] = field(default_factory=list)
    """What is left; of what is trained on, once it is split."""
    held_out: list[Record] = field(default_factory=list)
    licences: dict[tuple[str, str], str] = field(default_factory=dict)
    """By repository and path."""
    clusters: list[Copy] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)
    """Sections of `counts.json`."""

    def num_bytes(self, record: Record) -> int:
        """Return the bytes of a record's text."""
        return self.entries[record.place].num_bytes

    def drop(self, reason_of: Callable[[Record], tuple[str, str] | None]) -> None:
        """Leave out the records that a reason and its detail are found for."""
        reasons = [reason_of(record) for record in self.train]
        pairs = list(zip(self.train, reasons, strict=True))
        self.skipped += [skip_record(record, *reason) for record, reason in pairs if reason]
        self.train = [record for record, reason in pairs if reason is None]


def take_studies(building: Building) -> None:
    """Take the files no rule objected to; a text that one path has twice is one document."""
    seen: set[str] = set()
    for number, entry in enumerate(building.entries):
        file, study = entry.file, entry.study
        record = Record(
            repo=file.repo, path=file.path, id=study.id, key=study.key, num_bytes=file.num_bytes,
            place=number, language=study.language, signature=study.signature, weight=file.weight,
            committed_at=file.committed_at, is_replay=file.is_replay,
        )  # fmt: skip
        if study.reason:
            building.skipped.append(skip_record(record, study.reason, study.detail))
        elif study.id in seen:
            building.skipped.append(skip_record(record, "duplicate", "of itself"))
        else:
            seen.add(study.id)
            building.train.append(record)


def drop_licences(building: Building) -> None:
    """Leave out files whose own licence, or that of the licence file above them, is not wanted."""
    stated = [(e.file.repo, e.file.path, e.study.licence) for e in building.entries]
    building.licences = licences = licences_of(stated)

    def judge(record: Record) -> tuple[str, str] | None:
        reason = check_licence(licences[record.repo, record.path], building.corpus.filters)
        return (reason.name, reason.detail) if reason else None

    building.drop(judge)


def drop_listed(building: Building) -> None:
    """Leave out what `corpus.drop_list` names."""
    path = building.corpus.drop_list
    listed = read_drop_list(Path(path)) if path else {}

    def judge(record: Record) -> tuple[str, str] | None:
        detail = listed.get((record.repo, record.path))
        return None if detail is None else ("drop-list", detail)

    building.drop(judge)


def drop_projects(building: Building) -> None:
    """Rank the git sources, and leave out the lowest; one alone has no rank."""
    sources = building.corpus.sources
    gits = {
        name: source
        for name, source in zip(unique_names(sources), sources, strict=True)
        if source.git and not source.replay
    }
    if len(gits) < 2:
        return
    paths: dict[str, list[str]] = defaultdict(list)
    for entry in building.entries:
        paths[entry.file.repo].append(entry.file.path)
    facts = {
        name: project_facts(
            folder := source_path(source), resolve_commit(folder, source.ref).id, paths[name],
            source.stars,
        )
        for name, source in gits.items()
    }  # fmt: skip
    scores, dropped = rank_projects(facts, building.corpus.drop_projects)
    building.counts["projects"] = [
        {"repo": name, "score": score, **asdict(facts[name]), "is_kept": name not in dropped}
        for name, score in scores.items()
    ]
    building.drop(
        lambda r: ("low-project", f"score {scores[r.repo]:.3f}") if r.repo in dropped else None
    )


def drop_tasks(building: Building) -> None:
    """Leave out near copies of benchmark tasks, whatever their names; see `Benchmarks.find`."""
    paths = building.corpus.benchmarks
    if not paths:
        return
    near = find_near_tasks(building.train, Benchmarks.load(paths))
    found = {building.train[number].place: name for number, name in near.items()}
    building.drop(lambda r: ("benchmark", found[r.place]) if r.place in found else None)


def drop_copies(building: Building) -> None:
    """Leave out exact and near copies."""
    found = find_duplicates(building.train, building.corpus.dedup)
    sizes = Counter(copy.cluster for copy in found.clusters)
    reasons = Counter(skip.reason for skip in found.skipped)
    building.train = found.kept
    building.skipped += found.skipped
    building.clusters = found.clusters
    building.counts["duplicates"] = {
        "exact": reasons["duplicate"], "near": reasons["near-duplicate"], "clusters": len(sizes),
        "largest": max(sizes.values(), default=0),
    }  # fmt: skip


def apply_weights(building: Building) -> None:
    """Leave out what sources and languages have too much of."""
    weights = building.corpus.language_weights
    building.train, skipped = thin_out(building.train, weights, building.seed)
    building.skipped += skipped


def hold_out(building: Building) -> None:
    """Hold out what is evaluated."""
    corpus = building.corpus
    sides = split_records(building.train, corpus.split, building.seed, corpus.dedup.threshold)
    building.train, building.held_out = sides.train, sides.held_out
    building.skipped += sides.skipped


def mix_replay(building: Building) -> None:
    """Keep as many bytes of replay sources as are asked for."""
    building.train, skipped = choose_replay(
        building.train, building.corpus.replay_rate, building.seed, building.num_bytes
    )
    building.skipped += skipped


def choose_documents(building: Building) -> None:
    """Keep `corpus.max_documents` of the training documents."""
    most = building.corpus.max_documents
    if most:
        building.train, others = choose_records(building.train, most, building.seed)
        building.skipped += [skip_record(record, "not-chosen") for record in others]


STEPS: Sequence[Callable[[Building], None]] = (
    take_studies,
    drop_licences,
    drop_listed,
    drop_projects,
    drop_tasks,
    drop_copies,
    apply_weights,
    hold_out,
    mix_replay,
    choose_documents,
)
"""In this order; what one leaves out, the next does not see."""


def read_drop_list(path: Path) -> dict[tuple[str, str], str]:
    """Return the reasons of a drop list, by repository and path.

    Raises:
        FimError: the file is missing, or a row has no `repo` and `path`.
    """
    from pyarrow import ArrowException, parquet

    try:
        if path.suffix == ".parquet":
            rows = parquet.read_table(path).to_pylist()
        else:
            lines = path.read_bytes().splitlines()
            rows = [json.loads(line) for line in lines if line.strip()]
        return {(row["repo"], row["path"]): str(row.get("reason") or "") for row in rows}
    except (OSError, ArrowException) as error:
        why = getattr(error, "strerror", None) or "not a whole Parquet file"
        raise FimError(f"{path}: {why}; correct corpus.drop_list") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FimError(
            f"{path}: expected rows with 'repo' and 'path'; correct corpus.drop_list"
        ) from None
