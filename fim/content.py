"""Source text to token ids, by a copy of the tokenizer that does not know its control tokens.

So text that contains `<|fim_prefix|>` stays text, whatever the tokenizer's own flags say.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fim.errors import ControlToken, FimError
from fim.formats import backend_of
from fim.pieces import IdsOf, Pieces, can_join

_GUARD = "☺"
"""Character before a guarded segment, cut off again (meta-llama/codellama `encode_infilling`)."""
_ACROSS = re.compile("[!-~]Ġ(s|$)")
"""Byte-level spelling of a token that may lie across a joint of pieces (see `fim.pieces`)."""
_SIZED = "a\tb  é\r\n日本 12"
"""Text on which a table of bytes per token is tried before it is believed."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text and its ids."""

    text: bytes
    ids: np.ndarray
    """`int32`, shape `(tokens,)`."""
    content: "ContentTokenizer" = field(repr=False)
    guarded: bool = False

    def bytes_of(self, tokens: int, from_end: bool = False) -> int:
        """Return the bytes of the first or the last so many tokens.

        A token that is part of a character counts its own bytes where the tokenizer's vocabulary is
        of bytes, else the whole character's.
        """
        if tokens == 0:
            return 0
        sizes = self.content.sizes
        if sizes is not None:
            each = sizes[self.ids]
            if each.sum() == len(self.text):  # the tokenizer has not rewritten it
                return int(each[-tokens:].sum() if from_end else each[:tokens].sum())
        return self._bytes_by_offsets(tokens, from_end)

    def _bytes_by_offsets(self, tokens: int, from_end: bool) -> int:
        string = (_GUARD if self.guarded else "") + self.text.decode()
        encoding = self.content.backend.encode(string, add_special_tokens=False)
        first = len(encoding.ids) - (tokens if from_end else len(self.ids))
        last = first + tokens - 1
        start, _ = encoding.token_to_chars(first)
        _, end = encoding.token_to_chars(last)
        return len(string[max(start, self.guarded) : end].encode())


@dataclass(frozen=True, slots=True)
class ContentTokenizer:
    """A tokenizer that cannot write a control token."""

    backend: Any
    control_ids: frozenset[int]
    is_control: np.ndarray = field(repr=False)
    """Whether an id is one of these; false in the last place, which stands for all above."""
    spelled: dict[int, str]
    """Added tokens that the decoder would take for bytes (the `ü` of DeepSeek-Coder), by id."""
    sizes: np.ndarray | None
    """Bytes of each id, where the vocabulary is of bytes."""
    guard_ids: np.ndarray
    ids_of: IdsOf = field(repr=False)
    """What gives a text's ids: the backend, or something faster that gives the same."""
    pieces: Pieces | None = field(repr=False)
    """Ids of text seen lately, where a text may be encoded in pieces."""

    def encode(self, text: bytes, guarded: bool = False) -> list[int]:
        """Return the ids of UTF-8 text.

        Raises:
            FimError: the text is no UTF-8, or (a fault of the vocabulary) gives a control id.
        """
        return self.encoded(text, guarded).ids.tolist()

    def encoded(self, text: bytes, guarded: bool = False) -> Encoded:
        """Return a text with its ids, see `encode`; `guarded` is without a leading blank."""
        string = _decode(text)
        if guarded:
            ids = self.ids_of(_GUARD + string)
            if not np.array_equal(ids[: len(self.guard_ids)], self.guard_ids):
                raise FimError("the tokenizer joins text with the guard character before it")
            ids = ids[len(self.guard_ids) :]
        elif self.pieces is None:
            ids = self.ids_of(string)
        else:
            ids = self.pieces.encode(string, self.ids_of)
        if self.is_control.take(ids, mode="clip").any():
            raise ControlToken("the text encodes to a control token of the tokenizer")
        return Encoded(text, ids, self, guarded)

    def decode(self, ids: Sequence[int], guarded: bool = False) -> str:
        """Return the text of ids; `guarded` keeps the first blank, which decoders drop."""
        ids = np.asarray(ids, dtype=np.int32).tolist()
        if guarded:
            text = self.decode([*self.guard_ids, *ids])
            if text.startswith(_GUARD):
                return text[len(_GUARD) :]
            # half a character joined the guard's bytes: no blank stands there
        if self.spelled.keys().isdisjoint(ids):
            return self.backend.decode(ids, skip_special_tokens=False)
        runs = groupby(ids, self.spelled.get)
        return "".join(
            self.backend.decode(list(run), skip_special_tokens=False)
            if text is None
            else text * len(list(run))
            for text, run in runs
        )


