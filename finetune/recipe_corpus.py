"""The part of a recipe that says where the code comes from and what of it is kept."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from fim import LANGUAGES
from finetune.checks import did_you_mean

SOURCE_KINDS = ("git", "folder", "jsonl", "parquet", "dataset")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One place documents come from; exactly one of the first five keys is set."""

    git: str = ""
    """Path of a git repository (bare or not), read from its objects at `ref`."""
    folder: str = ""
    """Path of a plain folder; `{stdlib}` stands for the interpreter's standard library."""
    jsonl: str = ""
    """Path of a JSON Lines file."""
    parquet: str = ""
    """Path of a Parquet file."""
    dataset: str = ""
    """Name or folder that `datasets.load_dataset` accepts; its `train` split is read."""
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
    """Name in reports; empty for the last part of the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Limits past which a file is dropped, each with its own reason."""

    min_bytes: int = 1
    """Smaller files are dropped as `too-small`."""
    max_bytes: int = 1_048_576
    """Larger files are dropped as `too-large`."""
    max_line_length: int = 1_000
    """Characters of the longest line (Codex, arXiv 2107.03374)."""
    max_mean_line_length: float = 100.0
    """Characters of the mean line (Codex, arXiv 2107.03374)."""
    max_error_rate: float = 0.1
    """Share of bytes inside syntax errors, 0 to 1."""
    max_depth: int = 1_000
    """Syntax nodes inside each other; deeper files are dropped as `too-deep`."""
    generated: bool = True
    """Drop files whose head says a tool wrote them."""
    vendored: bool = True
    """Drop files under third-party folders."""
    languages: tuple[str, ...] = ()
    """Rows of `sfim languages` that are kept; empty for all but data and prose: JSON, Markdown and
    reStructuredText."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How documents are held out for evaluation."""

    by: str = "file"
    """Unit that is held out: `file`; copies of one file always land on one side."""
    eval_rate: float = 0.05
    """Share of files held out, 0 to 0.5."""
    min_files: int = 1
    """At least so many files are held out, if the corpus has twice as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Where the code comes from and what is kept."""

    sources: tuple[Source, ...] = ()
    """At least one."""
    filters: Filters = field(default_factory=Filters)
    split: Split = field(default_factory=Split)
    max_documents: int = 0
    """Keep a seeded choice of so many training documents; 0 keeps all."""
    workers: int = 0
    """Processes for sampling and encoding; 0 takes the number of cores."""


def corpus_faults(corpus: Corpus) -> Iterator[str]:
    filters = corpus.filters
    if filters.min_bytes > filters.max_bytes > 0:
        yield f"corpus.filters.min_bytes: {filters.min_bytes} is above max_bytes"
    for name in filters.languages:
        if name not in LANGUAGES:
            yield f"corpus.filters.languages: unknown language{did_you_mean(name, LANGUAGES)}"
    if not corpus.sources:
        yield "corpus.sources: at least one source is needed"
    for number, source in enumerate(corpus.sources):
        yield from _source_faults(source, f"corpus.sources[{number}]")


def _source_faults(source: Source, where: str) -> Iterator[str]:
    kinds = [kind for kind in SOURCE_KINDS if getattr(source, kind)]
    if len(kinds) != 1:
        yield f"{where}: set exactly one of {', '.join(SOURCE_KINDS)}"
    if source.language and source.language not in LANGUAGES:
        yield f"{where}.language: unknown language{did_you_mean(source.language, LANGUAGES)}"
    elif source.language and kinds in (["git"], ["folder"]):
        yield f"{where}.language: leave it out; the paths of a {kinds[0]} source decide it"
