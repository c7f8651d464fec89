"""MinHash signatures that stay the same when a file is reformatted, or its names are changed."""

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain, groupby, pairwise

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from fim.languages import LANGUAGES, grammar, has_grammar
from finetune.corpus.copies.words import (
    CLASSES,
    PADDING,
    Hashes,
    Places,
    find_runs,
    hash_words,
    shingle,
    small_hashes,
)

SLOTS = 256
"""Values of one MinHash; an estimate of a similarity `s` errs by `sqrt(s * (1 - s) / 256)`."""
SIGNATURE_BYTES = 4 * SLOTS
"""Two MinHashes, of the words and of the structure, 16 bits a value."""
WORDS = 5
"""Words of a shingle (bigcode-dataset `near_deduplication/minhash_deduplication.py`)."""
MIN_WORDS = 12
"""Fewer words are too few to judge a file by."""
FEW_WORDS = 50
"""With fewer words of code, those of its comments count too, but for the header."""
MIN_STRUCTURE = 30
"""With fewer different shingles, two files may well have the same structure by chance."""

_TOKENS = 16
"""Tokens of a shingle of the structure."""
_RECALL = 32
"""A name that was used so many tokens before, or fewer, is told apart from a new one."""
_SEED = 1
_DOT = ord(".")
_LOW = np.uint64((1 << 20) - 1)
_FEW = np.uint64((1 << 14) - 1)
"""Bits of a hash that are looked up first, in a table that stays at hand."""
_CODE, _STRING, _IMPORT, _COMMENT = 0b11100, 0b11101, 0b11110, 0
"""Bits of `_CLASSES` that are kept of a byte, by what it is in; of comments none."""
_CLASSES = bytes([0, 0b00111, 0b01011, 0b10011][kind] for kind in CLASSES)
"""One bit for each class but blanks, and two to say what the byte is in."""
_IS_IN, _MARK, _LEAST_WORD, _LEAST_LETTER = 0b00011, 0b00100, 0b01000, 0b10000
_OPENERS = np.full(256, _COMMENT, np.uint8)
_OPENERS[list(b"\"'`")] = _STRING
_OPENERS[list(b"\n")] = _IMPORT
"""What a match of `_pattern` is, by its first byte."""

_NONE: Hashes = np.empty(0, np.uint64)


def make_signature(text: bytes, language: str) -> bytes:
    """Return what near copies of a text have mostly in common; see `make_signatures`."""
    return make_signatures([(text, language)])[0]


def make_signatures(texts: Sequence[tuple[bytes, str]]) -> list[bytes]:
    """Return for each text what its near copies have mostly in common, whatever process asks.

    The first half is a MinHash of the words outside comments, five at a time: blanks, punctuation,
    sigils and licence headers do not count. The second is one of the tokens with names abstracted
    to where each was last used, sixteen at a time; keywords, operators and literals count.

    Texts are small and steps are many, so that it takes half the time to go over many at once.

    Args:
        texts: UTF-8, each with a key of `LANGUAGES`.

    Returns:
        `SIGNATURE_BYTES` bytes, or none for a text too small to judge; the second half is zero for
        those too small to judge by it.
    """
    if not texts:
        return []
    pairs = _shingles(texts)
    rows = [row for pair in pairs for row in pair if len(row)]
    offsets = [0, *accumulate(map(len, rows))]
    digests = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate([*rows, _NONE]), offsets, SLOTS, _SEED
    )
    values = np.array([array("I", row) for row in digests.to_rows()], np.uint32)
    folded = ((values * np.uint32(0x9E3779B1)) >> np.uint32(16)).astype("<u2")
    halves = map(bytes, folded)
    return [
        b"".join(next(halves) for row in pair if len(row)).ljust(SIGNATURE_BYTES, b"\0")
        if len(pair[0])
        else b""
        for pair in pairs
    ]


@dataclass(frozen=True, slots=True)
class _Texts:
    """Some texts, each between a line end and `PADDING`, in one."""

    text: bytes
    edges: Places
    """Where each starts, and the end."""
    languages: list[str]

    @property
    def data(self) -> NDArray[np.uint8]:
        return np.frombuffer(self.text, np.uint8)

    def slices(self, places: Places) -> list[tuple[int, int]]:
        """Return first and last, exclusive, of the sorted places that are in each text."""
        return list(pairwise(np.searchsorted(places, self.edges).tolist()))


