"""The language table, and the grammar of each row."""

import importlib
import importlib.util
import warnings
from functools import cache

import tree_sitter

from fim.errors import FimError
from fim.language import CONSTRUCTS, DERIVED_CONSTRUCTS, Language
from fim.language_rows import COMMON_ROWS
from fim.language_rows_further import FURTHER_ROWS
from fim.language_rows_other import OTHER_ROWS

__all__ = [
    "CONSTRUCTS",
    "DERIVED_CONSTRUCTS",
    "LANGUAGES",
    "Language",
    "construct_query",
    "find_language",
    "grammar",
    "has_grammar",
]

LANGUAGES: dict[str, Language] = {**COMMON_ROWS, **FURTHER_ROWS, **OTHER_ROWS}


def has_grammar(language: str) -> bool:
    """Whether a row of `LANGUAGES` names a grammar and it is installed; nothing is loaded.

    Raises:
        FimError: no such row.
    """
    row = find_language(language)
    return bool(row.distribution) and importlib.util.find_spec(_module(row)) is not None


@cache
def grammar(language: str) -> tree_sitter.Language:
    """Load the grammar of a row of `LANGUAGES`, once per process.

    Raises:
        FimError: the language has no row, or its grammar does not exist or is not installed.
    """
    row = find_language(language)
    if not row.distribution:
        raise FimError(f"{language}: there is no grammar for it; ask 'has_grammar' first")
    try:
        module = importlib.import_module(_module(row))
    except ModuleNotFoundError:
        raise FimError(
            f"{language}: {row.distribution} is not installed; pip install 'sfim[languages]'"
        ) from None
    with warnings.catch_warnings():  # two wheels still give the address as a number
        warnings.filterwarnings("ignore", "int argument support", DeprecationWarning)
        return tree_sitter.Language(getattr(module, row.function)())


def _module(row: Language) -> str:
    return row.distribution.replace("-", "_")


@cache
def construct_query(language: str, names: tuple[str, ...]) -> tree_sitter.Query:
    """Return a query whose captures are some constructs of a language, by their names."""
    constructs = find_language(language).constructs
    patterns = [f"[{' '.join(f'({kind})' for kind in constructs[name])}] @{name}" for name in names]
    return tree_sitter.Query(grammar(language), "\n".join(patterns))


def find_language(name: str) -> Language:
    """Return the row of a language.

    Raises:
        FimError: no such row; the message lists the known ones.
    """
    try:
        return LANGUAGES[name]
    except KeyError:
        known = ", ".join(sorted(LANGUAGES))
        raise FimError(f"unknown language {name!r}; known: {known}") from None
