"""Parsed files: a tree-sitter tree that was bounded in time, and questions asked of it.

Nothing here recurses over a tree or lists the children of a node that may have many: real files
nest 3,000 levels and hold 20,000 siblings.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from operator import attrgetter

import tree_sitter

from fim.errors import FimError
from fim.languages import construct_query, find_language, grammar

_CHUNK = 65_536
_STRIDE = 2_048
"""Bytes for which one node is kept, below which searches start."""
_MARGIN = 2_048
"""Bytes that node spans to either side of them."""
_MOST_IN_ERROR = 10_000
"""Children of a root that is an ERROR node, above which its constructs are not looked for."""
_NEAR = 1_024
"""Bytes that share an answer of `Syntax.above`."""
DENSE = frozenset({"call", "arguments", "expression"})
"""Constructs that are most of what a query finds, and are met by chance without one."""
_of_thread = threading.local()
_START = attrgetter("start_byte")
_ALL_OF_A_NODE = attrgetter("start_byte", "end_byte", "kind_id")


@dataclass(slots=True)
class Syntax:
    """A document's bytes, its tree, and what was already looked up in it."""

    text: bytes
    language: str
    tree: tree_sitter.Tree
    root: tree_sitter.Node = field(init=False, repr=False)
    """The node of the whole file."""
    has_error: bool = field(init=False)
    """Whether any node is an ERROR or MISSING node."""
    _anchors: dict[int, tree_sitter.Node] = field(init=False, repr=False, default_factory=dict)
    _above: dict[tuple[int, int], tree_sitter.Node] = field(
        init=False, repr=False, default_factory=dict
    )
    _errors: list[tuple[int, int]] | None = field(init=False, repr=False, default=None)
    _nodes: dict[str, list[tree_sitter.Node]] = field(init=False, repr=False, default_factory=dict)
    found: dict[tuple[str, int], list] = field(init=False, repr=False, default_factory=dict)
    """What a look through the whole file gave, by what was looked for and its most bytes."""
    jumps: tuple[tree_sitter.TreeCursor, int] | None = field(init=False, repr=False, default=None)
    """A cursor at the root and the number of nodes below it, once any node was asked for."""
    _sorted: set[str] = field(init=False, repr=False, default_factory=set)
    _content: tuple[int, int] | None = field(init=False, repr=False, default=None)
    _lines: list[int] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Keep the root, which every question starts at."""
        self.root = self.tree.root_node
        self.has_error = self.root.has_error

    def around(self, start: int, end: int) -> tree_sitter.Node:
        """Return the smallest named node that spans a range; the root if it leaves the text.

        Finding it from the root takes a step for each level above it, which in a file nested
        20,000 deep is most of the time; so a node is kept every few thousand bytes to start at.
        """
        if start < 0 or end > len(self.text):
            return self.root
        below = self._anchor(start, end)
        return below.named_descendant_for_byte_range(start, end) or below

    def above(self, byte: int, most: int) -> tree_sitter.Node:
        """Return a node below which all nodes of at most `most` bytes lie that hold a byte."""
        place = byte // _NEAR
        found = self._above.get((place, most))
        if found is None:
            half = most // 2 + 1
            found = self.around(place * _NEAR - half, (place + 1) * _NEAR + half)
            self._above[place, most] = found
        return found

    def leaf(self, byte: int) -> tree_sitter.Node | None:
        """Return the token that holds a byte; between tokens there is none."""
        if byte >= len(self.text):
            return None
        found = self._anchor(byte, byte + 1).descendant_for_byte_range(byte, byte + 1)
        return found if found is not None and found.child_count == 0 else None

    def in_error(self, byte: int) -> bool:
        """Whether an ERROR node other than the root holds a byte: nothing inside one is whole."""
        if not self.has_error:
            return False
        if self._errors is None:
            nodes = _error_nodes(self.root, inside=True)
            self._errors = sorted((node.start_byte, node.end_byte) for node in nodes)
        place = bisect_right(self._errors, (byte, len(self.text) + 1)) - 1
        return place >= 0 and byte < self._errors[place][1]

    def constructs(self) -> tuple[str, ...]:
        """Names of the constructs of the language's row that the file has."""
        return tuple(name for name in find_language(self.language).constructs if self._list(name))

    def num_nodes(self, construct: str) -> int:
        """How many nodes of a construct the file has."""
        return len(self._list(construct))

    def is_listed(self, construct: str) -> bool:
        """Whether all nodes of a construct were looked for."""
        return construct in self._nodes

    def node_of(self, construct: str, place: int) -> tree_sitter.Node:
        """Return one node of a construct, by its place in the order of the document.

        Captures come in the order of addresses in memory. Where nodes start is cheap to sort by;
        only where some start together do the other keys matter.
        """
        nodes = self._list(construct)
        if construct not in self._sorted:
            starts = {node.start_byte for node in nodes}
            nodes.sort(key=_START if len(starts) == len(nodes) else _ALL_OF_A_NODE)
            self._sorted.add(construct)
        return nodes[place]

    def is_all(self, start: int, end: int) -> bool:
        """Whether nothing but blanks lies outside a range."""
        if self._content is None:
            stripped = len(self.text.rstrip())
            self._content = len(self.text) - len(self.text.lstrip()), stripped
        return start <= self._content[0] and end >= self._content[1]

    def line_starts(self) -> list[int]:
        """Offsets of the first byte of each line, and of the text's end."""
        if self._lines is None:
            lengths = map(len, self.text.splitlines(keepends=True))
            self._lines = list(accumulate(lengths, initial=0))
        return self._lines

    def _anchor(self, start: int, end: int) -> tree_sitter.Node:
        """A node that spans a range, and from which the way down to it is short."""
        stride = start // _STRIDE
        low, high = stride * _STRIDE - _MARGIN, (stride + 1) * _STRIDE + _MARGIN
        if low < 0 or high > len(self.text) or end > high:
            return self.root
        anchor = self._anchors.get(stride)
        if anchor is None:
            anchor = self.root.named_descendant_for_byte_range(low, high) or self.root
            self._anchors[stride] = anchor
        return anchor

    def _list(self, construct: str) -> list[tree_sitter.Node]:
        """All nodes of a construct; dense ones are not listed before one of them is asked for."""
        if construct not in self._nodes:
            names = tuple(
                name
                for name in find_language(self.language).constructs
                if name not in self._nodes and (construct in DENSE or name not in DENSE)
            )
            query = construct_query(self.language, names)
            # a query takes time with the square of what an ERROR node holds side by side
            hopeless = self.root.is_error and self.root.child_count > _MOST_IN_ERROR
            found = {} if hopeless else tree_sitter.QueryCursor(query).captures(self.root)
            self._nodes |= {name: found.get(name, []) for name in names}
        return self._nodes[construct]