def _shingles(texts: Sequence[tuple[bytes, str]]) -> list[tuple[Hashes, Hashes]]:
    """Return the hashes of all shingles of the words and of the structure of each text."""
    whole = _Texts(
        text=b"".join(piece for text, _ in texts for piece in (b"\n", text, PADDING)),
        edges=np.cumsum([0, *(1 + len(text) + len(PADDING) for text, _ in texts)]),
        languages=[language for _, language in texts],
    )
    all_classes = np.frombuffer(whole.text.translate(_CLASSES), np.uint8)
    classes = all_classes & _find_literals(whole)
    starts, ends = find_runs(classes >= _LEAST_WORD)
    hashes = hash_words(whole.text, starts, ends)
    words = _shingle_words(whole, starts, ends, hashes)
    for number, (first, last) in enumerate(whole.slices(starts)):
        if first < last < first + FEW_WORDS:  # from the first word of code on
            place, end = starts[first] - 1, whole.edges[number + 1]
            runs = find_runs(all_classes[place:end] >= _LEAST_WORD)
            text = _Texts(whole.text[place:end], np.array([0, end - place]), [""])
            words[number] = _shingle_words(text, *runs, hash_words(text.text, *runs))[0]
    structures = _shingle_tokens(whole, classes, starts, hashes)
    return [
        (some, tokens if len(some) else _NONE)
        for some, tokens in zip(words, structures, strict=True)
    ]


def _shingle_words(whole: _Texts, starts: Places, ends: Places, hashes: Hashes) -> list[Hashes]:
    """Return the shingles of the words of each text, `$name` the same as `name`."""
    sigils = (whole.data.take(starts) == ord("$")).nonzero()[0]
    if len(sigils):
        starts, hashes = starts.copy(), hashes.copy()
        starts[sigils] += 1
        hashes[sigils] = hash_words(whole.text, starts.take(sigils), ends.take(sigils))
        is_word = starts < ends
        starts, hashes = starts[is_word], hashes[is_word]
    shingles = shingle(hashes, WORDS)
    return [
        shingles[first : last - WORDS + 1] if last - first >= MIN_WORDS else _NONE
        for first, last in whole.slices(starts)
    ]


def _shingle_tokens(
    whole: _Texts, classes: NDArray[np.uint8], starts: Places, hashes: Hashes
) -> list[Hashes]:
    """Return the shingles of the structure of each text that has enough of them."""
    places, tokens = _abstract(whole, classes, starts, hashes)
    shingles = shingle(tokens, _TOKENS)
    found = []
    for language, (first, last) in zip(whole.languages, whole.slices(places), strict=True):
        own = shingles[first : max(first, last - _TOKENS + 1)]
        found.append(own if _has_grammar(language) and _is_varied(own) else _NONE)
    return found


def _abstract(
    whole: _Texts, classes: NDArray[np.uint8], starts: Places, hashes: Hashes
) -> tuple[Places, Hashes]:
    """Return place and hash of each token but those of imports, for a name that of its last use."""
    kinds = classes.take(starts)
    is_kept = (kinds & _IS_IN) != _IMPORT & _IS_IN
    starts, hashes, kinds = starts[is_kept], hashes[is_kept], kinds[is_kept]
    is_token = classes == _MARK
    is_token[starts] = True
    places = is_token.nonzero()[0]
    tokens = small_hashes().take(whole.data.take(places))
    words = (classes.take(places) != _MARK).nonzero()[0]
    tokens[words] = hashes
    is_name = kinds == _LEAST_LETTER  # a word of letters in code
    is_name[_find_keywords(whole, starts, hashes)] = False
    names = is_name.nonzero()[0]
    counts = [last - first for first, last in whole.slices(starts.take(names))]
    number = np.repeat(np.arange(len(counts)), counts)
    uses = words.take(names)
    tokens[uses] = _last_uses(hashes.take(names), uses + number * (_RECALL + 1))
    return places, tokens


def _find_keywords(whole: _Texts, starts: Places, hashes: Hashes) -> Places:
    """Return the numbers of the words that are keywords of their text's language.

    What stands behind a dot is none.
    """
    found = [np.zeros(0, np.int64)]
    slices = zip(whole.languages, whole.slices(starts), strict=True)
    for language, run in groupby(slices, lambda item: item[0]):
        if _has_grammar(language):
            edges = [edge for _, pair in run for edge in pair]
            few, all_ = _keywords(language)
            own = hashes[edges[0] : edges[-1]]
            numbers = few.take(own & _FEW).nonzero()[0]
            is_one = all_.take(own.take(numbers) & _LOW)
            found.append(numbers[is_one] + edges[0])
    numbers = np.concatenate(found)
    return numbers[whole.data.take(starts.take(numbers) - 1) != _DOT]


def _is_varied(hashes: Hashes) -> bool:
    """Whether there are `MIN_STRUCTURE` different hashes; mostly the first few are."""
    if len(set(hashes[: 2 * MIN_STRUCTURE].tolist())) >= MIN_STRUCTURE:
        return True
    return len(np.unique(hashes.astype(np.uint16))) >= MIN_STRUCTURE


def _last_uses(hashes: Hashes, places: Places) -> Hashes:
    """Put for each name the distance to its last use, in tokens; 0 for those new or long unused."""
    order = np.argsort(hashes.astype(np.uint16), kind="stable")  # sixteen bits at a time sort fast
    more = (hashes >> np.uint64(16)).astype(np.uint16).take(order)
    order = order.take(np.argsort(more, kind="stable"))
    places, hashes = places.take(order), hashes.take(order)
    gaps = places[1:] - places[:-1]
    gaps[(hashes[1:] != hashes[:-1]) | (gaps > _RECALL)] = 0
    distances = np.zeros(len(hashes), np.int64)
    distances[order[1:]] = gaps
    return small_hashes()[128:].take(distances)


