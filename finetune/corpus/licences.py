"""Under which licence a file is, as far as it or the nearest licence file says."""

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from finetune.corpus.entries import Reason
from finetune.recipe.filters import Filters

_HEAD_BYTES = 3_072
"""First bytes of a file in which its licence is looked for."""
_SPDX = re.compile(rb"SPDX-License-Identifier:[ \t]*([\w.+() \t-]{1,200})")
_MARKS = b"*#/;%\"'<>!|,()\r\n\t"
_PLAIN = bytes.maketrans(_MARKS, b" " * len(_MARKS))
"""Comment marks, quotes and line ends as blanks: a sentence is one wherever it is wrapped."""

_GNU = r" (l?gpl )?(as published by the free software foundation )?(either )?(v|version )"
_LATER = re.compile(rb"(or )?(at your option )?any later version|or later")
_LATER_BYTES = 160
_PHRASES: tuple[tuple[str, str, str], ...] = (
    ("AGPL-3.0", "gnu affero general public license", _GNU + "3"),
    ("LGPL-3.0", "gnu lesser general public license", _GNU + "3"),
    ("LGPL-2.1", "gnu lesser general public license", _GNU + r"2\.1"),
    ("LGPL-2.0", "gnu library general public license", _GNU + "2"),
    ("GPL-3.0", "gnu general public license", _GNU + "3"),
    ("GPL-2.0", "gnu general public license", _GNU + "2"),
    ("GPL-3.0", "version 3 of the gnu general public license", ""),
    ("GPL-2.0", "version 2 of the gnu general public license", ""),
    ("Apache-2.0", "apache license", r" (version )?2\.0"),
    ("Apache-2.0", "www.apache.org licenses license-2.0", ""),
    ("MPL-2.0", "mozilla public license", r" (v\. ?|version )2\.0"),
    ("MPL-1.1", "mozilla public license", r" (v\. ?|version )1\.1"),
    ("EPL-2.0", "eclipse public license", r" (- )?(v ?\.? ?|version )2\.0"),
    ("EPL-1.0", "eclipse public license", r" (- )?(v ?\.? ?|version )1\.0"),
    ("EUPL-1.2", "european union public licence", r" (v\.? ?|version )1\.2"),
    ("CDDL-1.0", "common development and distribution license", ""),
    ("BSL-1.0", "boost software license", r"( -)? version 1\.0"),
    ("BUSL-1.1", "business source license 1.1", ""),
    ("CC0-1.0", "cc0 1.0 universal", ""),
    ("Unlicense", "this is free and unencumbered software released into the public domain", ""),
    ("WTFPL", "do what the fuck you want to public license", ""),
    ("Artistic-2.0", "the artistic license 2.0", ""),
    ("Python-2.0", "python software foundation license version 2", ""),
    ("Zlib", "this software is provided as-is without any express or implied warranty", ""),
    ("MIT", "permission is hereby granted free of charge to any person obtaining a copy", ""),
    ("MIT", "under the", r" (terms of the )?mit licen[cs]e"),
    ("ISC", "permission to use copy modify and or distribute this software", ""),
    ("ISC", "permission to use copy modify and distribute this software", ""),
    ("BSD-3-Clause", "redistribution and use in source and binary forms", ".{0,1200}neither the n"),
    ("BSD-2-Clause", "redistribution and use in source and binary forms", ""),
    ("BSD-3-Clause", "bsd-style license", ""),  # of Go, Dart and Chromium: three clauses
    ("BSD-3-Clause", "3-clause bsd license", ""),
    ("BSD-2-Clause", "2-clause bsd license", ""),
)
"""SPDX id, what the licence or its header says, and the pattern after that; the first one counts.

Sentences of the texts at spdx.org/licenses, without marks.
"""
_FOUND = [
    (name, start.encode(), re.compile(re.escape(start.encode()) + rest.encode()))
    for name, start, rest in _PHRASES
]
_HINTS = (b"licen", b"permission", b"redistribution", b"public domain", b"as-is", b"cc0")