def parse(text: bytes, language: str, timeout_seconds: float = 2.0) -> Syntax:
    """Parse a file.

    Args:
        text: the content; offsets in the tree count its bytes.
        language: key of `LANGUAGES`.
        timeout_seconds: parsing stops after so long.

    Raises:
        FimError: unknown language, grammar not installed, or out of time.
    """
    parser = tree_sitter.Parser(grammar(language))
    try:
        tree = parser.parse(_reader(text), progress_callback=_deadline(timeout_seconds))
    except ValueError:  # tree-sitter says only "Parsing failed"
        raise FimError(f"parsing took longer than {timeout_seconds:g} s") from None
    return Syntax(text, language, tree)


def _reader(text: bytes) -> Callable[[int, object], memoryview]:
    """The callback form of a source: the only one whose parsing can be cancelled.

    py-tree-sitter 0.26.1 never frees what the callback returns, so all parts of all files are
    copied into one buffer. One per thread: the progress callback may let another thread parse.
    """
    buffer = _of_thread.__dict__.setdefault("buffer", bytearray(_CHUNK))
    view = memoryview(buffer)

    def read(offset: int, _point: object) -> memoryview:
        part = text[offset : offset + _CHUNK]
        buffer[: len(part)] = part
        return view[: len(part)]

    return read


def _deadline(seconds: float) -> Callable[[int, bool], bool]:
    """Processor time, so that what is skipped does not depend on what else the machine does.

    The wall clock, never behind it, is cheaper to ask.
    """
    monotonic, thread_time = time.monotonic, time.thread_time
    wall, cpu = monotonic() + seconds, thread_time() + seconds
    return lambda _offset, _has_error: monotonic() > wall and thread_time() > cpu


def error_rate(syntax: Syntax) -> float:
    """Return the share of the file's bytes that lie in ERROR nodes, 0 to 1."""
    return min(1.0, error_bytes(syntax) / max(1, len(syntax.text)))


def error_bytes(syntax: Syntax) -> int:
    """Return how many bytes lie in ERROR nodes; a MISSING node has none."""
    if not syntax.has_error:
        return 0
    return sum(node.end_byte - node.start_byte for node in _error_nodes(syntax.root))


def _error_nodes(root: tree_sitter.Node, inside: bool = False) -> Iterator[tree_sitter.Node]:
    """Yield the outermost ERROR nodes, entering only subtrees that hold an error.

    The root is one where no statement could be made out to the end; those inside it may be whole.
    """
    cursor = root.walk()
    more = not inside or cursor.goto_first_child()
    while more:
        node = cursor.node
        if node.is_error:
            yield node
        elif node.has_error and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def node_chain(syntax: Syntax, byte: int) -> list[tree_sitter.Node]:
    """Return the nodes that hold a byte, from a child of the root down to a leaf.

    The chain ends above an ERROR node: nothing inside one is a construct of the language.
    """
    chain = []
    cursor = syntax.root.walk()
    while cursor.goto_first_child_for_byte(byte) is not None:
        node = cursor.node
        if node.start_byte > byte or node.is_error:
            break
        chain.append(node)
    return chain
