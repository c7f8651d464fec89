"""The comments at the head of a file, without the licence in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from fim.languages import LANGUAGES

_HEAD_BYTES = 16_384
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCKS = {"//": (b"/*", b"*/")}
_BLOCKS_OF = {
    "haskell": (b"{-", b"-}"), "lua": (b"--[[", b"]]"), "sql": (b"/*", b"*/"),
    "powershell": (b"<#", b"#>"), "hcl": (b"/*", b"*/"),
}  # fmt: skip
"""What comments of many lines start and end with, by the mark of those of one, or by language."""
_MARKS = b" \t\r\n\f*#/;%-!<>{}[]|\"'=_+~:"
_WORDS = (b"copyright", b"licen", b"(c)", b"\xc2\xa9", b"warrant", b"spdx", b"rights reserved")
_HOLDER = re.compile(
    rb"(?:portions\s+)?(?:copyright|copr\.|\(c\)|\xc2\xa9|spdx-|all\s+rights\s+reserved)"
)
_PHRASES = (
    b"all rights reserved", b"copyright (c)", b"licensed under", b"general public license",
    b"warrant", b"apache license", b"boost software license", b"redistribut", b"spdx-",
    b"mozilla public license", b"permission is hereby granted", b"hereby granted",
    b"disclaims copyright", b"please contact", b"made available under", b"copyright holder",
)  # fmt: skip
_LICENCE = re.compile(
    rb"""copyright\s*(?:\xc2\xa9|&copy;|:|by\b) | (?:^|above\s|this\s)copyright\s+notice
    | copyright\b.{0,60}?\b\d{4}\b
    | copyright\s+and\s+(?:licen[cs]e|permission)
    | (?:\(c\)|\xc2\xa9)\s*(?:copyright|\d{4}) | ^\(c\)\s | ^this\s+file\s+is\s+part\s+of\b
    | licen[cs]ed\s+(?:under|to|for)\b | \b(?:under|of|with)\s+the\s+[\w\s.,-]{0,60}\blicen[cs]e
    | \b(?:general|apache|mozilla|boost|eclipse|mit|bsd|isc)[-\s](?:public\s+|style\s+)?licen[cs]e
    | permission\s+to\s+use | see\s+(?:the\s+)?(?:accompanying\s+)?(?:file\s+)?\W?licen[cs]e
    """,
    re.VERBOSE | re.DOTALL,
)
"""What a paragraph on copyright or licence says, in lower case; most say one of the phrases."""
_DIRECTIVE = (
    rb"(?:#!|<\?|//\s*(?:go:build|\+build|@ts-|eslint|clang-format|@flow|@jsx|prettier|tslint|NOLINT"
    rb"|nolint|swiftlint)|///\s*<reference|#\s*(?:-\*-|vim?:|type:|mypy:|ruff:|pylint:|flake8"
    rb"|frozen_string|typed:|noqa|isort:|fmt:|yapf:|pyright:|cython:|shellcheck|rubocop|syntax="
    rb"|yaml-language-server|///)|#.{0,60}coding[:=]|--\s*name:)"
)
"""Comments that a tool reads, and what stands before all comments."""


@dataclass(frozen=True, slots=True)
class _Comments:
    """How the comments at the head of a file of a language are found."""

    opener: bytes
    """What comments of many lines start with; empty if there are none."""
    closer: bytes
    other: re.Pattern[bytes]
    """Empty lines and directives."""
    lines: re.Pattern[bytes]
    """Comments of one line each, side by side."""


@cache
def _comments(language: str) -> _Comments:
    row = LANGUAGES[language]
    mark, end = row.comment.encode(), row.comment_end.encode()
    opener, closer = _BLOCKS_OF.get(language, _BLOCKS.get(row.comment, (b"", b"")))
    line = rb"(?!)" if end else re.escape(mark)
    return _Comments(
        opener=mark if end else opener,
        closer=end or closer,
        other=re.compile(rb"(?:[ \t]*(?:%s.*)?\r?\n)+" % _DIRECTIVE),
        lines=re.compile(rb"(?:[ \t]*(?!%s)%s.*\r?\n)+" % (_DIRECTIVE, line)),
    )


def remove_licence(text: bytes, language: str) -> bytes:
    """Take the copyright and licence out of the comments at the head of a file.

    What a comment says beside them stays, as do lines that tools read. A file that is nothing else
    stays as it is.

    Args:
        text: the file.
        language: a row of `LANGUAGES`.
    """
    comments = _comments(language)
    mark = _BYTE_ORDER_MARK if text.startswith(_BYTE_ORDER_MARK) else b""
    pieces = [(mark, False), *_pieces(text[len(mark) : _HEAD_BYTES], comments)]
    head = b"".join(piece for piece, _ in pieces).lower()
    if not any(word in head for word in _WORDS):
        return text
    kept: list[bytes] = []
    is_gone = False
    for piece, is_comment in (*pieces, (text[len(head) :], False)):
        left = _cut(piece, comments) if is_comment else piece
        kept.append(left.lstrip(b"\r\n") if is_gone else left)
        is_gone = is_comment and not left
    whole = b"".join(kept)
    return whole if whole.strip() else text


def _pieces(head: bytes, comments: _Comments) -> Iterator[tuple[bytes, bool]]:
    """Yield what stands before the first code, whole lines, and whether they are one comment."""
    place = 0
    while place < len(head):
        found = comments.other.match(head, place)
        end = found.end() if found else _comment_end(head, comments, place)
        if end <= place:
            return
        yield head[place:end], found is None
        place = end


_LINE_END = re.compile(rb"[ \t]*\r?\n")


def _comment_end(head: bytes, comments: _Comments, place: int) -> int:
    """Return where a comment and its line end; 0 if there is none or code follows it."""
    if comments.opener and head.startswith(comments.opener, place):
        close = head.find(comments.closer, place + len(comments.opener))
        found = _LINE_END.match(head, close + len(comments.closer)) if close >= 0 else None
    else:
        found = comments.lines.match(head, place)
    return found.end() if found else 0


def _cut(comment: bytes, comments: _Comments) -> bytes:
    """Return a comment without its paragraphs on copyright and licence, and those between them."""
    lines = comment.splitlines(keepends=True)
    words = [line.strip(_MARKS).lower() for line in lines]
    hits = [(a, b) for a, b in _paragraphs(words) if _is_licence(words[a:b])]
    if not hits:
        return comment
    first, last = _first_line(words, *hits[0]), hits[-1][1]
    if not any(words[:first] + words[last:]):
        return b""
    before, after = lines[:first], lines[last:]
    while len(after) > 1 and not after[0].strip(_MARKS):
        del after[0]
    while len(before) > 1 and not any(words[last:]) and not before[-1].strip(_MARKS):
        del before[-1]
    is_block = bool(comments.opener) and comment.startswith(comments.opener)
    if is_block and not before:
        before = [comments.opener + b"\n"]
    if is_block and not after:
        after = [b" " + comments.closer + b"\n"]
    return b"".join(before + after)


def _is_licence(words: list[bytes]) -> bool:
    text = b" ".join(words)
    return any(phrase in text for phrase in _PHRASES) or bool(_LICENCE.search(text))


_TAGS = (b"@flow", b"@noflow", b"@format", b"@jest-", b"@vitest-", b"@jsx", b"@ts-", b"@oncall")
"""What a tool reads of a comment of many lines."""


def _paragraphs(words: list[bytes]) -> Iterator[tuple[int, int]]:
    start = 0
    for number, line in enumerate([*words, b""]):
        is_tag = line.startswith(_TAGS)
        if not line or is_tag:
            if start < number:
                yield start, number
            start = number + (not is_tag)


def _first_line(words: list[bytes], start: int, end: int) -> int:
    """Return where in a paragraph the copyright starts, if a description stands before it."""
    for number in range(start, end):
        if _HOLDER.match(words[number]):
            return number if not _is_licence(words[start:number]) else start
    return start
