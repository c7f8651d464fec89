"""Choosing the MIDDLE: small pure samplers `(syntax, policy, rng) -> Range | None` and their table.

No sampler walks the tree: each draws a byte and descends to it, which costs 0.01 to 0.05 of the
parse, and only where that fails again and again is the file looked through once, 0.3 to 0.9 of it.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import tree_sitter

from fim.constructs import (
    MIN_MIDDLE_BYTES,
    Range,
    construct_names,
    construct_range,
    construct_ranges,
    kind_ids,
    num_sources,
    range_at,
    to_span,
)
from fim.data import Span
from fim.errors import FimError
from fim.language import CONSTRUCTS, DERIVED_CONSTRUCTS
from fim.languages import find_language
from fim.search import all_nodes, any_node, best_run, ends_around, nodes_around
from fim.syntax import DENSE, Syntax

_TRIES = 64
"""Bytes a sampler draws before it looks through the file, or says that there is nothing."""
_DRAWS = 16
"""Spans a sampler draws before its turn goes to another."""
_CHAIN = 16
"""Acceptance bound of `node`: deeper chains are thinned to so many, under 3 % of the bytes."""
_BLANKS = b" \t\r\n"

Sampler = Callable[[Syntax, "SpanPolicy", random.Random], Range | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanPolicy:
    """Weights and limits of the choice of a MIDDLE."""

    samplers: dict[str, float] = field(
        default_factory=lambda: {
            "node": 0.30, "siblings": 0.30, "construct": 0.15,
            "cursor": 0.13, "empty": 0.02, "random": 0.10,
        }
    )  # fmt: skip
    """Weight of each row of `SAMPLERS`."""
    boundaries: dict[str, float] = field(
        default_factory=lambda: {"exact": 0.5, "blanks": 0.25, "line": 0.25}
    )
    """Weight of each row of `BOUNDARIES`, for samplers that take whole nodes."""
    constructs: dict[str, float] = field(default_factory=dict)
    """Weight of each construct for the `construct` sampler; one not named has none.

    Empty: all that a file has are drawn equally often.
    """
    max_middle_bytes: int = 2_000
    """Larger nodes are not eligible; a MIDDLE is never cut to fit."""

    def __post_init__(self) -> None:
        """Refuse names without a row, and a limit no node can keep.

        Raises:
            FimError: an unknown sampler, boundary or construct, a negative or no positive weight,
                or too small a limit.
        """
        if self.max_middle_bytes < MIN_MIDDLE_BYTES:
            raise FimError(
                f"max_middle_bytes is {self.max_middle_bytes}; give {MIN_MIDDLE_BYTES} or more"
            )
        for what, weights, table in (
            ("sampler", self.samplers, SAMPLERS),
            ("boundary", self.boundaries, BOUNDARIES),
            ("construct", self.constructs, DRAWN_CONSTRUCTS),
        ):
            unknown = [name for name in weights if name not in table]
            if unknown:
                raise FimError(f"unknown {what} {unknown[0]!r}; known: {', '.join(table)}")
            negative = [name for name, weight in weights.items() if not weight >= 0]
            if negative:
                raise FimError(f"{what} {negative[0]!r} has weight {weights[negative[0]]}")
            if not sum(weights.values()) > 0 and (weights or what != "construct"):
                raise FimError(f"every {what} has weight 0")


def node(syntax: Syntax, policy: SpanPolicy, rng: random.Random) -> Range | None:
    """Take one named node, with probability proportional to its bytes.

    A uniform byte is drawn, then a place in the chain of the eligible nodes that hold it; places
    past the chain's end are drawn again, so a node counts once for each of its bytes.

    Source:
        AST-FIM single node (Gong et al. 2025, arXiv 2506.00204).
    """
    size, most = len(syntax.text), policy.max_middle_bytes
    # where so many bytes have failed once, the same would happen again
    for _ in range(0 if ("", most) in syntax.found else _TRIES):
        byte, share = int(rng.random() * size), rng.random()
        eligible = nodes_around(syntax, byte, most, int(share * _CHAIN) + 1)
        depth = len(eligible)
        place = int(share * (depth if depth > _CHAIN else _CHAIN))
        if place < depth:
            chosen = eligible[place]
            return *chosen.byte_range, chosen.type
    everything = _looked_through(syntax, most)
    if not everything[0]:
        return None
    return rng.choices(everything[0], cum_weights=everything[1])[0]


def _is_bare(syntax: Syntax, policy: SpanPolicy) -> bool:
    """Whether the file was looked through, and no node of it may be a MIDDLE."""
    return syntax.found.get(("", policy.max_middle_bytes)) == [[], []]


def _looked_through(syntax: Syntax, most: int) -> list[list]:
    """Every node that may be a MIDDLE, and the sums of their bytes up to each; looked up once."""
    if ("", most) not in syntax.found:
        nodes = all_nodes(syntax, most)
        sums = list(accumulate(end - start for start, end, _ in nodes))
        syntax.found["", most] = [nodes, sums]
    return syntax.found["", most]


def siblings(syntax: Syntax, policy: SpanPolicy, rng: random.Random) -> Range | None:
    """Take the run of named siblings that overlaps a random byte range best.

    The deepest node that holds the range is the parent; the run is the one with the highest
    intersection over union of bytes.

    Source:
        AST-FIM aligned span (Gong et al. 2025, arXiv 2506.00204).
    """
    size, most = len(syntax.text), policy.max_middle_bytes
    for attempt in range(_TRIES // 2):
        if 4 * attempt == _TRIES:  # in a short file most ranges hold all of it
            most = max(MIN_MIDDLE_BYTES, min(most, size // 2))
        length = MIN_MIDDLE_BYTES + int(rng.random() * (most - MIN_MIDDLE_BYTES + 1))
        start = int(rng.random() * max(1, size - length + 1))
        end = min(size, start + length)
        parent = syntax.around(start, end)
        found = best_run(syntax, parent, start, end, policy.max_middle_bytes)
        if found is not None:
            return found
    return None


def construct(syntax: Syntax, policy: SpanPolicy, rng: random.Random) -> Range | None:
    """Take a construct of the language that the file has, by weight, then one place of it."""
    row = find_language(syntax.language)
    names = [name for name in row.construct_names if name != "empty"]  # that is a sampler itself
    while names:
        if policy.constructs:
            weights = {name: policy.constructs.get(name, 0.0) for name in names}
            name = draw_name(weights, rng)
            if not name:
                return None
            names.remove(name)
        else:
            name = names.pop(int(rng.random() * len(names)))
        span = _one_construct(syntax, policy.max_middle_bytes, name, rng)
        if span is not None:
            return span
    return None


def _one_construct(syntax: Syntax, most: int, name: str, rng: random.Random) -> Range | None:
    """One place of a construct, each with the same probability."""
    if name in DENSE and not syntax.is_listed(name):
        # it is met by chance sooner than all its places are listed
        kinds = kind_ids(syntax.language, name)
        steps = max(_DRAWS, syntax.root.descendant_count // 32) if kinds else 0
        while steps > 0:
            met, depth = any_node(syntax, rng)
            steps -= 1 + depth // 64
            found = range_at(syntax, name, met, most) if met.kind_id in kinds else None
            if found is not None:
                return found
    places = num_sources(syntax, name)
    for _ in range(min(_TRIES, (places + 3) // 4)):
        found = construct_range(syntax, name, int(rng.random() * places), most)
        if found is not None:
            return found
    ranges = construct_ranges(syntax, name, most)
    return rng.choice(ranges) if ranges else None


def cursor(syntax: Syntax, policy: SpanPolicy, rng: random.Random) -> Range | None:
    """Start at a token inside a node, as an editor's cursor does; end where that node ends.

    Source:
        The released examples of aiXcoder-7B (README, "Structured FIM"): the MIDDLE is the rest of
        a node, not always all of it.
    """
    for _ in range(_TRIES):
        leaf = _any_leaf(syntax, rng)
        if leaf is None:
            continue
        start = leaf.start_byte
        around = ends_around(syntax, start, policy.max_middle_bytes)
        if around:
            ends = list(around)
            end = ends[int(rng.random() * len(ends))]
            return start, end, around[end]
    return None


def empty(syntax: Syntax, policy: SpanPolicy, rng: random.Random) -> Range | None:
    """Take nothing, at the start or the end of a token: the model learns to stop at once."""
    for _ in range(_TRIES):
        leaf = _any_leaf(syntax, rng)
        if leaf is not None:
            byte = leaf.start_byte if rng.random() < 0.5 else leaf.end_byte
            return byte, byte, leaf.type
    return None


def random_cuts(syntax: Syntax, policy: SpanPolicy, rng: random.Random) -> Range | None:
    """Cut twice, uniformly among the pairs of characters no more than `max_middle_bytes` apart.

    Source:
        Bavarian et al. 2022 (arXiv 2207.14255): character-level random spans.
    """
    return random_range(syntax.text, policy, rng)


def random_range(text: bytes, policy: SpanPolicy, rng: random.Random) -> Range | None:
    """The cuts of `random_cuts`, for a text without a grammar."""
    size = len(text)
    reach = min(size, policy.max_middle_bytes)
    while True:
        first = int(rng.random() * (size + 1))
        second = first - reach + int(rng.random() * (2 * reach + 1))
        if 0 <= second <= size:
            break
    low, high = (_character_start(text, byte) for byte in sorted((first, second)))
    return low, high, ""


DRAWN_CONSTRUCTS = tuple(name for name in (*CONSTRUCTS, *DERIVED_CONSTRUCTS) if name != "empty")
"""Constructs that the `construct` sampler takes; `empty` has a sampler of its own."""
SAMPLERS: dict[str, Sampler] = {
    "node": node,
    "siblings": siblings,
    "construct": construct,
    "cursor": cursor,
    "empty": empty,
    "random": random_cuts,
}
STRUCTURED = frozenset({"node", "siblings", "construct", "cursor"})
"""Samplers that take nodes, or parts of them."""
WHOLE_NODE_SAMPLERS = frozenset({"node", "siblings", "construct"})
"""Samplers whose MIDDLE starts at a node, so that `BOUNDARIES` apply."""


def _exact(text: bytes, start: int) -> int:
    return start


def _blanks(text: bytes, start: int) -> int:
    window = max(0, start - 4_096)  # so that a boundary costs the same in a file of any size
    return window + len(text[window:start].rstrip(_BLANKS))


def _line(text: bytes, start: int) -> int:
    line_start = text.rfind(b"\n", 0, start) + 1
    return start if text[line_start:start].strip(b" \t") else line_start


BOUNDARIES: dict[str, Callable[[bytes, int], int]] = {
    "exact": _exact,  # at the node
    "blanks": _blanks,  # after the last thing before it: a cursor at the end of a line
    "line": _line,  # at the line's start, where only blanks stand before the node
}


def choose_span(
    syntax: Syntax,
    policy: SpanPolicy,
    rng: random.Random,
    accept: Callable[[Span], bool] = lambda span: True,
) -> Span | None:
    """Draw a sampler by weight, then a span, then where its MIDDLE starts.

    A sampler whose spans are not accepted draws again, so that it keeps its share; only one that
    finds nothing in this file, or nothing else, leaves its turn to the others, by weight.

    Returns:
        The span, or `None` when no sampler with weight finds one.
    """
    weights = policy.samplers
    while name := draw_name(weights, rng):
        for _ in range(0 if name in STRUCTURED and _is_bare(syntax, policy) else _DRAWS):
            found = SAMPLERS[name](syntax, policy, rng)
            if found is None:
                break
            span = _with_boundary(syntax.text, found, name, policy, rng)
            if accept(span):
                return span
        weights = {other: weight for other, weight in weights.items() if other != name}
    return None


def candidate_spans(syntax: Syntax, policy: SpanPolicy) -> dict[str, list[Span]]:
    """Return every construct of a file that may be a MIDDLE, by construct name.

    `empty` is the end of every line; nothing is taken there.
    """
    most = policy.max_middle_bytes
    found = {name: construct_ranges(syntax, name, most) for name in construct_names(syntax)}
    return {
        name: [to_span(each, "empty" if name == "empty" else "construct") for each in ranges]
        for name, ranges in found.items()
        if ranges
    }


def draw_name(weights: Mapping[str, float], rng: random.Random) -> str:
    """Draw a key by its weight; empty where none is above 0."""
    left = rng.random() * sum(weights.values())
    name = ""
    for key, weight in weights.items():
        if weight > 0:
            name = key
            if left < weight:
                break
            left -= weight
    return name


def _with_boundary(
    text: bytes, found: Range, sampler: str, policy: SpanPolicy, rng: random.Random
) -> Span:
    node_start, end, kind = found
    boundary = "exact"
    if sampler in WHOLE_NODE_SAMPLERS:
        boundary = draw_name(policy.boundaries, rng)
    return Span(
        start_byte=BOUNDARIES[boundary](text, node_start), end_byte=end, sampler=sampler,
        kind=kind, boundary=boundary, node_start_byte=node_start,
    )  # fmt: skip


def _any_leaf(syntax: Syntax, rng: random.Random) -> tree_sitter.Node | None:
    """The token at a random byte; none between tokens and inside ERROR nodes."""
    byte = int(rng.random() * len(syntax.text))
    return None if syntax.in_error(byte) else syntax.leaf(byte)


def _character_start(text: bytes, byte: int) -> int:
    """The first byte at or after `byte` at which a UTF-8 character starts."""
    while byte < len(text) and text[byte] & 0xC0 == 0x80:
        byte += 1
    return byte
