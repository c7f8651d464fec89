"""What a file says about other files: its imports, what it defines and what it uses."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from operator import attrgetter

import tree_sitter

from fim.languages import grammar, has_grammar
from finetune.corpus.links.queries import LINK_ROWS
from finetune.corpus.parsing import parse_file

MAX_IMPORTS = 2_000
MAX_IN_ERROR = 60_000
"""Children of a root that is an ERROR node, above which nothing is looked for: a query may take
time with their square."""
MAX_NODES = 10_000
"""Most places of imports that are looked at: what is above a node takes long to find in some."""
MAX_IMPORT = 2_000
"""Most characters of an import: those of Python list the names they take from a module."""
MAX_NAMES = 64
"""Most definitions, used names and words that are kept of a file."""
MAX_NAME = 100
"""Longer names, in characters, are made by tools."""
MAX_STRETCHES = 256
"""Parts of a tree that are looked through one by one."""
_NEAR = 128
_WORD = re.compile(r"\b[^\W\d_]\w{2,39}\b")
_WORD_BYTES = 8_192
_PART = re.compile(rb"[^\s,:\"'<>*]+")
"""What a reader of imports takes as it stands; between such parts are its own signs."""
_RANGE = attrgetter("byte_range")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Names that tie a file to others; each language has its own form, see `link_queries`."""

    imports: tuple[str, ...] = ()
    """What is imported when the file is loaded, in the order of the file."""
    late_imports: tuple[str, ...] = ()
    """Imports inside functions, for types only, and declarations of a file's parts."""
    package: str = ""
    """Package or namespace the file says it is in."""
    definitions: tuple[str, ...] = ()
    """Top-level names that other files may use without saying where they are."""
    names: tuple[str, ...] = ()
    """Names that are called or used as types and not defined here, the commonest first."""
    words: tuple[str, ...] = ()
    """The commonest words, the commonest first; of files without imports only."""


def find_links(text: bytes, language: str) -> Links:
    """Return what ties a file to others; nothing but words where the language has no row.

    Raises:
        FimError: the file took too long to parse.
    """
    if language not in LINK_ROWS or not has_grammar(language):
        return Links(words=common_words(text))
    captures = _captures(parse_file(text, language).root, text, language)
    row = LINK_ROWS[language]
    nodes = sorted(captures.get("import", ()), key=_RANGE)[:MAX_NODES]
    found = [each for node in nodes for each in row.read_import(node, text)]
    imports = _distinct([n for n, late in found if not late], MAX_IMPORTS, MAX_IMPORT)
    late = _distinct([name for name, late in found if late], MAX_IMPORTS, MAX_IMPORT)
    package = next(_texts(captures.get("package", ()), text), "")
    definitions = _distinct(_texts(captures.get("definition", ()), text), MAX_NAMES, MAX_NAME)
    uses = row.read_names(_count(captures.get("name", ()), text), found)
    return Links(
        imports=imports,
        late_imports=tuple(name for name in late if name not in imports),
        package=package if len(package) <= MAX_NAME else "",
        definitions=definitions,
        names=_commonest(uses, set(definitions)),
        words=() if found else common_words(text),
    )


def is_said(links: Links, text: bytes) -> bool:
    """Whether a text holds all that links name, but for their words.

    A name that was replaced in it, as a secret is, it does not hold.
    """
    names = (*links.imports, *links.late_imports, links.package, *links.definitions, *links.names)
    return all(part in text for part in set(_PART.findall("\n".join(names).encode())))


def _captures(
    root: tree_sitter.Node, text: bytes, language: str
) -> dict[str, list[tree_sitter.Node]]:
    """Nodes by what they are captured as, in the order of addresses in memory."""
    if root.is_error and root.child_count > MAX_IN_ERROR:
        return {}
    cursor = tree_sitter.QueryCursor(_query(language))
    words = LINK_ROWS[language].words
    if not words:
        return cursor.captures(root)
    found = defaultdict(dict)
    for start, end in _stretches(words, text):
        for name, nodes in cursor.set_byte_range(start, end).captures(root).items():
            found[name].update((node.id, node) for node in nodes)
    return {name: list(nodes.values()) for name, nodes in found.items()}


def _stretches(words: Iterable[bytes], text: bytes) -> list[tuple[int, int]]:
    """Ranges of bytes that hold all places of some words, and not much else where these are few."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(place for word in words for place in _places(word, text)):
        if found and start - found[-1][1] < _NEAR:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found if len(found) <= MAX_STRETCHES else [(found[0][0], found[-1][1])]


def _places(word: bytes, text: bytes) -> Iterator[tuple[int, int]]:
    """Where a word stands; several times as fast as a pattern."""
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
            yield start, end
        start = text.find(word, end)


@cache
def _query(language: str) -> tree_sitter.Query:
    return tree_sitter.Query(grammar(language), LINK_ROWS[language].query)


def _texts(nodes: Iterable[tree_sitter.Node], text: bytes) -> Iterator[str]:
    for node in sorted(nodes, key=_RANGE):
        yield text[node.start_byte : node.end_byte].decode("utf-8", "replace")


def _count(nodes: Iterable[tree_sitter.Node], text: bytes) -> Counter[str]:
    counts = Counter([text[node.start_byte : node.end_byte] for node in nodes])
    return Counter({name.decode("utf-8", "replace"): count for name, count in counts.items()})


def _distinct(names: Iterable[str], most: int, longest: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if 0 < len(name) <= longest))[:most]


def _commonest(uses: Counter[str], own: set[str]) -> tuple[str, ...]:
    others = (name for name, _ in _by_count(uses) if name not in own and 0 < len(name) <= MAX_NAME)
    return tuple(name for name, _ in zip(others, range(MAX_NAMES), strict=False))


def _by_count(uses: Counter[str]) -> Iterator[tuple[str, int]]:
    yield from sorted(uses.items(), key=lambda item: (-item[1], item[0]))


def common_words(text: bytes) -> tuple[str, ...]:
    """Return `Links.words` of a text."""
    counts = Counter(_WORD.findall(text[:_WORD_BYTES].decode("utf-8", "replace")))
    return tuple(word for word, _ in list(_by_count(counts))[:MAX_NAMES])
