"""One parse of a file for all who look at its tree."""

from functools import lru_cache

import fim


@lru_cache(maxsize=2)  # the text as found and as cleaned
def parse_file(text: bytes, language: str) -> fim.Syntax:
    """Return the tree of a text, parsed once however many ask.

    Raises:
        FimError: see `fim.parse`; a text that failed is tried again.
    """
    return fim.parse(text, language)
