"""Rules that count bytes: sizes, lines, letters, data, repetition. None looks at a tree."""

from fim import Document
from fim.languages import LANGUAGES
from finetune.corpus.entries import Reason
from finetune.recipe.filters import Filters


def size(document: Document, filters: Filters) -> Reason | None:
    """Drop files below `min_bytes` and above `max_bytes`."""
    length = len(document.text)
    if length < filters.min_bytes:
        return Reason(name="too-small", detail=f"{length:,} bytes < {filters.min_bytes:,}")
    if length > filters.max_bytes:
        return Reason(name="too-large", detail=f"{length:,} bytes > {filters.max_bytes:,}")
    return None


_MINIFIED = 110.0
"""Bytes of the mean line past which linguist calls JavaScript and CSS minified."""


def minified(document: Document, filters: Filters) -> Reason | None:
    """Drop JavaScript and CSS without the line ends that people write."""
    name = document.path.lower()
    if not filters.minified or document.language not in ("javascript", "css"):
        return None
    if name.endswith((".min.js", ".min.css", "-min.js", "-min.css", ".min.mjs", ".min.cjs")):
        return Reason(name="minified", detail="name of a minified file")
    mean = len(document.text) / (document.text.count(b"\n") + 1)
    if mean > _MINIFIED:
        return Reason(name="minified", detail=f"{mean:,.0f} bytes per line > {_MINIFIED:,.0f}")
    return None


def lines(document: Document, filters: Filters) -> Reason | None:
    """Drop files of data rather than code: one very long line, or long lines throughout.

    Prose is not judged: its paragraphs are often one line each.
    """
    if not LANGUAGES[document.language].is_code or _is_short_lined(document.text, filters):
        return None
    text = document.text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").decode()
    parts = text.split("\n")
    longest = max(map(len, parts))
    if longest > filters.max_line_length:
        detail = f"longest line {longest:,} > {filters.max_line_length:,}"
        return Reason(name="long-lines", detail=detail)
    mean = (len(text) - len(parts) + 1) / len(parts)
    if mean > filters.max_mean_line_length:
        detail = f"mean line {mean:,.0f} > {filters.max_mean_line_length:,g}"
        return Reason(name="long-mean-line", detail=detail)
    return None


def _is_short_lined(text: bytes, filters: Filters) -> bool:
    """Whether all is well, seen without splitting: bytes are no fewer than characters."""
    most = filters.max_line_length
    if len(text) > filters.max_mean_line_length * (text.count(b"\n") + 1):
        return False
    place = 0
    while place + most < len(text):
        place = text.rfind(b"\n", place, place + most + 1) + 1
        if not place:
            return False
    return True
