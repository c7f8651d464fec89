"""Checks of a value's fields by dotted key: ranges, choices and tables of weights."""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any

Limit = tuple[str, Callable[[float], bool]]
"""What a number should be, in words, and whether one is. NaN and infinity never are."""


def at_least(low: int) -> Limit:
    """Make the limit `low` or more."""
    return f"{low} or more", lambda value: low <= value < math.inf


ABOVE_0: Limit = ("above 0", lambda value: 0 < value < math.inf)
RATE: Limit = ("0 to 1", lambda value: 0 <= value <= 1)
SEED: Limit = ("0 to 4294967295", lambda value: 0 <= value < 2**32)  # what numpy takes


def limit_faults(value: Any, limits: Iterable[tuple[Limit, str]]) -> Iterator[str]:
    """Yield the fields outside their limit; each row names its keys, separated by blanks."""
    for (expected, holds), keys in limits:
        for key in keys.split():
            number = attrgetter(key)(value)
            if not holds(number):
                yield f"{key}: expected {expected}, got {number}"


def choice_faults(value: Any, choices: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Yield the fields that are none of their names."""
    for key, names in choices.items():
        chosen = attrgetter(key)(value)
        if chosen not in names:
            yield f"{key}: expected one of {', '.join(names)}, got {chosen!r}"


def weight_faults(value: Any, tables: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Yield unknown names, negative weights and tables of zeros; an empty table is fine."""
    for key, names in tables.items():
        weights = attrgetter(key)(value)
        for name, weight in weights.items():
            if name not in names:
                yield f"{key}.{name}: unknown key{did_you_mean(name, names)}"
            if not 0 <= weight < math.inf:
                yield f"{key}.{name}: expected 0 or more, got {weight}"
        if weights and not any(weights.values()):
            yield f"{key}: every weight is 0"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the likely one, else all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
