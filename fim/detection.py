"""Which language a file is in: by its name, else its `#!` line, else by what parses."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import PurePosixPath

import tree_sitter

from fim.errors import FimError
from fim.languages import LANGUAGES, grammar, has_grammar
from fim.syntax import Syntax, error_rate, parse

_HEAD = 65_536
"""Bytes of a text that are parsed to tell languages with a common extension apart."""
_parse = partial(parse, timeout_seconds=1.0)
_CLEAR_ERROR_RATE, _MAX_ERROR_RATE = 0.02, 0.3
"""Share of bytes in syntax errors up to which no other language is tried, and up to which one is
a text of the language at all."""

_BY_EXTENSION: dict[str, list[str]] = {}
for _name, _row in LANGUAGES.items():
    for _extension in _row.extensions:
        _BY_EXTENSION.setdefault(_extension, []).append(_name)
_SHARED = {extension for row in LANGUAGES.values() for extension in row.shared}
_BY_FILENAME = {pattern: name for name, row in LANGUAGES.items() for pattern in row.filenames}
_GLOBS = {pattern: name for pattern, name in _BY_FILENAME.items() if "*" in pattern}
_BY_SHEBANG = {program: name for name, row in LANGUAGES.items() for program in row.shebangs}


def detect_language(
    path: str, text: bytes = b"", parse: Callable[[bytes, str], Syntax] = _parse
) -> str | None:
    """Name the language of a file by its name, else by its `#!` line.

    An extension that several languages or other file types share goes by what parses: to the row
    with the smallest share of the text's head in syntax errors, of those that show their `marks`;
    to none if all are far off.

    Args:
        path: file path; only the last part counts.
        text: content. Without it a shared extension goes to its first row.
        parse: gives the tree of a text in a language, or raises `FimError`; one that remembers
            spares whoever needs the tree next another parse.

    Returns:
        A key of `LANGUAGES`, or `None` for a language without a row.
    """
    name = PurePosixPath(path).name
    extension = PurePosixPath(path).suffix.lower()
    if name in _BY_FILENAME:
        return _BY_FILENAME[name]
    if extension in _SHARED:
        return _by_parsing(_BY_EXTENSION[extension], text, parse)
    if extension in _BY_EXTENSION:
        return _BY_EXTENSION[extension][0]
    for pattern, language in _GLOBS.items():
        if fnmatchcase(name, pattern):
            return language
    return None if extension else _by_shebang(text)


def _by_shebang(text: bytes) -> str | None:
    if not text.startswith(b"#!"):
        return None
    words = text[2:256].splitlines()[0].decode(errors="replace").split() if text[2:256] else []
    programs = [word.rsplit("/", 1)[-1] for word in words if not word.startswith("-")]
    program = next((program for program in programs if program != "env"), "")
    return _BY_SHEBANG.get(program) or _BY_SHEBANG.get(program.rstrip("0123456789."))


def _by_parsing(
    languages: list[str], text: bytes, parse: Callable[[bytes, str], Syntax]
) -> str | None:
    """The language with the fewest errors of those that show a mark, else the one without marks.

    A grammar that extends another one takes the other's files as well, and a grammar that recovers
    from foreign code may skip little of it: errors alone do not tell C from C++.
    """
    installed = [name for name in languages if has_grammar(name)]
    if not installed or not text:
        return languages[0]
    head = text if len(text) <= _HEAD else text[:_HEAD].rpartition(b"\n")[0]
    rates: dict[str, float] = {}
    for name in sorted(installed, key=lambda name: not LANGUAGES[name].marks):
        if LANGUAGES[name].marks or not rates:
            rate = _error_rate(head, name, parse)
            if rate is not None:
                rates[name] = rate
                if rate <= _CLEAR_ERROR_RATE:
                    break
    best = min(rates, key=lambda name: rates[name], default=None)
    return best if best and rates[best] <= _MAX_ERROR_RATE else None


def _error_rate(text: bytes, language: str, parse: Callable[[bytes, str], Syntax]) -> float | None:
    """The share of bytes in errors, `None` for a text without a mark or that takes too long."""
    try:
        syntax = parse(text, language)
    except FimError:
        return None
    marks = LANGUAGES[language].marks
    if marks and not tree_sitter.QueryCursor(_mark_query(language)).captures(syntax.root):
        return None
    return error_rate(syntax)


@cache
def _mark_query(language: str) -> tree_sitter.Query:
    patterns = (f"({mark}) @mark" for mark in LANGUAGES[language].marks)
    return tree_sitter.Query(grammar(language), " ".join(patterns))
