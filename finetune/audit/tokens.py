"""What the ids of a sample say, read back with a decoder of its own.

ids     BOS <header> PRE prefix tokens SUF suffix tokens MID middle tokens END
labels   -    -       x        x        x        x        x        x        x     loss: all
labels   -    -       -        -        -        -        -        x        x     loss: middle
"""

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from fim import IGNORE_INDEX, FimError
from finetune.audit.read import Row

_BLANK = "▁"
"""SentencePiece's blank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What each id stands for."""

    texts: list[bytes]
    """Bytes of each id; empty for control tokens."""
    is_control: np.ndarray
    """Whether an id is a control token, `bool` of shape `(ids,)`."""
    ids: dict[str, int]
    """Id of each token by its text."""
    has_pieces: bool
    """SentencePiece: blanks are written otherwise, and one may be added before a text."""
    is_composed: bool
    """The tokenizer composes characters (NFC) before it encodes."""

    def decode(self, ids: np.ndarray) -> bytes:
        """Return the bytes of content ids."""
        return b"".join(map(self.texts.__getitem__, ids.tolist()))

    def spellings(self, text: bytes) -> Iterator[bytes]:
        """Yield the ways the ids of a text may read: as it is, or as the tokenizer rewrites it."""
        if self.has_pieces:
            text = text.replace(_BLANK.encode(), b" ")
        yield text
        if self.is_composed and not text.isascii():
            yield unicodedata.normalize("NFC", text.decode(errors="replace")).encode()


def read_vocabulary(backend: Any) -> Vocabulary:
    """Read the ids of a tokenizer.

    Args:
        backend: a `tokenizers.Tokenizer`.

    Raises:
        FimError: neither byte-level nor SentencePiece with byte pieces.
    """
    state = json.loads(backend.to_str())
    decoder = json.dumps(state["decoder"])
    has_pieces = "ByteFallback" in decoder
    if not has_pieces and "ByteLevel" not in decoder:
        raise FimError(
            "the tokenizer is neither byte-level nor SentencePiece with byte pieces; "
            "its ids cannot be read back"
        )
    ids = backend.get_vocab(with_added_tokens=True)
    read = _piece_bytes if has_pieces else _level_bytes
    texts = [b""] * (max(ids.values()) + 1)
    is_control = np.zeros(len(texts), dtype=bool)
    for token, number in ids.items():
        texts[number] = read(token)
    for token in state["added_tokens"]:
        content = token["content"]
        # single characters and runs of blanks are text, every other added token controls
        is_control[token["id"]] = len(content) > 1 and bool(content.strip())
        texts[token["id"]] = b"" if is_control[token["id"]] else content.encode()
    is_composed = "NFC" in json.dumps(state["normalizer"])
    return Vocabulary(
        texts=texts, is_control=is_control, ids=ids, has_pieces=has_pieces, is_composed=is_composed
    )


