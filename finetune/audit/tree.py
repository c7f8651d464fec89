"""What a file's tree allows a MIDDLE to be, by definitions of its own.

Nothing here knows how a MIDDLE is chosen: one plain walk keeps the nodes that start or end where a
sample does, and each rule looks among those.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import tree_sitter

from fim.languages import grammar
from finetune.audit.read import Row

MIN_BYTES = 6
"""A structured MIDDLE has more than 5 bytes (AST-FIM, arXiv 2506.00204)."""
MAX_BLANKS = 4_096
"""Leading blanks are taken as far back as this."""
_CHARACTER = 3
"""A cut may lie so many bytes further on, at the next character."""
BLANKS = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """A node that starts or ends where a sample does."""

    node: tree_sitter.Node
    start: int
    end: int
    parent: "Above | None"
    """`None` for the root."""


@dataclass(frozen=True, slots=True, eq=False)
class Above:
    """A node on the way down; one object for each, so that siblings know one another."""

    node: tree_sitter.Node
    kind: str
    in_error: bool
    """Whether it, or a node above it, is an ERROR node; below the root, whose statements may be
    whole though no file could be made of them."""


@dataclass(slots=True)
class Tree:
    """The nodes of one file that matter to its samples."""

    text: bytes
    max_bytes: int
    """Largest structured MIDDLE."""
    starting: dict[int, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    ending: dict[int, list[Seen]] = field(default_factory=lambda: defaultdict(list))


def walk_tree(text: bytes, language: str, rows: Iterable[Row], max_bytes: int) -> Tree:
    """Parse a file and keep its nodes that start or end where a row does.

    Args:
        text: the document.
        language: row of `LANGUAGES` with a grammar.
        rows: its samples.
        max_bytes: largest structured MIDDLE.
    """
    edges = {edge for row in rows for edge in (row.start_byte, row.node_start_byte, row.end_byte)}
    tree = Tree(text, max_bytes)
    parsed = tree_sitter.Parser(grammar(language)).parse(text)
    for seen in _walk(parsed.root_node, edges):
        tree.starting[seen.start].append(seen)
        tree.ending[seen.end].append(seen)
    return tree


def _walk(root: tree_sitter.Node, edges: set[int]) -> Iterator[Seen]:
    cursor = root.walk()
    above: list[Above] = []
    while True:
        node = cursor.node
        start, end = node.start_byte, node.end_byte
        if start in edges or end in edges:
            yield Seen(node, start, end, above[-1] if above else None)
        if cursor.goto_first_child():
            in_error = bool(above) and (node.is_error or above[-1].in_error)
            above.append(Above(node, node.type, in_error))
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return
            above.pop()


def middle_faults(row: Row, tree: Tree) -> Iterator[str]:
    """Yield the rules that the MIDDLE of a FIM row breaks."""
    start, node_start, end = row.start_byte, row.node_start_byte, row.end_byte
    inside = 0 <= start <= node_start <= end <= len(tree.text)
    if not inside or not all(is_edge(tree.text, byte) for byte in (start, node_start, end)):
        yield "offsets"
        return
    rule = _RULES.get(row.sampler)
    if rule is None:
        yield "samplers"
        return
    yield from rule(row, tree)


def is_edge(text: bytes, byte: int) -> bool:
    """Whether a UTF-8 character, or the end of the text, starts at a byte."""
    return byte == len(text) or text[byte] & 0xC0 != 0x80


def _whole(row: Row, tree: Tree) -> Iterator[str]:
    """Optional blanks, then one whole node or whole siblings of one parent."""
    start, end, text = row.node_start_byte, row.end_byte, tree.text
    if not MIN_BYTES <= end - start <= tree.max_bytes:
        yield "sizes"
    if not _is_boundary(row, text):
        yield "boundaries"
    found = list(_shapes(row, tree))
    if not found:
        yield "nodes"
    elif not any(kind == row.kind for kind, _ in found):
        yield "kinds"
    elif not any(kind == row.kind and is_sound for kind, is_sound in found):
        yield "errors"


def _shapes(row: Row, tree: Tree) -> Iterator[tuple[str, bool]]:
    """What the range is: the kind the row must then have, and whether it is free of errors."""
    start, end = row.node_start_byte, row.end_byte
    for first in tree.starting[start]:
        if first.parent is None:
            continue
        if first.end == end and first.node.is_named:
            yield first.node.type, not first.parent.in_error and _is_sound(first.node)
        if row.sampler == "node":
            continue
        for last in tree.ending[end]:
            is_run = last.start >= first.end or (last is first and row.sampler == "construct")
            if last.parent is first.parent and is_run:
                if row.sampler == "siblings" and not (first.node.is_named and last.node.is_named):
                    continue
                if not tree.text[:start].strip(BLANKS) and not tree.text[end:].strip(BLANKS):
                    continue  # the whole file
                yield first.parent.kind, not first.parent.in_error and _are_sound(first, last)


def _is_sound(node: tree_sitter.Node) -> bool:
    return not (node.has_error or node.is_error or node.is_missing)


def _are_sound(first: Seen, last: Seen) -> bool:
    """Whether no sibling from the first to the last holds an error."""
    assert first.parent is not None
    cursor = first.parent.node.walk()
    more = cursor.goto_first_child_for_byte(first.start) is not None
    while more and cursor.node.start_byte < last.end:
        if not _is_sound(cursor.node):
            return False
        more = cursor.goto_next_sibling()
    return True


def _is_boundary(row: Row, text: bytes) -> bool:
    """Whether the blanks before the node are those that the row's boundary says."""
    start, node_start = row.start_byte, row.node_start_byte
    if text[start:node_start].strip(BLANKS):
        return False
    match row.boundary:
        case "exact":
            return start == node_start
        case "blanks":
            is_all = start == 0 or text[start - 1] not in BLANKS
            return is_all or node_start - start == MAX_BLANKS
        case "line":
            line_start = text.rfind(b"\n", 0, node_start) + 1
            only_blanks = not text[line_start:node_start].strip(b" \t")
            return start == (line_start if only_blanks else node_start)
    return False


