"""The optional extra `fast`: fastokens gives the ids of text, once it has given the same ones.

It reads the same `tokenizer.json` and is many times faster, so parsing, not tokenizing, takes the
time. Whether it agrees with *this* tokenizer is tried at every start, on the user's own files and
on text that tokenizers trip over.
"""

import hashlib
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from multiprocessing import parent_process
from typing import Any

import numpy as np

from fim import FORMATS, content_tokenizer
from fim.content import use_encoder
from fim.formats import backend_of, control_tokens
from fim.pieces import IdsOf
from finetune.progress import warn

OWN_BYTES = 262_144
"""Bytes of the user's own files on which the ids are compared."""
_OWN_PIECE = 8_192
"""Of one file, at most so many of these."""


def speed_up(tokenizer: Any, choice: str, texts: Iterable[bytes] = ()) -> bool:
    """Let fastokens give the ids of text where it is installed and gives the same ones.

    Where it does not, the tokenizer stays as it is, and standard error says why, once and without
    a word of the text; only `auto` says nothing of a fastokens that is not installed.

    Args:
        tokenizer: a `transformers` fast tokenizer.
        choice: `model.tokenizer` of the recipe.
        texts: the user's own files; the first `OWN_BYTES` are compared.

    Returns:
        Whether fastokens encodes.
    """
    if choice == "transformers":
        return False
    if find_spec("fastokens") is None:
        if choice == "fastokens":
            _warn("model.tokenizer is fastokens, which is not installed: pip install 'sfim[fast]'")
        return False
    reference = content_tokenizer(tokenizer).ids_of
    tried = _try(tokenizer, reference)
    kind = first_difference(tried.ids_of, reference, _own(texts)) if tried.ids_of else None
    fault = tried.fault or _difference(kind)
    if fault:
        _warn(fault)
    else:
        use_encoder(tokenizer, tried.ids_of)
    return not fault


@dataclass(frozen=True, slots=True)
class _Tried:
    ids_of: IdsOf | None
    fault: str = ""


_TRIED: dict[str, _Tried] = {}
"""What came of a tokenizer, by its digest: a run loads the same one several times."""


def _try(tokenizer: Any, reference: IdsOf) -> _Tried:
    """Load fastokens from the copy without control tokens, and compare on `awkward_texts`."""
    digest = hashlib.sha256(backend_of(tokenizer).to_str().encode()).hexdigest()
    if digest not in _TRIED:
        _TRIED[digest] = _try_once(tokenizer, reference)
    return _TRIED[digest]


def _try_once(tokenizer: Any, reference: IdsOf) -> _Tried:
    from fastokens import Tokenizer

    if parent_process() is not None:  # every worker would start as many threads as there are cores
        os.environ.setdefault("RAYON_NUM_THREADS", "1")
    try:
        fast = Tokenizer.from_json_str(content_tokenizer(tokenizer).backend.to_str())
    except Exception as error:  # the Rust side raises whatever its parsers give
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return _Tried(None, f"fastokens cannot read this tokenizer ({reason})")
    ids_of = _with_fallback(fast, reference)
    kind = first_difference(ids_of, reference, awkward_texts(tokenizer))
    return _Tried(ids_of, _difference(kind))


def _difference(kind: str | None) -> str:
    return f"fastokens gives other ids than the tokenizer for {kind}" if kind else ""


def first_difference(
    ids_of: IdsOf, reference: IdsOf, texts: Iterable[tuple[str, str]]
) -> str | None:
    """Return the kind of the first text that two tokenizers encode differently.

    Args:
        ids_of: text to ids.
        reference: text to ids.
        texts: what kind of text, and the text.
    """
    differing = (k for k, text in texts if not np.array_equal(ids_of(text), reference(text)))
    return next(differing, None)


def awkward_texts(tokenizer: Any) -> Iterator[tuple[str, str]]:
    """Yield text that tokenizers trip over, with its kind; the same every time."""
    rng = random.Random(0)
    yield from (("nothing", ""), ("NUL bytes", "a\0b\0\0 \0c\0"))
    yield from (("characters of " + name, text) for name, text in _planes(rng))
    for kind, words in _WORDS.items():
        yield from ((kind, text) for text in _mixed(words, rng))
    yield from (("sentinels", text) for text in _mixed(_sentinels(tokenizer), rng))
    yield from (("long lines", text) for text in _long_lines(rng))


