"""Code that was put aside in comments, told from text and from examples in text."""

import hashlib
import re
from collections.abc import Iterator
from functools import cache

import numpy as np

import fim
from fim import FimError
from fim.languages import LANGUAGES, has_grammar
from finetune.corpus.parsing import parse_file

_FEWEST_LINES = 5
_MOST_LINES = 500
"""Lines of a comment by which it is judged."""
_MOST_BLOCKS = 500
"""Comments of a file that are judged."""
_CODE_RATE = 0.7
_MAX_ERROR_RATE = 0.25
_PARSE_SECONDS = 0.5


def remove_commented_code(text: bytes, language: str, rate: float, seed: int) -> bytes:
    """Take out blocks of five and more lines of code in comments, each with a chance of `rate`.

    Code is what starts and looks like it, by seven lines in ten, and parses, a quarter aside. Text
    with an example in it stays, as do comments for documentation, `///`, `//!`, `/**`. The same
    block has the same fate in every file, so that copies stay copies.
    """
    row = LANGUAGES[language]
    mark = b"" if row.comment_end else row.comment.encode()
    if not mark or not row.is_code:
        return text
    kept: list[bytes] = []
    place = 0
    blocks = sorted((*_side_by_side(text, mark), *_between_marks(text, mark)))
    for start, end, inside in blocks[:_MOST_BLOCKS]:
        is_aside = start >= place and _is_code(inside, language) and _draw(inside, seed) < rate
        if is_aside and _is_comment(text, language, text.index(mark[:1], start)):
            kept.append(text[place:start])
            place = end
    left = b"".join((*kept, text[place:]))
    return left if left.strip() else text


def _side_by_side(text: bytes, mark: bytes) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield start, end and content of comments of one line below each other.

    They are found in a text without blanks, which has as many lines.
    """
    if text.count(mark) < _FEWEST_LINES:
        return
    solid = b"\n" + text.translate(None, b" \t\r")
    starts: list[int] = []
    place = number = 0
    for found in _many(mark).finditer(solid):
        number += solid.count(b"\n", place, found.start())
        place = found.start()
        if not _may_be_code(found[0]):
            continue
        starts = starts or _line_starts(text)
        start, end = starts[number], starts[number + found[0].count(b"\n")]
        yield start, end, [line.strip()[len(mark) :] for line in text[start:end].split(b"\n")]


def _line_starts(text: bytes) -> list[int]:
    """Where lines start, and the text's end."""
    return [0, *(np.flatnonzero(np.frombuffer(text, np.uint8) == 10) + 1).tolist(), len(text)]


@cache
def _many(mark: bytes) -> re.Pattern[bytes]:
    """Find enough comments below each other; quick, as it starts plainly."""
    line = rb"\n%s(?![/!]).*" % re.escape(mark)
    return re.compile(line + rb"(?:%s){%d,}" % (line, _FEWEST_LINES - 1))


def _may_be_code(comment: bytes) -> bool:
    """Whether half of a comment's lines have marks of code."""
    lines = comment.split(b"\n")[1:]
    return 2 * sum(line[-1:] in _CODE_LAST or b"=" in line for line in lines) >= len(lines)


def _between_marks(text: bytes, mark: bytes) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield start, end and content of comments in `/*` and `*/` that have their lines alone."""
    if mark != b"//":
        return
    place = text.find(b"/*")
    while place >= 0 and (close := text.find(b"*/", place + 2)) >= 0:
        inside = text[place + 2 : close]
        if inside.count(b"\n") >= _FEWEST_LINES - 1 and inside[:1] not in b"*!":
            start, end = text.rfind(b"\n", 0, place) + 1, text.find(b"\n", close) + 1 or len(text)
            if not (text[start:place] + text[close + 2 : end]).strip():
                yield start, end, inside.splitlines()
        place = text.find(b"/*", close + 2)


def _draw(lines: list[bytes], seed: int) -> float:
    digest = hashlib.sha256(f"commented-code:{seed}:".encode() + b"\n".join(lines)).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _is_comment(text: bytes, language: str, place: int) -> bool:
    """Whether a comment starts there, and no line of a string that looks like one."""
    if not has_grammar(language):
        return True
    try:
        found = parse_file(text, language).around(place, place + 1)
    except FimError:
        return False
    return "comment" in found.type


_CODE_LAST = (b";", b"{", b"}", b",", b")", b"]", b":", b">")
_CODE_ENDS = (b";", b"{", b"}", b"):", b");", b"),", b"])", b"];", b"],", b"()", b"->", b"=>")
_CODE_MARKS = (b" = ", b" == ", b" += ", b" := ", b"->", b"=>", b"::", b" && ", b" || ", b"!=")
_CODE_STARTS = (b"}", b")", b"]", b"return ", b"#include", b"else")
_STATEMENT = re.compile(
    rb"(?:(?:if|elif|for|while|with|def|class|try|except|finally|switch|case|async|catch|do)\b.*[:{(]"
    rb"|(?:break|continue|pass|end|import\s+\S+|from\s+\S+\s+import\s.+);?)$"
)
_RESULTS = re.compile(rb"(?:#|//|--)\s*(?:=>|->|returns|raises|prints|==)|^(?:>>>|\$ )")
"""Lines of examples: what an expression gives, what is typed at a prompt."""


def _is_code(lines: list[bytes], language: str) -> bool:
    """Whether comments are code that was put aside, and not text with an example in it."""
    lines = [line for line in lines if line.strip()][:_MOST_LINES]
    if len(lines) < _FEWEST_LINES or any(line[:1] in b"/!|^" for line in lines):
        return False
    looks = [_looks_like_code(line.strip()) for line in lines]
    if not looks[0] or sum(looks) < _CODE_RATE * len(lines):
        return False
    if not has_grammar(language):
        return True
    try:
        parsed = fim.parse(b"\n".join(lines) + b"\n", language, _PARSE_SECONDS)
    except FimError:
        return False
    return fim.error_rate(parsed) <= _MAX_ERROR_RATE


def _looks_like_code(line: bytes) -> bool:
    if _RESULTS.search(line):
        return False
    if line.endswith(_CODE_ENDS) or line.startswith(_CODE_STARTS) or _STATEMENT.match(line):
        return True
    called = line.endswith(b")") and b" (" not in line and b"(" in line
    return called or any(mark in line for mark in _CODE_MARKS)
