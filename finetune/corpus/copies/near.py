"""MinHash signatures that stay the same when a file is reformatted, or its names are changed."""

import re
from array import array
from functools import cache
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from fim.languages import LANGUAGES, grammar, has_grammar
from finetune.corpus.copies.words import (
    BLANK,
    CLASSES,
    DIGIT,
    LETTER,
    OTHER,
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
_LOW = np.uint64((1 << 20) - 1)
_CODE, _STRING, _IMPORT, _COMMENT = range(4)
_OPENERS = np.full(256, _COMMENT, np.uint8)
_OPENERS[list(b"\"'`")] = _STRING
_OPENERS[list(b"\n")] = _IMPORT
"""What a match of `_pattern` is, by its first byte."""

_NONE: Hashes = np.empty(0, np.uint64)


def make_signature(text: bytes, language: str) -> bytes:
    """Return what near copies of a text have mostly in common, whatever process asks.

    The first half is a MinHash of the words outside comments, five at a time: blanks, punctuation,
    sigils and licence headers do not count. The second is one of the tokens with names abstracted
    to where each was last used, sixteen at a time; keywords, operators and literals count.

    Args:
        text: UTF-8.
        language: key of `LANGUAGES`.

    Returns:
        `SIGNATURE_BYTES` bytes, or none for a text too small to judge; the second half is zero for
        those too small to judge by it.
    """
    words, structure = _shingles(text, language)
    if not len(words):
        return b""
    rows = (words, structure) if len(structure) else (words,)
    offsets = [0, *accumulate(map(len, rows))]
    digests = RMinHash.digest_matrix_from_flat_token_hashes(
        np.concatenate(rows), offsets, SLOTS, _SEED
    )
    values = np.array([array("I", row) for row in digests.to_rows()])
    folded = ((values * np.uint32(0x9E3779B1)) >> np.uint32(16)).astype("<u2")
    return folded.tobytes().ljust(SIGNATURE_BYTES, b"\0")


def _shingles(text: bytes, language: str) -> tuple[Hashes, Hashes]:
    """Return the hashes of all shingles of the words and of the structure of a text."""
    text = b"\n" + text + PADDING
    literals = _find_literals(text, language)
    data = np.frombuffer(text, np.uint8)
    all_classes = CLASSES[data]
    classes = np.where(literals == _COMMENT, BLANK, all_classes)
    starts, ends = find_runs(classes >= DIGIT)
    if not len(starts):
        return _NONE, _NONE
    hashes = hash_words(text, starts, ends)
    if len(starts) < FEW_WORDS:
        runs = find_runs(all_classes[starts[0] - 1 :] >= DIGIT)  # from the first word of code on
        words = _shingle_words(text, *(run + starts[0] - 1 for run in runs))
    elif b"$" in text:
        words = _shingle_words(text, starts, ends)
    else:
        words = shingle(hashes, WORDS)
    if not _has_grammar(language):
        return words, _NONE
    tokens = _abstract(text, classes, literals, starts, hashes, _keywords(language))
    structure = shingle(tokens, _TOKENS)
    return words, structure if _num_distinct(structure) >= MIN_STRUCTURE else _NONE


def _abstract(
    text: bytes,
    classes: NDArray[np.uint8],
    literals: NDArray[np.uint8],
    starts: Places,
    hashes: Hashes,
    keywords: NDArray[np.bool_],
) -> Hashes:
    """Return a hash for each token but those of imports, for a name that of its last use."""
    data = np.frombuffer(text, np.uint8)
    is_token = (classes == OTHER) & (literals == _CODE)
    is_kept = literals[starts] != _IMPORT
    hashes, starts = hashes[is_kept], starts[is_kept]
    is_token[starts] = True
    places = is_token.nonzero()[0]
    tokens = small_hashes()[data[places]]
    words = (classes[places] != OTHER).nonzero()[0]
    tokens[words] = hashes
    is_name = ~keywords[hashes & _LOW] | (data[starts - 1] == ord("."))
    is_name &= (classes[starts] == LETTER) & (literals[starts] == _CODE)
    names = words[is_name]
    tokens[names] = _last_uses(hashes[is_name], names)
    return tokens


def _shingle_words(text: bytes, starts: Places, ends: Places) -> Hashes:
    """Return the shingles of words, `$name` the same as `name`."""
    starts = starts + (np.frombuffer(text, np.uint8)[starts] == ord("$"))
    is_word = starts < ends
    if np.count_nonzero(is_word) < MIN_WORDS:
        return _NONE
    return shingle(hash_words(text, starts[is_word], ends[is_word]), WORDS)


def _num_distinct(hashes: Hashes) -> int:
    """Count different hashes, up to thousands."""
    if len(hashes) < MIN_STRUCTURE:
        return len(hashes)
    seen = np.zeros(1 << 16, bool)
    seen[hashes.astype(np.uint16)] = True
    return np.count_nonzero(seen)


def _last_uses(hashes: Hashes, places: Places) -> Hashes:
    """Put for each name the distance to its last use, in tokens; 0 for those new or long unused."""
    order = np.argsort(hashes.astype(np.uint16), kind="stable")  # sixteen bits at a time sort fast
    order = order[np.argsort((hashes >> np.uint64(16)).astype(np.uint16)[order], kind="stable")]
    before, after = order[:-1], order[1:]
    gaps = places[after] - places[before]
    gaps[(hashes[after] != hashes[before]) | (gaps > _RECALL)] = 0
    distances = np.zeros(len(hashes), np.int64)
    distances[after] = gaps
    return small_hashes()[128 + distances]


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
def _keywords(language: str) -> NDArray[np.bool_]:
    """Mark the low bits of the hash of each word that is a token of the grammar."""
    rules = grammar(language)
    numbers = range(1, rules.node_kind_count)  # 0 is the end of the file, and called "end"
    kinds = {rules.node_kind_for_id(n) for n in numbers if not rules.node_kind_is_named(n)}
    words = sorted(_RESERVED.intersection(kinds))
    text = "\n".join(words).encode() + PADDING
    edges = np.cumsum([0, *(len(word) + 1 for word in words)])
    table = np.zeros(int(_LOW) + 1, bool)
    table[hash_words(text, edges[:-1], edges[1:] - 1) & _LOW] = True
    return table


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


def _find_literals(text: bytes, language: str) -> NDArray[np.uint8]:
    """Return for each byte what it is in: `_CODE`, `_STRING`, `_IMPORT` or `_COMMENT`."""
    spans = (match.span() for match in _pattern(language).finditer(text))
    bounds = np.array([0, *chain.from_iterable(spans), len(text)], np.int64)
    kinds = np.zeros(len(bounds) - 1, np.uint8)
    kinds[1::2] = _OPENERS[np.frombuffer(text, np.uint8)[bounds[1:-1:2]]]
    literals = kinds.repeat(bounds[1:] - bounds[:-1])
    holes = [m.span() for m in _HOLES.finditer(text)]
    if holes:
        edges = literals[np.array(holes) - (0, 1)]
        for place in np.flatnonzero((edges == _STRING).all(axis=1)).tolist():
            literals[slice(*holes[place])] = _CODE
    return literals