def _cursor(row: Row, tree: Tree) -> Iterator[str]:
    """From the start of a token inside a node to that node's end."""
    start, end = row.start_byte, row.end_byte
    if not MIN_BYTES <= end - start <= tree.max_bytes:
        yield "sizes"
    if row.boundary != "exact" or row.node_start_byte != start:
        yield "boundaries"
    tokens = [seen for seen in tree.starting[start] if seen.node.child_count == 0]
    around = [
        seen
        for seen in tree.ending[end]
        if seen.start < start and seen.node.is_named and seen.parent is not None
    ]
    if not tokens or not around:
        yield "cursors"
    elif not any(seen.node.type == row.kind for seen in around):
        yield "kinds"
    elif not any(
        seen.node.type == row.kind and not seen.parent.in_error and _is_sound(seen.node)
        for seen in around
    ):
        yield "errors"


def _empty(row: Row, tree: Tree) -> Iterator[str]:
    """Nothing, where a token starts or ends."""
    at = row.start_byte
    beside = [*tree.starting[at], *tree.ending[at]]
    if at != row.end_byte or not any(seen.node.child_count == 0 for seen in beside):
        yield "empties"


def _random(row: Row, tree: Tree) -> Iterator[str]:
    """Two cuts between characters; nothing else is promised."""
    if row.end_byte - row.start_byte > tree.max_bytes + _CHARACTER or row.kind:
        yield "randoms"


_RULES: dict[str, Callable[[Row, Tree], Iterator[str]]] = {
    "node": _whole,
    "siblings": _whole,
    "construct": _whole,
    "cursor": _cursor,
    "empty": _empty,
    "random": _random,
}
PLAIN_SAMPLERS = frozenset({"random"})
"""Samplers that need no tree."""


def covered_thrice(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows of one document and epoch whose MIDDLE covers a byte for the third time."""
    edges = []
    for row in rows:
        if row.start_byte < row.end_byte:
            edges += [(row.start_byte, 1, row), (row.end_byte, -1, row)]
    edges.sort(key=lambda edge: edge[:2])
    depth = 0
    for _, step, row in edges:
        depth += step
        if step > 0 and depth > 2:
            yield row