def _piece_bytes(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace(_BLANK, " ").encode()


def _level_bytes(token: str) -> bytes:
    table = _byte_of_character()
    return bytes(table[c] for c in token) if table.keys() >= set(token) else token.encode()


@cache
def _byte_of_character() -> dict[str, int]:
    """The alphabet of byte-level BPE: printable Latin-1 stands for itself, the rest from U+0100.

    Source:
        openai/gpt-2, `src/encoder.py`, `bytes_to_unicode`.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How the samples of a run are written."""

    vocabulary: Vocabulary
    row: Any
    """Row of `FORMATS`."""
    bos: list[int]
    """Ids at the start of every sample."""
    loss: str
    """`all` or `middle`."""
    path_header: str
    """`none`, `comment` or `family`."""
    has_context: bool
    """Whether other files of the repository are asked for."""

    def id_of(self, token: str) -> int:
        """Return the id of a token of the format, -1 where the tokenizer has none."""
        return self.vocabulary.ids.get(token, -1)

    def extras(self) -> set[int]:
        """Return the control tokens that a path header and other files bring along."""
        form = self.row
        if self.path_header == "none" and not self.has_context:
            return set()
        return {self.id_of(token) for token in (form.file, form.file_end, form.repo)} - {-1}

    def controls(self, order: str) -> list[int] | None:
        """Return the control tokens of an order, the end last; `None` where it has no such."""
        layout = self.row.orders.get(order)
        if layout is None:
            return None
        return [self._control(part) for part in layout if _is_control(part)] + [
            self.id_of(self.row.end)
        ]

    def _control(self, part: str) -> int:
        form = self.row
        named = {"PRE": form.prefix, "SUF": form.suffix, "MID": form.middle}
        return self.id_of(named.get(part, part))


def _is_control(part: str) -> bool:
    """Whether an entry of a layout is a control token: no segment, no files, no literal text."""
    return part not in ("P", "S", "M", "C") and type(part) is str


def make_rendering(tokenizer: Any, form: Any, fim: Any) -> Rendering:
    """Read how a run writes samples.

    Args:
        tokenizer: of `transformers`.
        form: row of `FORMATS`.
        fim: the recipe's section.
    """
    backend = tokenizer.backend_tokenizer
    vocabulary = read_vocabulary(backend)
    bos = [vocabulary.ids.get(form.bos, -1)] if form.bos else []
    if form.bos and bos == [-1]:  # not a token's text: what the tokenizer puts there by itself
        plain = backend.encode("a", add_special_tokens=False).ids
        whole = backend.encode("a", add_special_tokens=True).ids
        bos = whole[: len(whole) - len(plain)] if whole[-1:] == plain[-1:] else []
    return Rendering(
        vocabulary=vocabulary,
        row=form,
        bos=bos,
        loss=fim.loss,
        path_header=fim.path_header,
        has_context=getattr(fim, "context", "none") != "none",
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Where the segments of a sample are, and what no loss is taken on."""

    segments: dict[str, slice]
    """`P`, `S` and `M`."""
    unlearned: list[slice]
    """BOS, literal text, other files and path header."""


def token_faults(
    row: Row, text: bytes, ids: np.ndarray, labels: np.ndarray, rendering: Rendering
) -> Iterator[str]:
    """Yield the rules that the tokens of a row break.

    Args:
        row: a row whose offsets are in range.
        text: its document.
        ids: tokens of the sample, shape `(length,)`.
        labels: the same shape.
        rendering: how the run writes samples.
    """
    if not len(ids) or not (0 <= ids.min() and ids.max() < len(rendering.vocabulary.texts)):
        yield "layout"
        return
    cut = _ar_parts if row.order == "ar" else _fim_parts
    parts = cut(row, ids, rendering)
    if isinstance(parts, str):
        yield parts
        return
    if not _labels_are_right(parts, row, ids, labels, rendering):
        yield "labels"
    if not _header_is_right(parts, row, ids, rendering):
        yield "headers"
    read = {name: ids[part] for name, part in parts.segments.items()}
    if row.order == "ar":
        yield from _piece_faults(row, text, read["M"], ids, rendering)
    else:
        yield from _text_faults(row, text, read, rendering)


def _fim_parts(row: Row, ids: np.ndarray, rendering: Rendering) -> _Parts | str:
    """Cut a FIM sample at its sentinels; the name of a rule where they are not as they must be."""
    vocabulary, extras, bos = rendering.vocabulary, rendering.extras(), rendering.bos
    if int(ids[-1]) != rendering.id_of(rendering.row.end):
        return "ends"
    expected = rendering.controls(row.order)
    if expected is None or ids[: len(bos)].tolist() != bos:
        return "layout"
    rest = ids[len(bos) :]
    found = rest[vocabulary.is_control[rest]].tolist()
    if [c for c in found if c not in extras] != [c for c in expected if c not in extras]:
        return "layout"
    parts = _cut_back(row, ids, rendering, expected[:-1])
    if parts is None:
        return "counts"
    if any(vocabulary.is_control[ids[part]].any() for part in parts.segments.values()):
        return "layout"
    return parts


def _cut_back(
    row: Row, ids: np.ndarray, rendering: Rendering, sentinels: list[int]
) -> _Parts | None:
    """Cut from the end: segments by the row's counts, the rest by the sentinels before it."""
    sizes = {"P": row.prefix_tokens, "M": row.middle_tokens, "S": row.suffix_tokens}
    segments: dict[str, slice] = {}
    unlearned: list[slice] = []
    at, has_more, waiting = len(ids) - 1, False, list(sentinels)
    for part in reversed(rendering.row.orders[row.order]):
        if part in sizes:
            segments[part] = slice(at - sizes[part], at)
            at -= sizes[part]
            has_more = part == "P" and rendering.path_header != "none"
            if at < 0:
                return None
        elif _is_control(part):
            places = np.flatnonzero(ids[:at] == waiting.pop())
            if not len(places) or (places[-1] + 1 < at and not has_more):
                return None
            unlearned.append(slice(int(places[-1]) + 1, at))
            at, has_more = int(places[-1]), False
        else:
            has_more = True
    may_lead = has_more or rendering.path_header != "none" or rendering.has_context
    if at < len(rendering.bos) or (at > len(rendering.bos) and not may_lead):
        return None
    return _Parts(segments, [slice(0, at), *unlearned])


def _ar_parts(row: Row, ids: np.ndarray, rendering: Rendering) -> _Parts | str:
    """Cut an autoregressive sample: what leads, the piece, perhaps the end."""
    is_control, bos = rendering.vocabulary.is_control, rendering.bos
    stop = len(ids) - _has_end(ids, rendering)
    start = stop - row.middle_tokens
    if start < len(bos) or row.prefix_tokens or row.suffix_tokens:
        return "counts"
    lead = ids[len(bos) : start]
    if len(lead) and rendering.path_header == "none" and not rendering.has_context:
        return "counts"
    strays = set(lead[is_control[lead]].tolist()) - rendering.extras()
    if ids[: len(bos)].tolist() != bos or strays or is_control[ids[start:stop]].any():
        return "layout"
    return _Parts({"M": slice(start, stop)}, [slice(0, start)])


def _has_end(ids: np.ndarray, rendering: Rendering) -> bool:
    return int(ids[-1]) == rendering.id_of(rendering.row.document_end)


def other_files(row: Row, ids: np.ndarray, rendering: Rendering) -> Iterator[tuple[str, bytes]]:
    """Yield path and text of each other file in a sample, in families with a token before a path.

    Texts that the tokenizer composes cannot be told from those of other files, and are left out.
    """
    vocabulary, file = rendering.vocabulary, rendering.id_of(rendering.row.file)
    parts = _ar_parts(row, ids, rendering) if row.order == "ar" else _fim_parts(row, ids, rendering)
    if isinstance(parts, str) or not rendering.has_context or file < 0:
        return
    for part in parts.unlearned:
        region = ids[part]
        starts = np.flatnonzero(region == file).tolist()
        for start, stop in pairwise([*starts, len(region)]):
            path, _, text = vocabulary.decode(region[start + 1 : stop]).partition(b"\n")
            if text and not (vocabulary.is_composed and not text.isascii()):
                yield path.decode(errors="replace"), text


def _labels_are_right(
    parts: _Parts, row: Row, ids: np.ndarray, labels: np.ndarray, rendering: Rendering
) -> bool:
    if len(labels) != len(ids):
        return False
    expected = ids.copy()
    if rendering.loss == "middle" and row.order != "ar":
        expected[: parts.segments["M"].start] = IGNORE_INDEX
    for part in (slice(0, 1), *parts.unlearned):
        expected[part] = IGNORE_INDEX
    return bool((labels == expected).all())


def _header_is_right(parts: _Parts, row: Row, ids: np.ndarray, rendering: Rendering) -> bool:
    """Whether a header that names the path does, wherever the family has it."""
    form = rendering.row
    names_path = rendering.path_header == "comment" or (
        rendering.path_header == "family"
        and (rendering.id_of(form.file) >= 0 or "{path}" in form.header)
    )
    read = b"".join(rendering.vocabulary.decode(ids[part]) for part in parts.unlearned)
    return not names_path or any(
        path in read for path in rendering.vocabulary.spellings(row.path.encode(errors="replace"))
    )


def _text_faults(
    row: Row, text: bytes, read: dict[str, np.ndarray], rendering: Rendering
) -> Iterator[str]:
    """MIDDLE is the document's bytes; prefix and suffix are those that touch it."""
    vocabulary, guarded = rendering.vocabulary, rendering.row.guarded
    before, after = text[: row.start_byte], text[row.end_byte :]
    middle = text[row.start_byte : row.end_byte]
    rules = {
        "P": lambda got: any(s.endswith(got) for s in vocabulary.spellings(before)),
        "S": lambda got: any(s.startswith(got) for s in vocabulary.spellings(after)),
        "M": lambda got: got in vocabulary.spellings(middle),
    }
    for name, rule in rules.items():
        if not any(map(rule, _readings(read[name], name in guarded, vocabulary))):
            yield "texts"
            return


def _piece_faults(
    row: Row, text: bytes, piece: np.ndarray, ids: np.ndarray, rendering: Rendering
) -> Iterator[str]:
    """An autoregressive sample is a piece of the document; only the last piece has an end."""
    vocabulary = rendering.vocabulary
    whole = text[row.start_byte : row.end_byte]
    readings = list(_readings(piece, False, vocabulary))
    spellings = list(vocabulary.spellings(whole))
    if not any(s.startswith(got) for s in spellings for got in readings):
        yield "texts"
        return
    is_last = row.end_byte == len(text) and any(got in spellings for got in readings)
    if _has_end(ids, rendering) != is_last:
        yield "ends"


def _readings(ids: np.ndarray, is_guarded: bool, vocabulary: Vocabulary) -> Iterator[bytes]:
    """What ids read; SentencePiece puts a blank before a text that is not guarded."""
    got = vocabulary.decode(ids)
    yield got
    if vocabulary.has_pieces and not is_guarded and got.startswith(b" "):
        yield got[1:]
