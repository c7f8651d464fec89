"""Where in a tree a MIDDLE may be: around a byte, around a range, or anywhere.

Each search but the last starts at a node near by and takes a step per level, none per sibling.
"""

import random

import tree_sitter

from fim.constructs import MIN_MIDDLE_BYTES, Range, node_range, run_range
from fim.syntax import Syntax

_FAR = 64
_MANY = 4_096


def nodes_around(syntax: Syntax, byte: int, most: int, least: int = 1) -> list[tree_sitter.Node]:
    """The nodes that hold a byte and may be a MIDDLE, outermost first; none if fewer than `least`.

    Nodes are made on the way up, for steps down alone tell most of the bytes that hold too few.
    """
    broken = syntax.has_error
    if broken and syntax.in_error(byte):
        return []
    above = syntax.above(byte, most)
    if above.descendant_count > _MANY:  # the way down may be long
        nearest = above.named_descendant_for_byte_range(byte, byte + 1)
        if nearest is None or nearest.end_byte - nearest.start_byte > most:
            return []  # and so are all that hold it
    cursor = above.walk()
    descend, steps = cursor.goto_first_child_for_byte, 0
    while descend(byte) is not None:
        steps += 1
    eligible = []
    for _ in range(steps if steps >= least else 0):
        node = cursor.node
        start, end = node.byte_range
        if end - start > most:
            break
        if start <= byte and end - start >= MIN_MIDDLE_BYTES and node.is_named:
            if not (broken and node.has_error):
                eligible.append(node)
        cursor.goto_parent()
    eligible.reverse()
    return eligible


def any_node(syntax: Syntax, rng: random.Random) -> tuple[tree_sitter.Node, int]:
    """A node of the file, each as likely as any other, and how deep it lies."""
    if syntax.jumps is None:
        syntax.jumps = syntax.root.walk(), syntax.root.descendant_count
    cursor, total = syntax.jumps
    cursor.goto_descendant(int(rng.random() * total))
    return cursor.node, cursor.depth


def ends_around(syntax: Syntax, start: int, most: int) -> dict[int, str]:
    """Ends of the nodes that hold `start` but begin before it, each with the deepest's type."""
    # the node around this range ends too far off, and so do all above it
    cursor = syntax.around(start, start + most + 1).walk()
    descend, broken = cursor.goto_first_child_for_byte, syntax.has_error
    ends = {}
    while descend(start) is not None:
        node = cursor.node
        first, end = node.byte_range
        if first >= start or end - start < MIN_MIDDLE_BYTES:
            break
        if end - start <= most and node.is_named and not (broken and node.has_error):
            ends[end] = node.type
    return ends


def all_nodes(syntax: Syntax, most: int) -> list[Range]:
    """Look through the whole tree, without entering ERROR nodes or nodes too small to matter."""
    found = []
    waiting = [syntax.root]
    while waiting:
        for node in waiting.pop().named_children:
            if node.end_byte - node.start_byte >= MIN_MIDDLE_BYTES and not node.is_error:
                found.append(node_range(node, most))
                waiting.append(node)
    return [each for each in found if each is not None]


def best_run(
    syntax: Syntax, parent: tree_sitter.Node, start: int, end: int, most: int
) -> Range | None:
    """The run of named children of `parent` that overlaps `start:end` best, in bytes.

    It starts with one of the two children whose starts enclose `start`, and ends with one of the
    two whose ends enclose `end`: the cost does not grow with the number of children.
    """
    if syntax.has_error and syntax.in_error(start):
        return None
    firsts, lasts = _edges(parent, start, end)
    best, chosen = 0.0, None
    for first in firsts:
        for last in lasts:
            low, high = first.start_byte, last.end_byte
            shared = (high if high < end else end) - (low if low > start else start)
            whole = (high if high > end else end) - (low if low < start else start)
            if shared > best * whole:
                best, chosen = shared / whole, (first, last, low, high)
    if chosen is None:
        return None
    first, last, low, high = chosen
    if first == last:
        return node_range(first, most)
    return None if syntax.is_all(low, high) else run_range(parent, low, high, most)


def _edges(
    parent: tree_sitter.Node, start: int, end: int
) -> tuple[list[tree_sitter.Node], list[tree_sitter.Node]]:
    """Named children that may begin the best run, and those that may end it; two each at most.

    They are the two whose starts enclose `start`, and the two whose ends enclose `end`.
    """
    cursor = parent.walk()
    firsts = _named_from(cursor, cursor.goto_first_child_for_byte(start), "goto_next_sibling")
    if not firsts or firsts[0].start_byte > start:
        cursor = parent.walk()
        at_start = cursor.goto_first_child_for_byte(start)
        firsts = [*_named_from(cursor, at_start, "goto_previous_sibling", start), *firsts[:1]]
    cursor = parent.walk()
    lasts = _named_from(cursor, cursor.goto_first_child_for_byte(end - 1), "goto_previous_sibling")
    if not lasts or lasts[0].end_byte < end:
        cursor = parent.walk()
        at_end = cursor.goto_first_child_for_byte(end - 1)
        lasts = [*_named_from(cursor, at_end, "goto_next_sibling")[:1], *lasts[:1]]
    return firsts, lasts


def _named_from(
    cursor: tree_sitter.TreeCursor, place: int | None, step: str, before: int | None = None
) -> list[tree_sitter.Node]:
    """The first two named nodes on the way from a cursor, or the last one before a byte.

    What is `_FAR` tokens away is not looked for: broken files have 100,000 tokens side by side.
    """
    move = getattr(cursor, step)
    steps = 0
    found: list[tree_sitter.Node] = []
    more = place is not None or (step == "goto_previous_sibling" and cursor.goto_last_child())
    while more and steps < _FAR and len(found) < (2 if before is None else 1):
        steps += 1
        node = cursor.node
        if node.is_named and (before is None or node.start_byte <= before):
            found.append(node)
        more = move()
    return found
