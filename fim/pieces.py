"""Ids of text that comes again: the windows, epochs and tries of a file repeat most of its text.

A text is cut at joints, and each piece is encoded once. A joint is the blank before an `s` and
after anything visible. Byte-level tokenizers split text there into words before they merge bytes
(GPT-2's rule, and those of Qwen, DeepSeek, Llama 3), so ids of pieces are ids of the whole; this is
tried on every tokenizer, with its own tokens that could reach over a joint, and one where it does
not hold encodes whole texts.
"""

import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

_JOINT = " s"
_FORGET = 2_000_000
"""Characters of pieces that are kept; a file that is longer is still encoded only once."""
_VISIBLE = string.digits + string.ascii_letters + string.punctuation

IdsOf = Callable[[str], np.ndarray]
"""Text to ids, `int32`."""


@dataclass(slots=True)
class Pieces:
    """What was encoded lately, by piece."""

    sizes: np.ndarray
    """Bytes of each id."""
    _known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _characters: int = 0

    def encode(self, text: str, ids_of: IdsOf) -> np.ndarray:
        """Return the ids of a text; `ids_of` is asked for those of pieces not seen lately."""
        pieces = list(split(text))
        if self._characters > _FORGET:
            self._known.clear()
            self._characters = 0
        ids: list[np.ndarray] = []
        for is_known, group in groupby(pieces, self._known.__contains__):
            run = list(group)
            ids += map(self._known.__getitem__, run) if is_known else self._learn(run, ids_of)
        return np.concatenate(ids)

    def _learn(self, pieces: list[str], ids_of: IdsOf) -> list[np.ndarray]:
        """Encode neighbors in one go, and note the ids of each."""
        text = "".join(pieces)
        self._characters += len(text)
        if len(pieces) == 1:
            self._known[text] = ids_of(text)
            return [self._known[text]]
        if not text.isascii():  # a tokenizer that normalizes it moves the joints
            return [ids for piece in pieces for ids in self._learn([piece], ids_of)]
        ids = ids_of(text)
        ends = np.cumsum(self.sizes[ids])
        joints = np.cumsum([len(piece) for piece in pieces])
        cuts = np.searchsorted(ends, joints)
        if ends[-1] == joints[-1] and (ends[cuts] == joints).all():
            start = 0
            for piece, last in zip(pieces, cuts.tolist(), strict=True):
                self._known[piece] = ids[start : last + 1]
                start = last + 1
        return [ids]


def split(text: str) -> Iterator[str]:
    """Cut a text at its joints; any part of it is cut at the same places."""
    start, joint = 0, text.find(_JOINT, 1)
    while joint > 0:
        if "!" <= text[joint - 1] <= "~":
            yield text[start:joint]
            start = joint
        joint = text.find(_JOINT, joint + 1)
    yield text[start:]


def can_join(ids_of: IdsOf, across: Iterable[str] = ()) -> bool:
    """Whether the ids of pieces are the ids of the whole, on either side of a joint anything.

    Args:
        ids_of: text to ids.
        across: tokens that reach over a joint: `return self`, or `= ` before an `s`.
    """
    before = [left + c for c in _VISIBLE for left in ("", "x", "1", "\n", "  ", "é", c)]
    after = ("", "o", "2", "_", ".", " ", "\n", "é", "\u0301", "elf.x", "S", "'s")
    text = "".join(f"{word}{_JOINT}{after[i % len(after)]}" for i, word in enumerate(before * 5))
    text += "".join(f"\n{token}s" if token.endswith(" ") else f"\n{token}" for token in across)
    return np.array_equal(np.concatenate([ids_of(piece) for piece in split(text)]), ids_of(text))
