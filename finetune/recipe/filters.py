"""The part of a recipe that says which files are kept, and what of them."""

from collections.abc import Iterator
from dataclasses import dataclass

from fim import LANGUAGES
from finetune.recipe.checks import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Limits past which a file is dropped, each with its own reason, and changes to the others.

    Shares and rates go from 0 to 1 and say nothing of files below half a kilobyte.
    """

    preset: str = ""
    """`aixcoder`, `codegeex`, `opencoder` or `off` fills what is not given below."""
    min_bytes: int = 1
    """Smaller files are dropped as `too-small` (CodeGeeX, arXiv 2303.17568: 1,024)."""
    max_bytes: int = 1_048_576
    """Larger files are dropped as `too-large` (CodeGeeX: 102,400; OpenCoder, arXiv 2411.04905:
    8 MB)."""
    max_line_length: int = 1_000
    """Characters of the longest line, else `long-lines` (Codex, arXiv 2107.03374)."""
    max_mean_line_length: float = 100.0
    """Characters of the mean line, else `long-mean-line` (Codex, arXiv 2107.03374)."""
    min_letters: float = 0.2
    """Share of letters among the bytes, else `few-letters`; 0 is off (CodeGeeX: 0.4)."""
    max_data_rate: float = 0.5
    """Share of numbers, hexadecimal digits, escapes and base64 in long runs, else `encoded-data`;
    1 is off (StarCoder2, arXiv 2402.19173)."""
    max_table_rate: float = 0.9
    """Share of rows of literals, else `literal-table`; 1 is off."""
    max_literal_bytes: int = 65_536
    """Bytes of the longest text literal, else `long-literal`; 0 is off."""
    max_repeated_lines: float = 0.75
    """Share of lines that stand in the file before, digits aside, else `repeated-lines`; 1 is
    off."""
    max_repeated_ngrams: float = 0.75
    """Share of pieces of 48 bytes that stand in the file before, else `repeated-ngrams`; 1 is
    off."""
    max_ladder_rate: float = 0.25
    """`else if` per line, else `if-ladder`; 1 is off."""
    max_error_rate: float = 0.1
    """Share of bytes inside syntax errors, 0 to 1, else `syntax-errors`."""
    max_depth: int = 1_000
    """Syntax nodes inside each other; deeper files are dropped as `too-deep`."""
    generated: bool = True
    """Drop files whose name or head says a tool wrote them."""
    vendored: bool = True
    """Drop files under third-party folders, and third-party files of well-known names."""
    minified: bool = True
    """Drop JavaScript and CSS that was minified."""
    locks: bool = True
    """Drop lock files of package managers, as `lock-file`."""
    tests: bool = False
    """Drop tests, by their names, as `test`."""
    obsolete: bool = True
    """Drop Python 2, as `obsolete-syntax`."""
    only_comments: bool = True
    """Drop files without any code."""
    only_imports: bool = False
    """Drop files that only import, include or export again; they tell where others' names come
    from."""
    ruff: tuple[str, ...] = ()
    """Rules of ruff by code or prefix, `[F821, PLE]`: Python files that break them are dropped as
    `ruff`. Needs the extra `ruff`."""
    max_ruff: int = 0
    """Faults by these rules that a file may have."""
    licences_allowed: tuple[str, ...] = ()
    """SPDX ids, or patterns as `BSD-*`, of the licences that are kept; empty allows all."""
    licences_denied: tuple[str, ...] = ()
    """SPDX ids or patterns of licences whose files are dropped as `licence`, `[GPL-*, AGPL-*]`."""
    unknown_licences: bool = False
    """Drop files whose licence neither their head nor a licence file above them says."""
    licence_headers: bool = True
    """Take copyright and licence out of the comments at the head of a file."""
    commented_code_rate: float = 0.5
    """Share of the blocks of five and more lines of commented-out code that are taken out, 0 to 1
    (aiXcoder-7B takes out large ones at random)."""
    ruff_fix: bool = False
    """Apply the safe fixes of ruff's default rules to Python. Needs the extra `ruff`."""
    ruff_format: bool = False
    """Write Python in ruff's format. Needs the extra `ruff`."""
    languages: tuple[str, ...] = ()
    """Rows of `sfim languages` that are kept; empty for all but data and prose: JSON, Markdown and
    reStructuredText."""


def filter_faults(filters: Filters) -> Iterator[str]:
    """Yield what is wrong with the section, by key."""
    if filters.min_bytes > filters.max_bytes > 0:
        yield f"corpus.filters.min_bytes: {filters.min_bytes} is above max_bytes"
    for name in filters.languages:
        if name not in LANGUAGES:
            yield f"corpus.filters.languages: unknown language{did_you_mean(name, LANGUAGES)}"
    if not all(rule.isalnum() for rule in filters.ruff):
        yield "corpus.filters.ruff: expected codes or prefixes of rules, as F821 or PLE"