_BLANKS = (" ", "  ", "   ", "    ", "\t", "\n", "\r\n", "\r", "\n\n", " " * 40, "\t" * 17, " \n")
_WORDS = {
    "blanks": (*_BLANKS, "\u00a0", "\u2003", "\u3000", "\u2028", "\x0b", "\x0c", "\x85", "x", "("),
    "line ends": (*_BLANKS, "x", ";", "{", "}\n", "*/\r\n", "\n\r", "1\n", "é\n"),
    "digits": ("1", "22", "333", "4444", "0x1F", "1e-9", "1_000", "٣٤", "१२", "²", "½", "Ⅷ", "x"),
    "control characters": (*map(chr, range(32)), "\x7f", "\x80", "\ufeff", "\u200b", "a", " "),
    "punctuation": (*"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "==", "->", "::", "//", "…", "x"),
    "apostrophes": ("'s", "'S", "'ll", "'LL", "\u2019s", "'\u017f", "don't", "I'M", "'", "x"),
    "emoji": ("😀", "👩‍👩‍👧", "👍🏽", "🇩🇪", "1️⃣", "❤️", "☺", "🏴‍☠️", "x", " ", "\n"),
    "combining marks": ("e\u0301", "é", "a\u0323\u0302", "\u1100\u1161", "각", "\u0958", "\u2126",
                        "\u212b", "Z̷̢", "\u0301", "ﬁ", "x", " "),
    "many scripts": ("für", "naïve", "Ünï", "日本語", "漢字かな", "한국어", "русский", "ελληνικά",
                     "עברית", "العربية", "हिन्दी", "ไทย", "ǅ", "ß", "İ", "x", " ", "_", "1"),
}  # fmt: skip


def _mixed(words: Iterable[str], rng: random.Random) -> Iterator[str]:
    """Each word alone, and 16 texts of 200 words in random order."""
    words = tuple(words)
    yield from words
    yield from ("".join(rng.choices(words, k=200)) for _ in range(16))


def _planes(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Every character of the first 12,288, and some of each plane, joined and one by one."""
    yield "the first plane", "".join(map(chr, range(0x3000)))
    for plane in range(17):
        points = [rng.randrange(plane << 16, (plane + 1) << 16) for _ in range(600)]
        characters = [chr(point) for point in points if not 0xD800 <= point < 0xE000]
        yield f"plane {plane}", "".join(characters)
        yield f"plane {plane}", " x".join(characters)


def _sentinels(tokenizer: Any) -> tuple[str, ...]:
    """The control tokens of every family and of this tokenizer, and words to put between."""
    of_families = {
        token
        for row in FORMATS.values()
        for token in (
            *control_tokens(row),
            row.end,
            row.document_end,
            *row.stop,
            row.file,
            row.repo,
        )
    }
    return (*sorted({*of_families, *tokenizer.get_added_vocab()} - {""}), "x", " ", "\n", "<|", "▁")


def _long_lines(rng: random.Random) -> Iterator[str]:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
    for text in ("a", " ", "ab ", "1", "é", "()", "=", "\n", "\t"):
        yield text * (4_096 // len(text)) + "x"
    yield "".join(rng.choices(letters, k=8_192))
    yield "".join(f'"{rng.randrange(1_000)}":[{rng.random()}],' for _ in range(300))


def _own(texts: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """The starts of the user's own files."""
    room = OWN_BYTES
    for text in texts:
        piece = text[: min(_OWN_PIECE, room)].decode(errors="ignore")
        room -= len(piece.encode())
        yield "your own files", piece
        if room < 4:  # bytes of one character
            return


def _with_fallback(fast: Any, reference: IdsOf) -> IdsOf:
    """The ids of fastokens; what it cannot do goes to the tokenizer.

    That is a text its regular expressions give up on, and any text in a process forked from the one
    that loaded it: its threads are not there, and it would wait for them for ever.
    """
    loaded_in = os.getpid()

    def ids_of(text: str) -> np.ndarray:
        if os.getpid() != loaded_in:
            return reference(text)
        try:
            ids, _offsets = fast.encode_batch_flat([text])
        except ValueError:
            return reference(text)
        return np.frombuffer(ids, dtype=np.int32)

    return ids_of


@cache
def _warn(reason: str) -> None:
    """Say it once, in the process the user started."""
    if parent_process() is None:
        warn(f"{reason}; transformers encodes, slower")
