"""What is kept and why not: each rule gives a reason or None, and each reason is counted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from fim import Document, detect_language
from fim.languages import LANGUAGES
from finetune.corpus.entries import File, Reason, Skip
from finetune.corpus.parsing import parse_file
from finetune.corpus.rules.data import (
    encoded_data,
    if_ladder,
    letters,
    literal_table,
    repeated_lines,
    repeated_ngrams,
)
from finetune.corpus.rules.path import generated, lock_files, test_files, vendored
from finetune.corpus.rules.python_checks import ruff
from finetune.corpus.rules.text import lines, minified, size
from finetune.corpus.rules.tree import long_literal, nothing_new, obsolete, syntax
from finetune.recipe.filters import Filters

HEAD_BYTES = 1_024
"""First bytes of a file, of which a `#!` line is one."""
BINARY_BYTES = 8_192
"""git's own rule: a NUL among so many first bytes makes a file binary."""
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
LFS_MARK = b"version https://git-lfs.github.com/spec/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of `RULES`."""

    names: tuple[str, ...]
    """The reasons it gives."""
    check: Callable[[Document, Filters], Reason | None]
    source: str
    """Where it comes from."""


def to_document(file: File) -> Document | Skip:
    """Turn a file into a document if it is UTF-8 text in a known language; nothing is stripped."""
    language = ""
    reason = _unreadable_as_text(file)
    if reason is None:
        language = file.language or detect_language(file.path, file.data, parse_file) or ""
        if language not in LANGUAGES:
            reason = "unsupported-language"
    if reason is not None:
        return Skip(repo=file.repo, path=file.path, reason=reason, num_bytes=len(file.data))
    return Document(
        repo=file.repo,
        path=file.path,
        language=language,
        text=file.data,
        revision=file.revision,
        committed_at=file.committed_at,
        weight=file.weight,
    )


def _unreadable_as_text(file: File) -> str | None:
    if not file.data.strip():
        return "empty"
    if file.data.startswith(LFS_MARK) and len(file.data) < 1_024:
        return "lfs-pointer"
    if file.path.lower().endswith(".ipynb"):
        return "notebook"  # JSON, and its outputs hold private data
    if file.data.startswith(UTF_16_MARKS):
        return "not-utf-8"  # before the next rule: UTF-16 is full of NULs
    if b"\0" in file.data[:BINARY_BYTES]:
        return "binary"
    try:
        file.data.decode()
    except UnicodeDecodeError:
        return "not-utf-8"
    return None


@cache
def kept_languages(filters: Filters) -> frozenset[str]:
    """Return the rows of `LANGUAGES` whose files are kept."""
    usual = (name for name, row in LANGUAGES.items() if row.by_default)
    return frozenset(filters.languages or usual)


def other_language(document: Document, filters: Filters) -> Reason | None:
    """Drop files in a language that was not asked for."""
    if document.language in kept_languages(filters):
        return None
    return Reason(name="other-language", detail=document.language)


RULES: tuple[Rule, ...] = (
    Rule(names=("other-language",), check=other_language, source="the languages asked for"),
    Rule(names=("too-small", "too-large"), check=size, source="CodeGeeX, arXiv 2303.17568"),
    Rule(names=("vendored",), check=vendored, source="linguist, lib/linguist/vendor.yml"),
    Rule(names=("lock-file",), check=lock_files, source="linguist, lib/linguist/generated.rb"),
    Rule(names=("test",), check=test_files, source="the names test runners look for"),
    Rule(names=("generated",), check=generated, source="linguist, lib/linguist/generated.rb"),
    Rule(names=("minified",), check=minified, source="linguist, lib/linguist/generated.rb"),
    Rule(
        names=("long-lines", "long-mean-line"),
        check=lines,
        source="Codex, arXiv 2107.03374, section 3.1",
    ),
    Rule(names=("few-letters",), check=letters, source="CodeGeeX, arXiv 2303.17568"),
    Rule(
        names=("encoded-data",),
        check=encoded_data,
        source="StarCoder2, arXiv 2402.19173, section 3.1: half of a file",
    ),
    Rule(names=("literal-table",), check=literal_table, source="Abacus (Zhusuan) README"),
    Rule(
        names=("repeated-lines",),
        check=repeated_lines,
        source="Gopher, arXiv 2112.11446, table A1; the limit is ours, for code",
    ),
    Rule(
        names=("repeated-ngrams",),
        check=repeated_ngrams,
        source="Gopher, arXiv 2112.11446, table A1; the limit is ours, for code",
    ),
    Rule(names=("if-ladder",), check=if_ladder, source="Abacus (Zhusuan) README"),
    Rule(
        names=("parse-timeout", "syntax-errors", "too-deep"),
        check=syntax,
        source="aiXcoder-7B, arXiv 2410.13187",
    ),
    Rule(names=("obsolete-syntax",), check=obsolete, source="Abacus (Zhusuan) README"),
    Rule(
        names=("only-comments", "only-imports"),
        check=nothing_new,
        source="aiXcoder-7B, arXiv 2410.13187",
    ),
    Rule(names=("long-literal",), check=long_literal, source="Abacus (Zhusuan) README"),
    Rule(names=("ruff",), check=ruff, source="Abacus (Zhusuan) README"),
)
"""Cheapest first. `syntax` makes sure that those after it have a tree to look at."""


def check_document(document: Document, filters: Filters) -> Reason | None:
    """Return the reason of the first rule that objects, or None."""
    return next(filter(None, (rule.check(document, filters) for rule in RULES)), None)
