"""Rules that find data, tables and repetition written as code; each looks at bytes, not at a tree.

Where a file is judged by what share of it something is, blanks do not count.
"""

from functools import lru_cache

import numpy as np

from fim import Document
from fim.languages import LANGUAGES
from finetune.corpus.entries import Reason
from finetune.recipe.filters import Filters

_FEWEST_BYTES = 512
"""Shares of shorter files say nothing."""
_BLANKS = b" \t\r\n\f\v"
_DIGITS = b"0123456789"
_LOWER, _UPPER = bytes(range(97, 123)), bytes(range(65, 91))
_LETTERS = _LOWER + _UPPER + bytes(range(128, 256))
"""Letters of ASCII, and every byte of the others: CJK and Cyrillic are letters, too."""


def _marks(kept: bytes) -> bytes:
    """Make a table for `bytes.translate`: 1 for these bytes, 0 for others."""
    return bytes(byte in kept for byte in range(256))


def _is_judged(document: Document) -> bool:
    """Whether shares say anything of a document: of prose and of a few lines they do not."""
    return LANGUAGES[document.language].is_code and len(document.text) >= _FEWEST_BYTES


def _reason(name: str, what: str, share: float, limit: float) -> Reason | None:
    if share <= limit:
        return None
    return Reason(name=name, detail=f"{what} {share:.0%} > {limit:.0%}")


@lru_cache(maxsize=1)  # rules ask for it in turn
def _without_blanks(text: bytes) -> tuple[bytes, bytes]:
    """The text without blanks, and without blanks and digits."""
    solid = text.translate(None, _BLANKS)
    return solid, solid.translate(None, _DIGITS)


@lru_cache(maxsize=1)
def _rows(text: bytes) -> list[bytes]:
    """The lines without digits."""
    return text.translate(None, _DIGITS).split(b"\n")


def letters(document: Document, filters: Filters) -> Reason | None:
    """Drop files of figures and marks, whose letters are few."""
    if not filters.min_letters or not _is_judged(document):
        return None
    text = document.text
    share = (len(text) - len(text.translate(None, _LETTERS))) / len(text)
    if share >= filters.min_letters:
        return None
    return Reason(name="few-letters", detail=f"letters {share:.0%} < {filters.min_letters:.0%}")


_SHORTEST_RUN = 64
_NUMBERS = _marks(_DIGITS + b"abcdefABCDEFxXuUlL.,+-[](){}'\"\\;:" + _BLANKS)
"""Bytes of tables of numbers and of escapes, `0xFFul`, `1.5e-3f`, `\\x00\\u1234`."""
_DIGIT_RATE = 0.25
_BASE64 = _marks(_DIGITS + _LOWER + _UPPER + b"+/=")
_BASE64_RATES = ((_DIGITS, 0.04), (_LOWER, 0.15), (_UPPER, 0.15))
"""Less than base64 has of each, more than words in any case have."""


def encoded_data(document: Document, filters: Filters) -> Reason | None:
    """Drop files that are mostly numbers, hexadecimal digits, escapes or base64.

    Runs of 64 bytes and more count: those without any letter but those in numbers, if a
    quarter are digits, and those that look like base64 and not like a long name.
    """
    limit = filters.max_data_rate
    if limit >= 1 or not _is_judged(document):
        return None
    text = document.text
    solid, without_digits = _without_blanks(text)
    size, digits = 0, len(solid) - len(without_digits)
    if digits > limit * _DIGIT_RATE * len(solid) / 2:
        runs = (part.translate(None, _BLANKS) for part in _runs(text, _NUMBERS))
        size += sum(len(run) for run in runs if _has(run, _DIGITS, _DIGIT_RATE))
    if b"\1" * _SHORTEST_RUN in text.translate(_BASE64):
        size += sum(len(run) for run in _runs(text, _BASE64) if _is_base64(run))
    share = min(1.0, size / max(1, len(solid)))
    return _reason("encoded-data", "numbers and encoded data", share, limit)


def _runs(text: bytes, marks: bytes) -> list[bytes]:
    """Return the runs of marked bytes, of some length at least."""
    flags = np.frombuffer(b"\0" + text.translate(marks) + b"\0", np.int8)
    edges = np.flatnonzero(flags[1:] != flags[:-1])
    starts, ends = edges[::2], edges[1::2]
    long = ends - starts >= _SHORTEST_RUN
    places = zip(starts[long].tolist(), ends[long].tolist(), strict=True)
    return [text[start:end] for start, end in places]


