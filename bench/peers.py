"""Public ways to choose a MIDDLE, written anew from their descriptions, to be timed beside ours."""

import random
from collections.abc import Iterator

import tree_sitter

MIN_BYTES = 6


def ast_fim(root: tree_sitter.Node, number: int, rng: random.Random) -> list[tuple[int, int]]:
    """Half single nodes by size, half the run of siblings with the best overlap.

    Nodes are listed by recursion over `.children`, and every pair of siblings is compared.

    Source:
        AST-FIM (Gong et al. 2025, arXiv 2506.00204), as two public reimplementations do it.
    """
    nodes = [n for n in _all_below(root) if n.end_byte - n.start_byte >= MIN_BYTES]
    if not nodes:
        return []
    sizes = [n.end_byte - n.start_byte for n in nodes]
    spans = []
    for _ in range(number):
        if rng.random() < 0.5:
            chosen = rng.choices(nodes, sizes)[0]
            spans.append((chosen.start_byte, chosen.end_byte))
        else:
            start, end = sorted(rng.randrange(root.end_byte + 1) for _ in range(2))
            spans.append(_aligned(root, start, end))
    return spans


def _all_below(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    for child in node.children:
        yield child
        yield from _all_below(child)


def _aligned(node: tree_sitter.Node, start: int, end: int) -> tuple[int, int]:
    for child in node.children:
        if child.start_byte <= start and child.end_byte >= end:
            return _aligned(child, start, end)
    best, chosen = -1.0, (node.start_byte, node.end_byte)
    children = node.children
    for place, first in enumerate(children):
        for last in children[place:]:
            shared = min(last.end_byte, end) - max(first.start_byte, start)
            whole = max(last.end_byte, end) - min(first.start_byte, start)
            if whole and shared / whole > best:
                best, chosen = shared / whole, (first.start_byte, last.end_byte)
    return chosen


def visit_all(root: tree_sitter.Node) -> dict[str, list[tuple[int, int]]]:
    """Visit every node and keep those of each type.

    Source:
        SAFIM's `ASTVisitor` (Gong et al. 2024, arXiv 2403.04814).
    """
    found: dict[str, list[tuple[int, int]]] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        found.setdefault(node.type, []).append((node.start_byte, node.end_byte))
        waiting += node.children
    return found


def character_cut(text: bytes, rng: random.Random) -> tuple[str, str, str]:
    """Cut a text in three at two random characters.

    Source:
        Bavarian et al. 2022 (arXiv 2207.14255), as bigcode-project/Megatron-LM does it.
    """
    characters = text.decode()
    low, high = sorted(rng.randint(0, len(characters)) for _ in range(2))
    return characters[:low], characters[low:high], characters[high:]
