"""The part of a recipe that says where the code comes from and what of it is kept."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

from fim import LANGUAGES
from finetune.recipe.checks import did_you_mean
from finetune.recipe.filters import Filters, filter_faults

SOURCE_KINDS = ("git", "folder", "jsonl", "parquet", "dataset")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One place documents come from; exactly one of the first five keys is set."""

    git: str = ""
    """Path, glob or URL of git repositories (bare or not), read from their objects at `ref`. What a
    URL names is cloned into the run's cache, with git's own credentials."""
    folder: str = ""
    """Path or glob of plain folders; `{stdlib}` stands for the interpreter's standard library."""
    jsonl: str = ""
    """Path or glob of JSON Lines files; `.gz`, `.zst` and `.bz2` are unpacked."""
    parquet: str = ""
    """Path or glob of Parquet files."""
    dataset: str = ""
    """Name or folder that `datasets.load_dataset` accepts, or `name:configuration:split`; the
    `train` split is read if none is named."""
    ref: str = "HEAD"
    """Commit, branch or tag of a git source."""
    column: str = "text"
    """Column that holds the code, for `jsonl`, `parquet` and `dataset`."""
    path_column: str = "path"
    """Column of the file path, which decides the language; may be absent with `language`."""
    language: str = ""
    """Row of `sfim languages` for table rows without a path; not for `git` and `folder`."""
    include: tuple[str, ...] = ()
    """Glob patterns on the path; empty takes all. `**` crosses folders."""
    exclude: tuple[str, ...] = ()
    """Glob patterns on the path that drop a file, counted as `excluded`."""
    name: str = ""
    """Name in reports; empty for the last part of the path, before which it comes where a glob
    matches."""
    weight: float = 1.0
    """Share of its documents that are kept, above 0 to 1: less for what there is too much of. Of
    two copies the one of the weightier source stays."""
    stars: int = 0
    """Stars of the project, for `corpus.drop_projects`; 0 if unknown."""
    replay: bool = False
    """Whether it is general text or code, mixed in at `corpus.replay_rate` so that the model does
    not forget it; never held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How documents are held out for evaluation."""

    by: str = "file"
    """Unit that is held out: `file`; `repo`, never more than half of the files; or `time`: the
    files that a commit changed on or after `after`. Copies and near copies of one file never land
    on both sides."""
    after: str = ""
    """Day from which on commits are evaluation, as `2026-01-31` in UTC; for `by: time`."""
    eval_rate: float = 0.05
    """Share of files, or of repositories, held out, 0 to 0.5; for `by: time` any but 0 is all."""
    min_files: int = 1
    """At least so many files are held out, if the corpus has twice as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What happens to keys, passwords and personal data in the code."""

    secrets: str = "redact"
    """Keys, tokens, passwords, connection strings: `redact` puts placeholders in their place,
    `drop` drops the file, `keep` looks for none."""
    personal: str = "redact"
    """E-mail and IP addresses, internal URLs, names of authors: `redact`, `drop` or `keep`."""
    internal_domains: tuple[str, ...] = ()
    """Domains whose URLs and hosts are internal, `corp.example` with all below it; `.internal`,
    `.local`, `.corp`, `.lan` and `.intranet` always are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dedup:
    """Which files count as copies of one."""

    exact: bool = True
    """Drop files that differ from another in line ends and trailing blanks only."""
    near: bool = True
    """Drop files that share most of their words, or all but their names, with another."""
    threshold: float = 0.7
    """Jaccard similarity from which on two files are near copies, 0.5 to 1 (StarCoder: 0.7)."""
    keep: str = "weightiest"
    """Which copy stays: of the `weightiest` source, then the newest; or the `newest` first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """In which order the files of a repository come: it makes the repository context."""

    by: str = "imports"
    """`imports` puts a file after those it needs, and similar files side by side where there are
    no imports; `path` sorts by path."""
    shuffle_rate: float = 0.1
    """Share of the files without imports that come at a random place, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Where the code comes from and what is kept."""

    sources: tuple[Source, ...] = ()
    """At least one."""
    filters: Filters = field(default_factory=Filters)
    secrets: Secrets = field(default_factory=Secrets)
    dedup: Dedup = field(default_factory=Dedup)
    order: Order = field(default_factory=Order)
    split: Split = field(default_factory=Split)
    language_weights: dict[str, float] = field(default_factory=dict)
    """Share of the documents of a language that are kept, 0 to 1; all of those not named."""
    replay_rate: float = 0.2
    """Share of the training bytes that come from sources with `replay: true`, 0 to 0.9."""
    drop_projects: float = 0.0
    """Share of the git sources that are dropped, the lowest by commits, contributors, tests, age
    and stars, 0 to 0.9 (aiXcoder-7B: 0.1)."""
    drop_list: str = ""
    """Parquet or JSON Lines file with columns `repo`, `path` and `reason`: files to drop, as
    `sfim outliers` writes."""
    benchmarks: tuple[str, ...] = ()
    """JSON Lines files, `.gz` too, of evaluation sets; what holds a task of one is dropped."""
    max_documents: int = 0
    """Keep a seeded choice of so many training documents; 0 keeps all."""
    workers: int = 0
    """Processes for reading, sampling and encoding; 0 takes the number of cores."""
    file_seconds: float = 20.0
    """Processor seconds a file may take before its process is killed and the file dropped."""
    file_memory: int = 2_147_483_648
    """Bytes of memory that a worker process may use for a file; one that needs more is dropped."""


def corpus_faults(corpus: Corpus) -> Iterator[str]:
    yield from filter_faults(corpus.filters)
    if not corpus.sources:
        yield "corpus.sources: at least one source is needed"
    for name, share in corpus.language_weights.items():
        if name not in LANGUAGES:
            yield f"corpus.language_weights: unknown language{did_you_mean(name, LANGUAGES)}"
        if not 0 <= share <= 1:
            yield f"corpus.language_weights.{name}: expected 0 to 1, got {share}"
    yield from _split_faults(corpus.split)
    for number, source in enumerate(corpus.sources):
        yield from _source_faults(source, f"corpus.sources[{number}]")


def _split_faults(split: Split) -> Iterator[str]:
    try:
        day = date.fromisoformat(split.after) if split.after else None
    except ValueError:
        yield f"corpus.split.after: expected a day as 2026-01-31, got {split.after!r}"
        return
    if (split.by == "time") != bool(day):
        yield "corpus.split.after: needed for 'by: time', and only there"


def _source_faults(source: Source, where: str) -> Iterator[str]:
    kinds = [kind for kind in SOURCE_KINDS if getattr(source, kind)]
    if not 0 < source.weight <= 1:
        yield f"{where}.weight: expected above 0 to 1, got {source.weight}"
    if source.stars < 0:
        yield f"{where}.stars: expected 0 or more, got {source.stars}"
    if len(kinds) != 1:
        yield f"{where}: set exactly one of {', '.join(SOURCE_KINDS)}"
    if source.language and source.language not in LANGUAGES:
        yield f"{where}.language: unknown language{did_you_mean(source.language, LANGUAGES)}"
    elif source.language and kinds in (["git"], ["folder"]):
        yield f"{where}.language: leave it out; the paths of a {kinds[0]} source decide it"