def _has(run: bytes, kind: bytes, rate: float) -> bool:
    return len(run) - len(run.translate(None, kind)) >= rate * len(run)


def _is_base64(run: bytes) -> bool:
    is_hexadecimal = _has(run, _DIGITS, _DIGIT_RATE) and not run.translate(_NUMBERS).count(0)
    return not is_hexadecimal and all(_has(run, kind, rate) for kind, rate in _BASE64_RATES)


_TABLE_STARTS = frozenset(b"'\"-[({.,")
_TABLE_ENDS = frozenset(b",'\"])}")
_TABLE_GLANCE = 64


def literal_table(document: Document, filters: Filters) -> Reason | None:
    """Drop files that are one table of literals: lines that start and end as rows of one do."""
    limit = filters.max_table_rate
    is_data = "function" not in LANGUAGES[document.language].constructs
    if limit >= 1 or is_data or not _is_judged(document):
        return None
    rows = _rows(document.text)
    if (
        len(rows) > 4 * _TABLE_GLANCE
        and _table_rate(rows[:: len(rows) // _TABLE_GLANCE]) < limit / 2
    ):
        return None
    return _reason("literal-table", "rows of a table", _table_rate(rows), limit)


def _table_rate(rows: list[bytes]) -> float:
    rows = [row for line in rows if (row := line.strip())]
    size = sum(len(row) for row in rows if row[0] in _TABLE_STARTS and row[-1] in _TABLE_ENDS)
    return size / max(1, sum(map(len, rows)))


_FEWEST_LINES = 100
_GRAM = 48
_FEWEST_GRAMS = 200
_GRAM_STARTS = _marks(b"({[")
_GLANCE = 0.4
"""Share of a file's lines or pieces that is looked at first: it tells most files."""


def repeated_lines(document: Document, filters: Filters) -> Reason | None:
    """Drop files whose lines mostly stand in them before; digits do not tell lines apart."""
    if filters.max_repeated_lines >= 1 or not _is_judged(document):
        return None
    rows = _rows(document.text)
    if len(rows) < _FEWEST_LINES:
        return None
    solid, without_digits = _without_blanks(document.text)
    size = len(document.text) - (len(solid) - len(without_digits)) - (len(rows) - 1)
    for seen in (rows[: int(_GLANCE * len(rows))], rows):
        share = 1 - sum(map(len, set(seen))) / max(1, size)
        if share <= filters.max_repeated_lines:
            return None
    return _reason("repeated-lines", "repeated lines", share, filters.max_repeated_lines)


def repeated_ngrams(document: Document, filters: Filters) -> Reason | None:
    """Drop files whose pieces of 48 bytes mostly stand in them before.

    The pieces start at opening brackets; blanks and digits are left out.
    """
    if filters.max_repeated_ngrams >= 1 or not _is_judged(document):
        return None
    _, text = _without_blanks(document.text)
    marks = text.translate(_GRAM_STARTS)
    if marks.count(1) < _FEWEST_GRAMS:
        return None
    starts = np.flatnonzero(np.frombuffer(marks, np.int8)).tolist()
    for seen in (starts[: int(_GLANCE * len(starts))], starts):
        share = 1 - len({text[start : start + _GRAM] for start in seen}) / len(starts)
        if share <= filters.max_repeated_ngrams:
            return None
    return _reason("repeated-ngrams", "repeated pieces", share, filters.max_repeated_ngrams)


_RUNGS = (b"else if", b"elif ", b"elsif ", b"elseif")
_FEWEST_RUNGS = 16


def if_ladder(document: Document, filters: Filters) -> Reason | None:
    """Drop files that are ladders of `else if`, which tables would say better."""
    text, limit = document.text, filters.max_ladder_rate
    if limit >= 1 or not _is_judged(document):
        return None
    num_lines = text.count(b"\n") + 1
    if text.count(b"if") <= max(_FEWEST_RUNGS, limit * num_lines):
        return None
    num_rungs = sum(map(text.count, _RUNGS))
    share = num_rungs / num_lines if num_rungs >= _FEWEST_RUNGS else 0.0
    return _reason("if-ladder", "'else if' per line", share, limit)
