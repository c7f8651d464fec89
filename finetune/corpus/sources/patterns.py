"""Paths as every file format can hold them, and the globs that take or leave them."""

import functools
import re

from finetune.recipe.corpus import Source


def clean_path(path: str | bytes) -> str:
    r"""Return a path as unicode that any file format can hold, on one line.

    Bytes that are no UTF-8, lone surrogates and control characters become `\xNN` or `\uNNNN`.
    """
    raw = path if isinstance(path, bytes) else path.encode("utf-8", "backslashreplace")
    text = raw.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda m: ascii(m[0])[1:-1], text)


def is_wanted(path: str, source: Source) -> bool:
    """Whether `include` takes the path and `exclude` leaves it."""
    included = not source.include or any(_matches(path, p) for p in source.include)
    return included and not any(_matches(path, p) for p in source.exclude)


def _matches(path: str, pattern: str) -> bool:
    if pattern.endswith("/"):
        pattern += "**"
    expression = _glob_expression(pattern)
    if expression.fullmatch(path):
        return True
    return "/" not in pattern and bool(expression.fullmatch(path.rpartition("/")[2]))


_GLOB = re.compile(
    r"(?P<folders>(?<![^/])\*\*/)|(?P<all>\*\*)|(?P<some>\*)|(?P<one>\?)|(?P<set>\[!?[^]/]+\])"
)
_GLOB_PARTS = {"folders": "(?:.*/)?", "all": ".*", "some": "[^/]*", "one": "[^/]"}


@functools.cache
def _glob_expression(pattern: str) -> re.Pattern[str]:
    """Translate a glob: `*` and `?` stay inside a folder, `**` crosses folders."""
    parts, end = [], 0
    for match in _GLOB.finditer(pattern):
        parts.append(re.escape(pattern[end : match.start()]))
        parts.append(_GLOB_PARTS.get(match.lastgroup) or _character_set(match[0]))
        end = match.end()
    try:
        return re.compile("".join(parts) + re.escape(pattern[end:]), re.DOTALL)
    except re.error:  # `[z-a]` is no range
        return re.compile(re.escape(pattern))


def _character_set(text: str) -> str:
    inside = re.escape(text[1:-1].removeprefix("!")).replace(r"\-", "-")
    return f"[^{inside}]" if text.startswith("[!") else f"[{inside}]"