_CONTENT_TOKENIZERS: WeakKeyDictionary[Any, ContentTokenizer] = WeakKeyDictionary()


def content_tokenizer(tokenizer: Any) -> ContentTokenizer:
    """Return the copy of a tokenizer without its control tokens, made once.

    Added tokens that are plain text stay, or training would differ from serving: single
    characters (DeepSeek-Coder has 13) and runs of blanks. `split_special_tokens` is not enough:
    it leaves tokens that are marked `"special": false`, as the sentinels of Qwen2.5-Coder are.

    Raises:
        FimError: a slow tokenizer.
    """
    if tokenizer not in _CONTENT_TOKENIZERS:
        backend = backend_of(tokenizer)
        state = json.loads(backend.to_str())
        kept = [token for token in state["added_tokens"] if _is_text(token["content"])]
        control = {token["id"] for token in state["added_tokens"] if token not in kept}
        state.update(added_tokens=kept, post_processor=None, truncation=None, padding=None)
        copy = type(backend).from_str(json.dumps(state))
        spelled = {
            token["id"]: token["content"]
            for token in kept
            if copy.decode([token["id"]], skip_special_tokens=False) == "\ufffd"
        }
        ids_of = _ids_by(copy)
        sizes = _bytes_per_id(state, ids_of)
        _CONTENT_TOKENIZERS[tokenizer] = ContentTokenizer(
            backend=copy,
            control_ids=frozenset(control),
            is_control=np.isin(np.arange(max(control, default=0) + 2), list(control)),
            spelled=spelled,
            sizes=sizes,
            guard_ids=ids_of(_GUARD),
            ids_of=ids_of,
            pieces=_pieces(copy, sizes, ids_of),
        )
    return _CONTENT_TOKENIZERS[tokenizer]


def use_encoder(tokenizer: Any, ids_of: IdsOf) -> None:
    """Let something faster give the ids of text; cuts and decoding stay with the tokenizer.

    It is given whole texts, since nothing is gained by remembering theirs.

    Args:
        tokenizer: as `content_tokenizer` takes it; its copy without control tokens is sped up.
        ids_of: text to ids. The caller has proved that the copy gives the same.
    """
    _CONTENT_TOKENIZERS[tokenizer] = replace(
        content_tokenizer(tokenizer), ids_of=ids_of, pieces=None
    )


def _ids_by(backend: Any) -> IdsOf:
    return lambda text: np.array(backend.encode(text, add_special_tokens=False).ids, np.int32)


def _bytes_per_id(state: dict[str, Any], ids_of: IdsOf) -> np.ndarray | None:
    """The bytes of each id, or `None` where tokens are not spelled byte by byte."""
    if (state["decoder"] or {}).get("type") != "ByteLevel" or state["model"]["type"] != "BPE":
        return None
    spelled = {id: len(token) for token, id in state["model"]["vocab"].items()}
    spelled |= {token["id"]: len(token["content"].encode()) for token in state["added_tokens"]}
    sizes = np.zeros(max(spelled) + 1, dtype=np.int64)
    sizes[list(spelled)] = list(spelled.values())
    total = sizes[ids_of(_SIZED)].sum()
    return sizes if total == len(_SIZED.encode()) else None


def _pieces(backend: Any, sizes: np.ndarray | None, ids_of: IdsOf) -> Pieces | None:
    """Where text may be encoded in pieces, what remembers them."""
    if sizes is None:
        return None
    across = (i for token, i in backend.get_vocab().items() if _ACROSS.search(token))
    return Pieces(sizes) if can_join(ids_of, map(backend.decode, ([i] for i in across))) else None


def _is_text(token: str) -> bool:
    """Whether an added token is one character, or a run of blanks (`▁▁` and longer in Gemma's)."""
    return len(token) == 1 or not token.replace("▁", " ").strip()


def _decode(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise FimError(f"not UTF-8 at byte {error.start}") from None