_RESERVED = frozenset(
    "abstract and assert begin bool boolean break byte case catch char class const continue def "
    "default del delete do double elif else elsif end ensure enum except extends false False "
    "final finally float fn for foreach fun func function global goto if implements impl in int "
    "interface is lambda let long loop mut new nil None nonlocal not null operator or pass "
    "private protected public raise rescue return self short signed sizeof struct super switch "
    "template then this throw throws trait true True try typedef typename union unless unsigned "
    "until var virtual void while yield".split()
)
"""Words that name nothing where they are tokens of the grammar at all."""
_has_grammar = cache(has_grammar)


@cache
def _keywords(language: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Mark the low bits of the hash of each word that is a token of the grammar: few, and more."""
    rules = grammar(language)
    numbers = range(1, rules.node_kind_count)  # 0 is the end of the file, and called "end"
    kinds = {rules.node_kind_for_id(n) for n in numbers if not rules.node_kind_is_named(n)}
    words = sorted(_RESERVED.intersection(kinds))
    text = "\n".join(words).encode() + PADDING
    edges = np.cumsum([0, *(len(word) + 1 for word in words)])
    hashes = hash_words(text, edges[:-1], edges[1:] - 1)
    tables = np.zeros(int(_FEW) + 1, bool), np.zeros(int(_LOW) + 1, bool)
    for table, low in zip(tables, (_FEW, _LOW), strict=True):
        table[hashes & low] = True
    return tables


_TEXT = rb'"(?:[^"\\\n]++|\\.)*+"?'
_QUOTED = rb"'(?:[^'\\\n]++|\\.)*+'?"
_CHARACTER = rb"'(?:[^'\\\n]|\\[^\n]{1,10}?)'"
_TRIPLE_QUOTED = rb"'''(?:[^'\\]++|\\.|'(?!''))*+(?:''')?"
_TRIPLE = rb'"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?|' + _TRIPLE_QUOTED
_BLOCK = rb"/\*(?:[^*]++|\*(?!/))*+(?:\*/)?"
_COMMENTS = {
    "//": rb"//[^\n]*+|" + _BLOCK,
    "/*": _BLOCK,
    "#": rb"#[^\n]*+",
    "--": rb"--[^\n]*+|" + _BLOCK,
    "%": rb"%[^\n]*+",
    ";": rb";[^\n]*+",
    "(*": rb"\(\*(?:[^*]++|\*(?!\)))*+(?:\*\))?",
    "<!--": rb"<!--(?:[^-]++|-(?!->))*+(?:-->)?",
}
"""What a comment looks like, by `Language.comment`."""
_WITH_CHARACTERS = frozenset("rust haskell ocaml ocaml_interface scala".split())
_BACKTICKS_OF = {"go": rb"`[^`]*+`?"} | dict.fromkeys(
    ("javascript", "typescript", "tsx"), rb"`(?:[^`\\]++|\\.)*+`?"
)
_IMPORTS = (
    rb"\n[ \t]*+(?:import|from|use|using|package|#[ \t]*+(?:include|import))\b"
    rb"[^\n({]*+(?:\([^)]{0,2000}+\)|\{[^}]{0,2000}+\})?"
)
_HOLES = re.compile(rb"\{[\w.$][^{}\n]*+\}")
"""Code inside a string: `{name}`, `${name}` or `#{name}`."""


@cache
def _pattern(language: str) -> re.Pattern[bytes]:
    """Match the next import, comment or string, roughly: no parse is asked for."""
    comment = LANGUAGES[language].comment
    parts = [_IMPORTS, _COMMENTS.get(comment, re.escape(comment.encode()) + rb"[^\n]*+")]
    if language == "python":
        parts.append(_TRIPLE)
    parts += [_TEXT, _CHARACTER if language in _WITH_CHARACTERS else _QUOTED]
    if language in _BACKTICKS_OF:
        parts.append(_BACKTICKS_OF[language])
    return re.compile(b"|".join(parts), re.DOTALL)


def _find_literals(whole: _Texts) -> NDArray[np.uint8]:
    """Return for each byte what it is in: `_CODE`, `_STRING`, `_IMPORT` or `_COMMENT`."""
    spans = [
        match.span()
        for language, (start, end) in zip(
            whole.languages, pairwise(whole.edges.tolist()), strict=True
        )
        for match in _pattern(language).finditer(whole.text, start, end)
    ]
    bounds = np.array([0, *chain.from_iterable(spans), len(whole.text)], np.int64)
    kinds = np.full(len(bounds) - 1, _CODE, np.uint8)
    kinds[1::2] = _OPENERS.take(whole.data.take(bounds[1:-1:2]))
    literals = kinds.repeat(bounds[1:] - bounds[:-1])
    holes = [match.span() for match in _HOLES.finditer(whole.text)]
    if holes:
        edges = literals[np.array(holes) - (0, 1)]
        for place in np.flatnonzero((edges == _STRING).all(axis=1)).tolist():
            literals[slice(*holes[place])] = _CODE
    return literals