def find_licence(text: bytes) -> str:
    """Return the SPDX id or expression that a file's head states, of code or of a licence file.

    An `SPDX-License-Identifier:` line comes first, then the words of the licences met most often.
    Returns an empty string where neither is found.
    """
    head = text[:_HEAD_BYTES]
    stated = _SPDX.search(head)
    if stated:
        name = " ".join(stated[1].decode().strip(" \t-").split())
        return "" if name in ("NONE", "NOASSERTION") else name
    lower = head.lower()
    if not any(hint in lower for hint in _HINTS):
        return ""
    words = b" ".join(lower.translate(_PLAIN).split()).replace(b" -- ", b" ")
    for name, start, phrase in _FOUND:
        found = phrase.search(words) if start in words else None
        if found:
            return name + _gnu_ending(name, words[found.end() :])
    return ""


def _gnu_ending(name: str, rest: bytes) -> str:
    if "GPL" not in name:
        return ""
    return "-or-later" if _LATER.search(rest[:_LATER_BYTES]) else "-only"


_LICENCE_FILE = re.compile(
    r"((un)?licen[cs]es?|copying|mit-licen[cs]e|copyright)([.-](?!(py|js|ts|go|rs|java|c|h)$)[\w.-]+)?"
)


def is_licence_file(path: str) -> bool:
    """Whether a file is a licence that holds for the files beside and below it, by its name.

    A folder `LICENSES` lists texts without saying which file is under which.
    """
    *folders, name = path.lower().split("/")
    return bool(_LICENCE_FILE.fullmatch(name)) and "licenses" not in folders


def licences_of(files: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    """Give files without a licence of their own that of the nearest licence file above them.

    Licence files side by side are a choice, as in `LICENSE-MIT` and `LICENSE-APACHE`, but for
    `COPYING.LESSER`, which replaces the `COPYING` that it extends.

    Args:
        files: repository, path, and what `find_licence` found, of code and of licence files.

    Returns:
        The licence of each file, by repository and path; empty where it is unknown.
    """
    files = list(files)
    folders: dict[tuple[str, str], dict[str, str]] = {}
    for repo, path, licence in files:
        if licence and is_licence_file(path):
            folder, _, name = path.rpartition("/")
            folders.setdefault((repo, folder), {})[name.lower()] = licence
    joined = {place: _join(names) for place, names in folders.items()}
    return {
        (repo, path): licence or next(filter(None, _above(joined, repo, path)), "")
        for repo, path, licence in files
    }


def _join(licences: dict[str, str]) -> str:
    return licences.get("copying.lesser") or " OR ".join(sorted(set(licences.values())))


def _above(joined: dict[tuple[str, str], str], repo: str, path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield joined.get((repo, path), "")


def check_licence(licence: str, filters: Filters) -> Reason | None:
    """Return why a file under a licence is left out, or None.

    Of an `OR` one side has to be allowed, of an `AND` both; exceptions after `WITH` are ignored.
    An expression that cannot be read counts as unknown.
    """
    allowed = _is_allowed(licence, filters)
    if allowed is None:
        return Reason(name="licence", detail="unknown") if filters.unknown_licences else None
    return None if allowed else Reason(name="licence", detail=f"{licence} is not allowed")


def _is_allowed(expression: str, filters: Filters) -> bool | None:
    tokens = re.findall(r"[()]|[^\s()]+", expression)[::-1]
    try:
        allowed = _any(tokens, filters)
    except (IndexError, RecursionError, ValueError):
        return None
    return None if tokens else allowed


_OPERATORS = frozenset({"AND", "OR", "WITH", ")"})


def _any(tokens: list[str], filters: Filters) -> bool:
    allowed = _all(tokens, filters)
    while tokens and tokens[-1].upper() == "OR":
        tokens.pop()
        allowed = _all(tokens, filters) or allowed
    return allowed


def _all(tokens: list[str], filters: Filters) -> bool:
    allowed = _one(tokens, filters)
    while tokens and tokens[-1].upper() == "AND":
        tokens.pop()
        allowed = _one(tokens, filters) and allowed
    return allowed


def _one(tokens: list[str], filters: Filters) -> bool:
    token = tokens.pop()
    if token.upper() in _OPERATORS:
        raise ValueError(token)
    if token == "(":
        allowed = _any(tokens, filters)
        tokens.pop()
        return allowed
    if tokens and tokens[-1].upper() == "WITH":
        del tokens[-2:]
    denied = _is_listed(token, filters.licences_denied)
    return not denied and (
        not filters.licences_allowed or _is_listed(token, filters.licences_allowed)
    )


def _is_listed(licence: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(licence.lower(), pattern.lower()) for pattern in patterns)
