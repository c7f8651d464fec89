"""Prefix and suffix cut to the tokens there are: at line ends, never into a character."""

from dataclasses import dataclass

import numpy as np

from fim.budgets import Profile
from fim.content import ContentTokenizer, Encoded

_GUESS = 6
"""Bytes per token of budget that are looked at: sparser text leaves a little room unused."""


@dataclass(frozen=True, slots=True, eq=False)  # a hash of its value would read the whole text
class Side:
    """Text that may be cut: a prefix at its start, anything else at its end."""

    text: bytes
    guarded: bool
    is_prefix: bool

    def lines(self, size: int) -> bytes:
        """The whole lines among the `size` bytes next to the MIDDLE; without one, characters."""
        return _last_lines(self.text, size) if self.is_prefix else _first_lines(self.text, size)


def fit_sides(
    prefix: Side, suffix: Side, content: ContentTokenizer, room: int, split: float, profile: Profile
) -> tuple[np.ndarray, np.ndarray]:
    """Prefix and suffix ids that fit `room`; what one side does not need goes to the other.

    Each side is encoded once, and a side that is too long once more from where it is cut.

    Args:
        prefix: what stands before the MIDDLE.
        suffix: what stands after it.
        content: encodes them.
        room: tokens for both.
        split: share of `room` that is the prefix's own.
        profile: the most each side may have of it.
    """
    most = {
        prefix: min(room, profile.prefix_tokens or room),
        suffix: min(room, profile.suffix_tokens or room),
    }
    share = {prefix: min(int(room * split), most[prefix])}
    share[suffix] = min(room - share[prefix], most[suffix])
    # the side that needs less of its share comes first, since the other gets what it leaves
    first, second = sorted(share, key=lambda side: len(side.text) / max(1, share[side]))
    seen_first = look(first, content, share[first])
    spare = room - min(share[first], len(seen_first.ids))
    seen_second = look(second, content, min(spare, most[second]))
    spare = room - min(len(seen_second.ids), most[second])
    seen_first = cut(first, content, min(max(share[first], spare), most[first]), seen_first)
    spare = min(room - len(seen_first.ids), most[second])
    seen_second = cut(second, content, spare, seen_second)
    ids = {first: seen_first.ids, second: seen_second.ids}
    return ids[prefix], ids[suffix]


def look(side: Side, content: ContentTokenizer, room: int) -> Encoded:
    """Encode as much of a side as may fit."""
    size = min(len(side.text), room * _GUESS)
    return content.encoded(side.lines(size), side.guarded)


def cut(side: Side, content: ContentTokenizer, room: int, seen: Encoded) -> Encoded:
    """Drop lines until the rest fits; it is encoded anew, since tokens join across a line's end."""
    while len(seen.ids) > room:
        size = min(seen.bytes_of(room, from_end=side.is_prefix), len(seen.text) - 1)
        seen = content.encoded(side.lines(size), side.guarded)
    return seen


def _last_lines(text: bytes, size: int) -> bytes:
    """The lines that start in the last `size` bytes; without one, the characters."""
    start = len(text) - size
    if start == 0 or text[start - 1 : start] == b"\n":
        return text[start:]
    newline = text.find(b"\n", start, len(text) - 1)
    if newline >= 0:
        return text[newline + 1 :]
    while start < len(text) and text[start] & 0xC0 == 0x80:
        start += 1
    return text[start:]


def _first_lines(text: bytes, size: int) -> bytes:
    """The lines that end in the first `size` bytes; without one, the characters."""
    if size == len(text):
        return text
    newline = text.rfind(b"\n", 0, size)
    if newline >= 0:
        return text[: newline + 1]
    while size > 0 and text[size] & 0xC0 == 0x80:
        size -= 1
    return text[:size]
